"""A search is checked before anything is done, and is another one when what it follows from is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.errors import ParamsError
from components.layout import Layout
from components.params import Params, load_params, parse_params, read_yaml
from components.tables import read_table, write_table
from components.tuning.study import Study, check_study, make_study

BACKBONE = "mobilenet_v3_large"
TUNE: dict[str, Any] = {
    "num_samples": 4,
    "max_epochs": 3,
    "grace_period": 1,
    "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "batch_size": [8, 16]},
}


def params_of(layout: Layout, tune: dict[str, Any] = TUNE, **sections: Any) -> Params:
    document = read_yaml(layout.params) | {"tune": tune} | sections
    return parse_params(document, where="params.yaml")


@pytest.fixture
def layout(stage: Callable[..., Layout]) -> Layout:
    """Return a workspace in which everything before `train` is done."""
    return stage()


@pytest.mark.parametrize(
    ("backbone", "changed", "named"),
    [
        ("resnet19", {}, "unknown backbone 'resnet19'"),
        ("vit_b_16", {}, "'vit_b_16' is not among the backbones"),
        (BACKBONE, {"grace_period": 4}, "grace_period 4"),
        ("resnet18", {"max_epochs": None, "grace_period": 2}, "1 epochs"),
    ],
)
def test_a_wrong_search_is_one_clear_error(
    layout: Layout, backbone: str, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(ParamsError, match=named) as caught:
        check_study(params_of(layout, TUNE | changed), backbone)
    assert "params.yaml" in caught.value.where


def test_a_space_that_does_not_go_with_the_recipe_is_refused(layout: Layout) -> None:
    backbones = {BACKBONE: {"num_workers": 8}}
    with pytest.raises(ParamsError, match="batch_size: 8 does not go with") as caught:
        check_study(params_of(layout, backbones=backbones), BACKBONE)
    assert caught.value.where == "params.yaml: tune.space.batch_size"


def test_trials_vary_the_recipe_and_the_first_is_the_recipe(layout: Layout) -> None:
    study = make_study(params_of(layout), layout, BACKBONE)
    recipe = load_params(layout.params).training_of(BACKBONE)
    jobs = [study.job_of(number) for number in range(4)]
    assert len(study.trials) == 4
    assert jobs[0].params == recipe.model_copy(update={"epochs": 3})
    for job, changes in zip(jobs, study.trials, strict=True):
        assert job.params == recipe.model_copy(update={"epochs": 3, **changes})
    assert len({job.checkpoints for job in jobs}) == 4
    assert study.values_of(0) == {"learning_rate": 1e-3, "batch_size": 16}


def test_no_trial_sees_an_image_of_the_test_part(layout: Layout) -> None:
    study = make_study(params_of(layout), layout, BACKBONE)
    splits = read_table(layout.splits)
    # The packed rows of this workspace are in the order of the splits.
    test = set(splits.index[splits["split"] == "test"])
    assert test
    for number in range(len(study.trials)):
        job = study.job_of(number)
        assert test.isdisjoint(job.train.rows)
        assert test.isdisjoint(job.validation.rows)


def test_what_a_search_follows_from_is_in_its_identity(layout: Layout) -> None:
    def study(**changed: Any) -> Study:
        return make_study(params_of(layout, **changed), layout, BACKBONE)

    first = study()
    assert study().identity == first.identity
    others = [
        study(tune=TUNE | {"num_samples": 5}),
        study(tune=TUNE | {"space": {"batch_size": [8, 16]}}),
        study(seed=1),
        study(backbones={BACKBONE: {"ema_decay": 0.5}}),
    ]
    splits = read_table(layout.splits)
    splits.loc[0, "split"] = "validation"
    write_table(splits, layout.splits)
    others.append(study())
    assert len({first.identity, *(other.identity for other in others)}) == 6
