"""Predicting with a registered model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from components.errors import SourceError
from components.registry.model import Classifier, prediction_document, prediction_text
from components.registry.promote import promote_candidate
from components.tables import probability_columns, read_table

from .conftest import CLASSES, Work


@pytest.fixture
def classifier(work: Work) -> Classifier:
    promote_candidate(work.params, work.layout)
    return Classifier.from_registry(work.registry)


def test_a_picture_gets_its_row_of_the_prediction_table(work: Work, classifier: Classifier) -> None:
    table = read_table(work.layout.evaluation("mobilenet_v2", 0) / "test.parquet")
    paths = [work.pictures / f"{name}.png" for name in table["image_id"]]
    found = classifier.predict(paths)
    columns = probability_columns(CLASSES)
    assert np.abs(found[columns].to_numpy() - table[columns].to_numpy()).max() < 1e-5
    assert (found["diagnosis"] == table["diagnosis"]).mean() > 0.9
    assert np.allclose(found["malignant_score"], found["p_mel"])
    one_by_one = [classifier.predict([path])[columns].to_numpy() for path in paths[:3]]
    assert np.abs(np.concatenate(one_by_one) - found[columns].to_numpy()[:3]).max() < 1e-5


def test_folders_are_searched_in_order(work: Work, classifier: Classifier) -> None:
    found = classifier.predict([work.pictures])
    assert list(found["image"]) == sorted(str(path) for path in work.pictures.iterdir())


def test_what_is_no_picture_is_named_and_the_rest_is_predicted(
    work: Work, classifier: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "empty.jpg").touch()
    good = next(iter(sorted(work.pictures.iterdir())))
    found = classifier.predict([tmp_path / "broken.jpg", good, tmp_path / "empty.jpg"])
    assert list(found["problem"].notna()) == [True, False, True]
    assert found["diagnosis"].tolist()[0] is None
    assert found["p_mel"].isna().tolist() == [True, False, True]
    document = prediction_document(classifier, found)
    json.dumps(document, allow_nan=False)
    assert document["images"][0]["probabilities"] is None
    assert "empty file" in document["images"][2]["problem"]
    assert "no prediction: cannot be decoded" in prediction_text(document)


def test_every_answer_says_what_it_is_not_for(work: Work, classifier: Classifier) -> None:
    document = prediction_document(classifier, classifier.predict([work.pictures]))
    assert "no medical device" in document["warning"]
    assert "no medical device" in prediction_text(document)
    assert document["model"] == "tiny v0001"


def test_without_a_domain_every_answer_and_the_card_say_that_nothing_is_checked(
    work: Work, classifier: Classifier
) -> None:
    """Sixteen validation pictures are too few to tell what is unlike them."""
    document = prediction_document(classifier, classifier.predict([work.pictures]))
    assert document["domain_check"].startswith("not checked: tiny v0001 has no domain.json")
    assert document["domain_check"] in prediction_text(document)
    card = (work.registry.fetch("champion") / "card.md").read_text()
    assert "Pictures of another kind: not checked" in card


def test_a_path_that_does_not_exist_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        classifier.predict([tmp_path / "none.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no image"):
        classifier.predict([tmp_path / "empty"])


def test_a_pulled_model_predicts_the_same(
    work: Work, classifier: Classifier, tmp_path: Path
) -> None:
    work.registry.pull("champion", tmp_path / "out")
    again = Classifier.from_folder(tmp_path / "out").predict([work.pictures])
    assert again.equals(classifier.predict([work.pictures]))
