"""Stage `pairs`: pictures that show the same under different names.

Three kinds of evidence: the same bytes; the same pixels in other bytes; the same spot photographed
again, shifted, zoomed, turned, in other light. The last one is looked for among all pairs of the
set but those of one lesion, which stay together anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from components.dataset.config import PairsParams
from components.dataset.exact import same_bytes, same_pixels
from components.dataset.files import measured_files
from components.dataset.originals import Original
from components.dataset.spots import Picture, compare_all
from components.layout import Layout
from components.params import Params
from components.stage import run_stage
from components.tables import PAIR_COLUMNS, read_table, source_name, write_table


def run(params: Params, layout: Layout) -> None:
    """Write `data/pairs.parquet`."""
    labels = read_table(layout.labels, ("image_id", "lesion_id", "source"))
    columns = ("image_id", "sha256", "decodes", "phash", "contrast")
    quality = read_table(layout.quality, columns)
    pairs = find_pairs(labels, quality, layout.images, params.pairs, layout.cache)
    print(f"pairs: {pairs['evidence'].value_counts().to_dict() or 'none'}", flush=True)
    write_table(pairs, layout.pairs)


def find_pairs(
    labels: pd.DataFrame, quality: pd.DataFrame, images: Path, params: PairsParams, cache: Path
) -> pd.DataFrame:
    """Find pictures that show the same.

    Parameters
    ----------
    labels, quality
        The tables of `ingest` and `measure`.
    images
        Folder of the original files' archives.
    params
        What counts as the same spot.
    cache
        Folder of caches.

    Returns
    -------
    DataFrame
        `image_id_a < image_id_b, evidence, similarity, inliers`, sorted. Of three or more images
        with the same bytes or pixels each is paired with the next one. `similarity` of the same
        spot is the likeness of the skin.

    Raises
    ------
    SourceError
        A file changed since it was measured, or is not there any more.
    """
    rows: list[tuple[str, str, str, float, int]] = []
    if params.enabled:
        shows = quality["decodes"] & (quality["contrast"] > 0)  # one colour is no picture
        usable = quality[shows].sort_values("image_id", ignore_index=True)
        files = measured_files(usable["image_id"], images)
        rows += [(*pair, "same bytes", 1.0, 0) for pair in same_bytes(usable)]
        pixels = same_pixels(usable, files)
        rows += [(*pair, "same pixels", 1.0, 0) for pair in pixels]
        pictures = _pictures(usable.drop_duplicates("sha256"), labels, files)
        for pair, verdict in compare_all(pictures, cache).items():
            if verdict.evidence >= params.min_evidence and pair not in pixels:
                rows.append((*pair, "same spot", verdict.likeness, verdict.inliers))
    table = pd.DataFrame(sorted(rows), columns=list(PAIR_COLUMNS))
    names = dict.fromkeys(("image_id_a", "image_id_b", "evidence"), "str")
    return table.astype(names | {"similarity": "float64", "inliers": "int64"})


def _pictures(
    rows: pd.DataFrame, labels: pd.DataFrame, files: Mapping[str, Original]
) -> list[Picture]:
    columns = ("image_id", "lesion_id", "source")
    facts = {
        image_id: (lesion if isinstance(lesion, str) else None, source_name(source))
        for image_id, lesion, source in zip(*(labels[name] for name in columns), strict=True)
    }
    return [
        Picture(image_id, files[image_id], sha256, *facts[image_id])
        for image_id, sha256 in zip(rows["image_id"], rows["sha256"], strict=True)
    ]


if __name__ == "__main__":
    run_stage("pairs", run)
