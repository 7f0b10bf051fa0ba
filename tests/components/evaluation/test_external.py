"""A model measured on pictures that it never saw, by the bytes of their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.backbones.saved import load_model
from components.errors import ParamsError, RegistryError, SourceError
from components.evaluation.external import evaluate_labelled, evaluate_source, known_to_model
from components.evaluation.score import score_table, score_text
from components.layout import Layout
from components.params import load_params

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def _reads(trained: Any) -> dict[str, Callable[[], bytes]]:
    return {name: partial(bytes, data) for name, data in trained.images.items()}


def test_pictures_of_another_size_get_the_numbers_of_their_predictions(trained: Any) -> None:
    model = load_model(trained.layout.run(trained.backbone, 0))
    document, predictions, left_out = evaluate_labelled(
        model, trained.labels, _reads(trained), resamples=100
    )
    assert left_out == [] and document["num_images"] == len(trained.labels)
    assert document == score_table(predictions, resamples=100) | {"seen_in_training": None}
    assert document["num_groups"] == trained.labels["lesion_id"].nunique()
    expected = model.predict_bytes([trained.images["picture-004"]])[0]
    row = predictions.set_index("image_id").loc["picture-004"]
    assert np.allclose(row[[f"p_{name}" for name in CLASSES]].astype(float), expected, atol=1e-5)


def test_only_what_cannot_be_decoded_is_left_out_by_name(trained: Any) -> None:
    model = load_model(trained.layout.run(trained.backbone, 0))
    reads = _reads(trained)
    reads["picture-001"] = partial(bytes, b"")
    reads["picture-002"] = partial(bytes, b"no picture")
    del reads["picture-003"]
    document, predictions, left_out = evaluate_labelled(model, trained.labels, reads, resamples=100)
    assert [entry["image_id"] for entry in left_out] == [
        "picture-001",
        "picture-002",
        "picture-003",
    ]
    assert "absent" in left_out[2]["reason"] and "decoded" in left_out[0]["reason"]
    assert document["num_images"] == len(predictions) == len(trained.labels) - 3
    text = score_text(document | {"left_out": left_out})
    assert "left out: picture-002" in text


def test_pictures_that_the_model_was_trained_on_are_counted(trained: Any) -> None:
    model = load_model(trained.layout.run(trained.backbone, 0))
    exposure = pd.DataFrame(
        {
            "split": ["train", "validation", "test", None],
            "sha256": [*trained.labels["sha256"].iloc[[0, 3, 6]], trained.labels["sha256"].iloc[8]],
            "lesion_id": [None, "L1", None, None],
            "patient_id": [None, None, None, None],
        }
    )
    document, _, _ = evaluate_labelled(
        model, trained.labels, _reads(trained), resamples=100, exposure=exposure
    )
    assert document["seen_in_training"] == 3  # picture 0 by its bytes, 2 and 3 by their lesion
    assert "3 images share" in score_text(document)


def test_the_same_bytes_under_two_names_are_one_group(trained: Any) -> None:
    model = load_model(trained.layout.run(trained.backbone, 0))
    labels = trained.labels.iloc[:20].assign(lesion_id=None)
    reads = _reads(trained)
    reads["picture-005"] = reads["picture-004"]
    document, _, _ = evaluate_labelled(model, labels, reads, resamples=100)
    assert document["num_groups"] == 19


def test_nothing_that_can_be_used_is_an_error(trained: Any) -> None:
    model = load_model(trained.layout.run(trained.backbone, 0))
    with pytest.raises(SourceError, match="none of 90 images can be used"):
        evaluate_labelled(model, trained.labels, {})


def test_diagnoses_that_the_model_does_not_know_are_refused() -> None:
    labels = pd.DataFrame({"image_id": ["a", "b", "c"], "diagnosis": ["melanoma", "nv", "scar"]})
    with pytest.raises(SourceError, match=r"does not know the diagnoses 'melanoma', 'scar'"):
        known_to_model(labels, CLASSES, {}, where="folder")
    kept, left_out = known_to_model(
        labels, CLASSES, {"melanoma": "mel", "scar": None}, where="folder"
    )
    assert kept["diagnosis"].tolist() == ["mel", "nv"] and left_out == {"scar": 1}
    with pytest.raises(SourceError, match="'scar'"):  # mapped, but onto a class it has not
        known_to_model(labels, CLASSES, {"melanoma": "mel", "scar": "scc"}, where="folder")
    missing = pd.DataFrame({"image_id": ["a"], "diagnosis": [None]})
    with pytest.raises(SourceError, match=r"\(none\)"):
        known_to_model(missing, CLASSES, {}, where="folder")
    assert known_to_model(missing, CLASSES, {"": None}, where="folder")[1] == {"": 1}


def test_capital_letters_of_a_diagnosis_do_not_matter() -> None:
    labels = pd.DataFrame({"image_id": list("abcd"), "diagnosis": ["MEL", "Nevus", "Df", "SCAR"]})
    names = {"nevus": "nv", "Scar": None}
    kept, left_out = known_to_model(labels, CLASSES, names, where="folder")
    assert kept["diagnosis"].tolist() == ["mel", "nv", "df"] and left_out == {"SCAR": 1}


# --- from the registry, as the command does it -----------------------------------------------


@pytest.fixture
def registered(trained: Any, repo: Path, tmp_path: Path, monkeypatch: Any) -> Any:
    """Return a workspace whose champion is the trained network; the user stands elsewhere."""
    from ruamel.yaml import YAML

    from components.registry.versions import open_registry

    layout = Layout(tmp_path / "workspace")
    document = YAML(typ="safe").load((repo / "params" / "quickstart.yaml").read_text())
    document["evaluation"] = {"bootstrap_resamples": 100}
    layout.root.mkdir()
    with layout.params.open("w") as stream:
        YAML().dump(document, stream)
    run = trained.layout.run(trained.backbone, 0)
    registry = open_registry(load_params(layout.params).registry, layout)
    version = registry.publish({path.name: path for path in run.iterdir()}, content_id="a" * 64)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return layout, version, elsewhere


def _write(trained: Any, folder: Path, names: Mapping[str, str]) -> None:
    """Write pictures: image id -> file name."""
    for image_id, name in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(trained.images[image_id])


def test_class_folders_are_read_though_the_recipe_is_synthetic(
    trained: Any, registered: Any, capsys: Any
) -> None:
    layout, version, elsewhere = registered
    names = {
        image_id: f"{diagnosis}/{image_id}.png"
        for image_id, diagnosis in zip(
            trained.labels["image_id"], trained.labels["diagnosis"], strict=True
        )
    }
    _write(trained, elsewhere / "mine", names)
    document = evaluate_source(layout, ["mine"], model=version)
    assert document["num_images"] == 90 and document["left_out"] == []
    assert document["model"] == {"name": "quickstart-synthetic", "version": version}
    assert score_text(document).startswith(f"model: quickstart-synthetic {version}\n90 images")
    counts = trained.labels["diagnosis"].value_counts()
    assert document["per_class"]["mel"]["support"] == counts["mel"]
    output = capsys.readouterr()
    assert output.out == "" and "reading mine as class_folders" in output.err
    # The same pictures by way of the model itself.
    model = load_model(trained.layout.run(trained.backbone, 0))
    direct, _, _ = evaluate_labelled(model, trained.labels, _reads(trained), resamples=100)
    assert document["accuracy"] == direct["accuracy"]


def test_tables_are_read_by_what_their_columns_are_called(trained: Any, registered: Any) -> None:
    layout, version, elsewhere = registered
    table = trained.labels.rename(columns={"diagnosis": "dx", "age_years": "age"})
    columns = ["image_id", "lesion_id", "dx", "age", "sex"]
    _write(trained, elsewhere / "mine", {name: f"{name}.png" for name in trained.images})
    table[columns].to_csv(elsewhere / "mine" / "labels.csv", index=False)
    document = evaluate_source(layout, [str(elsewhere / "mine")], model=version)
    assert document["num_images"] == 90
    assert document["num_groups"] == trained.labels["lesion_id"].nunique()
    assert set(document["subgroups"]) == {"age_years", "sex"}
    (elsewhere / "mine" / "copy.csv").write_bytes((elsewhere / "mine" / "labels.csv").read_bytes())
    with pytest.raises(SourceError, match="2 tables with columns image_id and diagnosis"):
        evaluate_source(layout, ["mine"], model=version)


def test_ham10000_is_known_by_its_metadata(trained: Any, registered: Any) -> None:
    layout, version, elsewhere = registered
    table = trained.labels.rename(
        columns={
            "diagnosis": "dx",
            "age_years": "age",
            "diagnosis_method": "dx_type",
            "site": "localization",
        }
    )
    _write(trained, elsewhere / "ham", {name: f"part_1/{name}.png" for name in trained.images})
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    table[columns].to_csv(elsewhere / "ham" / "HAM10000_metadata.csv", index=False)
    assert evaluate_source(layout, ["ham"], model=version)["num_images"] == 90


def test_folders_in_capital_letters_are_read(trained: Any, registered: Any) -> None:
    layout, version, elsewhere = registered
    _write(trained, elsewhere / "mine", {"picture-000": "MEL/a.png", "picture-001": "NV/b.png"})
    document = evaluate_source(layout, ["mine"], model=version)
    support = {name: own["support"] for name, own in document["per_class"].items()}
    assert support["mel"] == support["nv"] == 1 and document["num_images"] == 2


def test_what_a_warm_start_inherited_was_seen_too(trained: Any, registered: Any) -> None:
    """The champion's own snapshot has lesion L1 in training, its ancestor's lesion L7."""
    from components.registry.ancestry import EXPOSURE, EXPOSURE_COLUMNS, INHERITED
    from components.registry.versions import open_registry

    layout, _, elsewhere = registered

    def seen(lesion: str, part: str) -> pd.DataFrame:
        row = {"image_id": "another name", "lesion_id": lesion, "split": part}
        return pd.DataFrame([row], columns=list(EXPOSURE_COLUMNS))

    files: dict[str, Any] = {
        path.name: path for path in trained.layout.run(trained.backbone, 0).iterdir()
    }
    own = pd.concat([seen("L1", "train"), seen("L3", "test")])
    files[EXPOSURE] = own.to_parquet(index=False)
    files[INHERITED] = seen("L7", "train").to_parquet(index=False)
    registry = open_registry(load_params(layout.params).registry, layout)
    version = registry.publish(files, content_id="b" * 64)
    _write(trained, elsewhere / "mine", {name: f"{name}.png" for name in trained.images})
    columns = ["image_id", "lesion_id", "diagnosis"]
    trained.labels[columns].to_csv(elsewhere / "mine" / "labels.csv", index=False)
    document = evaluate_source(layout, ["mine"], model=version)
    assert document["seen_in_training"] == 4  # two pictures of L1, two of L7


def test_a_folder_of_other_diagnoses_is_refused(trained: Any, registered: Any) -> None:
    layout, version, elsewhere = registered
    _write(trained, elsewhere / "mine", {"picture-000": "scar/a.png", "picture-001": "mel/b.png"})
    with pytest.raises(SourceError, match="does not know the diagnosis 'scar'"):
        evaluate_source(layout, ["mine"], model=version)


def test_a_source_that_is_not_there_and_a_kind_that_is_none_are_refused(registered: Any) -> None:
    layout, version, _ = registered
    with pytest.raises(SourceError, match="does not exist"):
        evaluate_source(layout, ["nowhere"], model=version)
    with pytest.raises(ParamsError, match="cannot be read as 'zip'"):
        evaluate_source(layout, ["nowhere"], model=version, kind="zip")
    with pytest.raises(RegistryError):
        evaluate_source(layout, ["nowhere"], model="v0099")


def test_an_image_in_two_sources_is_refused(trained: Any, registered: Any) -> None:
    layout, version, elsewhere = registered
    for name in ("one", "two"):
        _write(trained, elsewhere / name, {"picture-000": "mel/a.png", "picture-001": "nv/b.png"})
    with pytest.raises(SourceError, match="2 images are in two of the sources"):
        evaluate_source(layout, ["one", "two"], model=version)
