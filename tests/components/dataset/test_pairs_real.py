"""Near-duplicates among real dermoscopic pictures whose lesions are known."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest

from components.dataset.config import PairsParams
from components.dataset.measure import measure_images
from components.dataset.pairs import find_pairs
from tests.originals import write_originals


def pairs_of(
    folder: Path, source: Path, metadata: pd.DataFrame, lesion_ids: list[str | None]
) -> set[tuple[str, str]]:
    images = folder / "images"
    names = [f"{image_id}.jpg" for image_id in metadata["image_id"]]
    write_originals(images, {name: (source / "images" / name).read_bytes() for name in names})
    labels = pd.DataFrame(
        {
            "image_id": metadata["image_id"],
            "lesion_id": lesion_ids,
            "source": "ham10000",
            "sha256": None,
        }
    )
    quality = measure_images(labels, images, folder / "cache")
    pairs = find_pairs(labels, quality, images, PairsParams(), folder / "cache")
    return set(zip(pairs["image_id_a"], pairs["image_id_b"], strict=True))


def test_without_lesion_ids_the_pictures_of_a_lesion_are_found(
    real_data: Path, tmp_path: Path
) -> None:
    source = real_data / "ham10000-mini"
    metadata = pd.read_csv(source / "HAM10000_metadata.csv")
    images_per_lesion = metadata.groupby("lesion_id")["image_id"].transform("count")
    several = metadata[images_per_lesion > 1].sort_values("lesion_id").head(70)
    alone = metadata[images_per_lesion == 1].sort_values("lesion_id").head(50)
    chosen = pd.concat([several, alone])
    known = {
        pair
        for _, ids in chosen.groupby("lesion_id")["image_id"]
        for pair in combinations(sorted(ids), 2)
    }
    found = pairs_of(tmp_path, source, chosen, [None] * len(chosen))
    assert len(found & known) >= 0.9 * len(known)
    # One spot that HAM10000 has under two lesion ids (looked at as pictures), and no other.
    assert found - known <= {("ISIC_0029036", "ISIC_0031362")}


@pytest.mark.slow
def test_the_same_spot_under_two_lesion_ids_is_found_and_nothing_else(
    real_data: Path, tmp_path: Path
) -> None:
    source = real_data / "ham10000-mini"
    metadata = pd.read_csv(source / "HAM10000_metadata.csv")
    found = pairs_of(tmp_path, source, metadata, list(metadata["lesion_id"]))
    assert found == {  # looked at as pictures
        ("ISIC_0025314", "ISIC_0025771"),
        ("ISIC_0029036", "ISIC_0031362"),
        ("ISIC_0029130", "ISIC_0031799"),
    }
