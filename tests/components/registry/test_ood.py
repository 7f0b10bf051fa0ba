"""A picture that is no lesion is refused; real ones are not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from components.dataset.decode import PackSpec, decode_to_square
from components.errors import RegistryError
from components.registry.model import Classifier, prediction_document
from components.registry.ood import (
    DOMAIN,
    LEAST_IMAGES,
    THRESHOLD,
    Domain,
    fit_domain,
    read_domain,
    statistics,
    to_json,
)
from components.registry.promote import promote_candidate

from .conftest import Work, train

Squares = npt.NDArray[np.uint8]


def _bytes(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _photos() -> dict[str, bytes]:
    """Return the photographs that scikit-learn and matplotlib bring along."""
    import matplotlib
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    person = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    paths = [*sorted(folder.glob("*.jpg")), person]
    return {f"photo {path.stem}": path.read_bytes() for path in paths}


def _document() -> Image.Image:
    page = Image.new("RGB", (850, 1100), "white")
    draw = ImageDraw.Draw(page)
    for line in range(60):
        draw.text((60, 40 + 17 * line), f"{line}. The quick brown fox, " * 5, fill=(20, 20, 20))
    return page


def _no_lesions() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (450, 600, 3), dtype=np.uint8)
    skin = np.clip(rng.normal((220, 170, 150), 25, (450, 600, 3)), 0, 255).astype(np.uint8)
    blank = {name: Image.new("RGB", (600, 450), name) for name in ("white", "black", "pink")}
    return _photos() | {
        "document": _bytes(_document()),
        "noise": _bytes(Image.fromarray(noise)),
        "noise of the colour of skin": _bytes(Image.fromarray(skin)),
        **{f"blank {name}": _bytes(image) for name, image in blank.items()},
    }


@pytest.fixture(scope="module")
def lesions(real_data: Path) -> Squares:
    """Return real pictures as squares, in an order that has nothing to do with their names."""
    paths = sorted((real_data / "ham10000-mini" / "images").glob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))[:420]
    spec = PackSpec(64, "crop")
    return np.stack([decode_to_square(paths[number].read_bytes(), spec) for number in order])


@pytest.fixture(scope="module")
def domain(lesions: Squares) -> Domain:
    found = fit_domain(lesions[:120])
    assert found is not None
    return found


def test_of_real_lesions_at_least_99_percent_are_accepted(lesions: Squares, domain: Domain) -> None:
    assert (domain.scores(lesions[120:]) < THRESHOLD).mean() >= 0.99


@pytest.mark.parametrize("name", sorted(_no_lesions()))
def test_what_is_no_lesion_is_refused(domain: Domain, name: str) -> None:
    square = decode_to_square(_no_lesions()[name], PackSpec(64, "crop"))
    assert domain.scores(square[None])[0] >= THRESHOLD


def test_a_score_does_not_depend_on_the_other_pictures(lesions: Squares, domain: Domain) -> None:
    together = domain.scores(lesions[:5])
    alone = [float(domain.scores(lesions[number : number + 1])[0]) for number in range(5)]
    assert np.allclose(together, alone, atol=1e-12)


def test_half_of_unseen_pictures_of_the_kind_lie_below_0(lesions: Squares, domain: Domain) -> None:
    assert (domain.scores(lesions[120:]) < 0).mean() == pytest.approx(0.5, abs=0.15)
    assert (domain.scores(lesions[120:]) < 1).mean() == pytest.approx(0.9, abs=0.07)


def test_the_domain_survives_its_file(lesions: Squares, domain: Domain, tmp_path: Path) -> None:
    (tmp_path / DOMAIN).write_bytes(to_json(domain))
    again = read_domain(tmp_path)
    assert again is not None
    assert np.array_equal(again.scores(lesions[:3]), domain.scores(lesions[:3]))
    (tmp_path / DOMAIN).write_text("{}")
    with pytest.raises(RegistryError, match="damaged"):
        read_domain(tmp_path)
    (tmp_path / DOMAIN).unlink()
    assert read_domain(tmp_path) is None


def test_of_few_or_equal_pictures_there_is_no_domain() -> None:
    grey = np.full((LEAST_IMAGES, 32, 32, 3), 128, dtype=np.uint8)
    assert fit_domain(grey[:-1]) is None
    assert fit_domain(grey) is None


@pytest.mark.parametrize("side", [16, 64, 200])
def test_every_statistic_of_every_picture_is_a_number(side: int) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        np.zeros((side, side, 3), np.uint8),
        np.full((side, side, 3), 255, np.uint8),
        rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
    ]
    assert np.isfinite(statistics(np.stack(pictures))).all()


def test_predict_refuses_a_photograph_unless_told_to(
    tmp_path: Path, make_work: Callable[..., Work]
) -> None:
    work = train(make_work(tmp_path / "work", lesions=54), skill=1.0)
    promote_candidate(work.params, work.layout)
    classifier = Classifier.from_registry(work.registry)
    (tmp_path / "photo.jpg").write_bytes(next(iter(_photos().values())))
    lesion = sorted(work.pictures.iterdir())[0]
    found = classifier.predict([tmp_path / "photo.jpg", lesion])
    assert found["problem"].notna().tolist() == [True, False]
    assert found["p_mel"].isna().tolist() == [True, False]
    assert "does not look like" in found["problem"][0]
    assert prediction_document(classifier, found)["domain_check"] == "checked"
    assert "are refused" in (work.registry.fetch("champion") / "card.md").read_text()
    any_picture = classifier.predict([tmp_path / "photo.jpg"], any_picture=True)
    assert any_picture["problem"][0] is None
    document = prediction_document(classifier, any_picture, any_picture=True)
    assert document["domain_check"].startswith("not checked: any picture was asked for")
