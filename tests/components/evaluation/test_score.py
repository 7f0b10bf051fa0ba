"""The document of `lesionflow score`: complete, plain JSON, the same for the same table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from components.errors import TableError
from components.evaluation.metrics import HEADLINE
from components.evaluation.score import melanoma_sensitivity, score_table, score_text
from components.tables import read_table

MakeTable = Callable[..., pd.DataFrame]
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


@pytest.fixture(scope="module")
def scored(make_table: MakeTable) -> tuple[pd.DataFrame, dict[str, Any]]:
    frame = make_table(num_images=600, seed=11)
    return frame, score_table(frame, resamples=200)


def test_the_document_has_what_the_command_promises(
    scored: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    frame, document = scored
    assert document["num_images"] == 600
    assert document["num_groups"] == frame["group_id"].nunique()
    truth = frame["diagnosis"].to_numpy()
    classes = np.array(document["classes"])
    predicted = classes[frame[[f"p_{name}" for name in classes]].to_numpy().argmax(1)]
    assert document["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted), abs=1e-9)
    assert document["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(truth, predicted), abs=1e-9
    )
    confusion = sk.confusion_matrix(truth, predicted, labels=classes)
    assert document["confusion"]["counts"] == confusion.tolist()
    shares = np.array(document["confusion"]["row_shares"])
    assert np.allclose(shares.sum(axis=1), 1)
    assert [own["support"] for own in document["per_class"].values()] == confusion.sum(1).tolist()
    for name in HEADLINE:
        low, high = document["intervals"][name]
        assert low < high and low <= document[name] <= high
    assert document["intervals"]["per_class.mel.sensitivity"][0] > 0
    assert document["intervals"]["malignant.auc"][1] <= 1


def test_the_document_is_plain_json(scored: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    document = scored[1]
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_the_order_of_rows_and_the_run_change_nothing(
    scored: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    frame, document = scored
    shuffled = frame.sample(frac=1, random_state=0)
    assert score_table(shuffled, resamples=200) == document
    assert score_table(frame, resamples=200, seed=1)["intervals"] != document["intervals"]


def test_rows_are_named_as_the_user_sees_them(make_table: MakeTable) -> None:
    frame = make_table(num_images=50).iloc[::-1].reset_index(drop=True)
    frame.loc[2, "p_mel"] = -1.0
    with pytest.raises(TableError, match=r"row 3 \(image_id image-00047\)"):
        score_table(frame)


def test_lesions_are_judged_by_the_mean_of_their_images(make_table: MakeTable) -> None:
    frame = make_table(num_images=300, seed=3)
    columns = [name for name in frame.columns if name.startswith("p_")]
    means = frame.groupby("lesion_id")[columns].mean()
    truth = frame.groupby("lesion_id")["diagnosis"].first()
    predicted = means.columns.str.removeprefix("p_").to_numpy()[means.to_numpy().argmax(1)]
    lesions = score_table(frame, resamples=100)["per_lesion"]
    assert lesions["num_lesions"] == len(truth)
    assert lesions["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(truth, predicted), abs=1e-9
    )
    assert lesions["intervals"]["balanced_accuracy"][0] < lesions["balanced_accuracy"]


def test_a_lesion_with_two_diagnoses_is_left_out_of_the_lesions_by_name(
    make_table: MakeTable,
) -> None:
    frame = make_table(num_images=60, seed=3)
    twice = frame["lesion_id"].value_counts().index[0]
    rows = frame.index[frame["lesion_id"] == twice]
    frame.loc[rows[0], "diagnosis"] = "mel"
    frame.loc[rows[1], "diagnosis"] = "nv"
    document = score_table(frame, resamples=100)
    assert document["per_lesion"]["left_out"] == [twice]
    assert document["per_lesion"]["num_lesions"] == frame["lesion_id"].nunique() - 1
    assert document["num_images"] == 60


def test_without_lesions_there_is_no_judgement_of_lesions(make_table: MakeTable) -> None:
    frame = make_table(num_images=60, lesions=False)
    document = score_table(frame, resamples=100)
    assert document["per_lesion"] is None
    assert document["bootstrap"]["unit"] == "image_id" and document["num_groups"] == 60
    assert score_table(frame.assign(lesion_id=None), resamples=100)["per_lesion"] is None


def test_an_absent_class_is_said_to_be_absent(make_table: MakeTable) -> None:
    frame = make_table(num_images=300)
    frame = frame[frame["diagnosis"] != "df"]
    document = score_table(frame, resamples=100)
    assert document["absent_classes"] == ["df"]
    own = document["per_class"]["df"]
    assert own["support"] == 0 and own["sensitivity"] is None and own["auc"] is None
    assert document["balanced_accuracy"] == pytest.approx(
        np.mean([o["sensitivity"] for o in document["per_class"].values() if o["support"]])
    )
    assert "per_class.df.auc" in document["no_interval"]
    assert "no image of df" in score_text(document)


def test_a_class_of_a_few_groups_has_no_interval_and_is_named(make_table: MakeTable) -> None:
    frame = make_table(num_images=300)
    rare = frame["diagnosis"] == "vasc"
    frame = pd.concat([frame[~rare], frame[rare].drop_duplicates("group_id").head(3)])
    document = score_table(frame, resamples=100)
    assert document["small_classes"] == ["vasc"]
    assert "per_class.vasc.sensitivity" not in document["intervals"]
    assert "per_class.vasc.auc" in document["no_interval"]
    assert "vasc" in score_text(document).splitlines()[-1]


def test_a_class_that_is_all_right_does_not_look_certain(make_table: MakeTable) -> None:
    frame = make_table(num_images=400, skill=12.0)
    document = score_table(frame, resamples=100)
    assert document["per_class"]["bcc"]["sensitivity"] == 1.0
    low, high = document["intervals"]["per_class.bcc.sensitivity"]
    groups = frame.loc[frame["diagnosis"] == "bcc", "group_id"].nunique()
    assert high == 1.0 and low == pytest.approx(0.025 ** (1 / groups))


def test_one_class_only_is_scored_as_far_as_it_can_be(make_table: MakeTable) -> None:
    frame = make_table(num_images=200)
    document = score_table(frame[frame["diagnosis"] == "nv"], resamples=100)
    assert document["macro_auc"] is None and document["accuracy"] is not None
    assert document["malignant"]["auc"] is None and document["malignant"]["sensitivity"] is None
    json.dumps(document, allow_nan=False)
    assert score_text(document)


def test_one_image_is_enough_for_a_document(make_table: MakeTable) -> None:
    document = score_table(make_table(num_images=10).iloc[:1], resamples=100)
    assert document["num_images"] == 1 and document["intervals"] == {}
    json.dumps(document, allow_nan=False)


def test_columns_may_have_the_names_of_ham10000(make_table: MakeTable) -> None:
    frame = make_table(num_images=200)
    frame["age_years"] = np.arange(200) % 80
    frame["site"] = np.where(np.arange(200) % 3, "back", "face")
    document = score_table(frame, resamples=100)
    theirs = frame.rename(columns={"group_id": "group", "age_years": "age", "site": "localization"})
    assert score_table(theirs, resamples=100) == document
    assert document["bootstrap"]["unit"] == "group_id, lesion_id"
    both = theirs.assign(age_approx=1.0)  # the first name counts
    assert score_table(both, resamples=100) == document


def test_lesions_of_a_csv_are_names_and_not_numbers(tmp_path: Path) -> None:
    """01 and 1 are two lesions, and the images of NA are one."""
    lesions = ["01", "1", "NA", "NA", "", ""]
    rows = [f"{n:04d},{lesion},{n % 2:02d},0.6,0.4" for n, lesion in enumerate(lesions)]
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join(["image_id,lesion,diagnosis,p_00,p_01", *rows, ""]))
    document = score_table(read_table(path), resamples=10)
    assert document["classes"] == ["00", "01"]
    assert document["num_groups"] == 5
    assert document["accuracy"] == 0.5


def test_a_table_with_real_lesions_and_ages_is_scored_as_scikit_learn_does(
    real_data: Path,
) -> None:
    """The labels of 2,000 real images of all diagnoses, with probabilities of a made-up model."""
    metadata = pd.read_csv(real_data / "ham10000" / "HAM10000_metadata.csv")
    metadata = metadata.iloc[::5].head(2000).reset_index(drop=True)  # it is sorted by diagnosis
    classes = sorted(metadata["dx"].unique())
    assert classes == list(CLASSES)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, len(classes)))
    logits += 2 * (metadata["dx"].to_numpy()[:, None] == np.array(classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for number, name in enumerate(classes):
        metadata[f"p_{name}"] = shares[:, number]
    document = score_table(metadata)
    assert document["num_groups"] == metadata["lesion_id"].nunique()
    assert document["bootstrap"]["unit"] == "lesion_id"
    assert document["bootstrap"]["resamples"] == 2000
    theirs = _scikit_learn(metadata["dx"].to_numpy(dtype=str), shares, classes)
    assert set(HEADLINE) - set(theirs) == {"ece", "adaptive_ece"}  # scikit-learn has no such thing
    assert {name: document[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)
    for name in HEADLINE:
        low, high = document["intervals"][name]
        assert low <= document[name] <= high and low < high
    assert set(document["subgroups"]) == {"age_years", "sex", "site", "diagnosis_method"}


def _scikit_learn(truth: np.ndarray, shares: np.ndarray, classes: list[str]) -> dict[str, float]:  # type: ignore[type-arg]
    """Return every headline number that scikit-learn has, as it has it."""
    predicted = np.array(classes)[shares.argmax(axis=1)]
    found = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "mcc": sk.matthews_corrcoef(truth, predicted),
        "cohen_kappa": sk.cohen_kappa_score(truth, predicted),
        "log_loss": sk.log_loss(truth, shares, labels=classes),
        "brier": sk.brier_score_loss(truth, shares, labels=classes),
        "macro_auc": sk.roc_auc_score(truth, shares, multi_class="ovr", labels=classes),
        "macro_average_precision": np.mean(
            [
                sk.average_precision_score(truth == name, shares[:, number])
                for number, name in enumerate(classes)
            ]
        ),
    }
    for average in ("macro", "weighted"):
        values = sk.precision_recall_fscore_support(truth, predicted, average=average)
        names = [f"{average}_{name}" for name in ("precision", "recall", "f1")]
        found |= dict(zip(names, values[:3], strict=True))
    return {name: float(value) for name, value in found.items()}


def test_ranks_and_gates_ask_for_melanoma_or_else_for_malignant(make_table: MakeTable) -> None:
    document = score_table(make_table(num_images=200), resamples=100)
    assert melanoma_sensitivity(document) == (
        "per_class.mel.sensitivity",
        document["per_class"]["mel"]["sensitivity"],
    )
    binary = score_table(make_table(100, classes=("benign", "malignant")), resamples=100)
    assert melanoma_sensitivity(binary) == (
        "malignant.sensitivity",
        binary["malignant"]["sensitivity"],
    )
    neither = score_table(make_table(100, classes=("a", "b")), resamples=100)
    assert neither["malignant"] is None and melanoma_sensitivity(neither)[1] is None


def test_the_text_shows_numbers_intervals_and_classes(
    scored: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    text = score_text(scored[1])
    low, high = scored[1]["intervals"]["balanced_accuracy"]
    assert f"{scored[1]['balanced_accuracy']:.3f}  [{low:.3f}, {high:.3f}]" in text
    assert all(name in text for name in scored[1]["classes"])
    assert max(map(len, text.splitlines())) <= 100
