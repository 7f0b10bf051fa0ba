"""The report's photographs: mistakes with Grad-CAM, joined near-duplicates, quarantine."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.dataset.decode import (
    PackSpec,
    UndecodableImage,
    decode_rgb,
    decode_to_square,
)
from components.dataset.files import measured_files
from components.dataset.originals import Original
from components.evaluation.prediction_table import Predictions

SIDE = 192
"""Pixels of a printed picture."""
_NUM_MISTAKES, _NUM_MISSED = 8, 4
Pixels = npt.NDArray[np.uint8]


def to_data_uri(data: bytes, kind: str = "png") -> str:
    """Return an image file as an address that needs no other file."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def photograph(pixels: Pixels) -> str:
    """Return RGB pixels as a JPEG data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=88, optimize=True)
    return to_data_uri(buffer.getvalue(), "jpeg")


def thumbnail(file: Original | None) -> str | None:
    """Return the picture in `file` as a data URI, None where there is none to show."""
    if file is None:
        return None
    try:
        picture = decode_rgb(file.read(), keep="long", at_least=SIDE).upright()
    except UndecodableImage:
        return None
    picture.thumbnail((SIDE, SIDE))
    return photograph(np.asarray(picture))


def most_confident_mistakes(table: Predictions) -> list[int]:
    """Return the rows of the mistakes to show, one per group.

    First up to four malignant ones that were taken for benign, then others; each with the
    highest probability of the wrong diagnosis first, ties by image.
    """
    rows = np.arange(len(table))
    confidence = table.probabilities.max(axis=1)
    wrong = table.predicted != table.truth
    missed = table.is_malignant[table.truth] & ~table.is_malignant[table.predicted]
    ordered = sorted(rows[wrong], key=lambda row: (-confidence[row], table.image_ids[row]))
    chosen: list[int] = []
    for wanted, most in ((True, _NUM_MISSED), (False, _NUM_MISTAKES)):
        for row in ordered:
            groups = {int(table.groups[other]) for other in chosen}
            fits = not wanted or bool(missed[row])
            if len(chosen) < most and fits and int(table.groups[row]) not in groups:
                chosen.append(int(row))
    return chosen


def explain_mistakes(table: Predictions, images: Path, run_folder: Path) -> list[dict[str, Any]]:
    """Return the most confident mistakes as photographs with Grad-CAM of the wrong diagnosis.

    Parameters
    ----------
    table
        Predictions on test.
    images
        Folder of the original files' archives.
    run_folder
        The model whose first member is explained.
    """
    rows = most_confident_mistakes(table)
    if not rows:
        return []
    from components.backbones.saved import load_model

    model = load_model(run_folder, device="cpu")
    preprocessing = model.file.members[0].preprocessing
    spec = preprocessing.pack_spec
    files = measured_files([str(table.image_ids[row]) for row in rows], images)
    contents = [file.read() for file in files.values()]
    maps = _maps(model.networks[0], preprocessing, contents, table.predicted[rows].tolist())
    shown = PackSpec(SIDE, spec.fit)
    entries = []
    for row, data, heat in zip(rows, contents, maps, strict=True):
        pixels = decode_to_square(data, shown)
        truth, predicted = int(table.truth[row]), int(table.predicted[row])
        missed = bool(table.is_malignant[truth] and not table.is_malignant[predicted])
        entries.append(
            {
                "image_id": str(table.image_ids[row]),
                "diagnosis": table.classes[truth],
                "predicted": table.classes[predicted],
                "confidence": float(table.probabilities[row, predicted]),
                "of_diagnosis": float(table.probabilities[row, truth]),
                "missed": missed,
                "picture": photograph(pixels),
                "overlay": photograph(overlay(pixels, heat)),
            }
        )
    return entries


def _maps(
    network: Any, preprocessing: Any, contents: Sequence[bytes], classes: Sequence[int]
) -> npt.NDArray[np.float32]:
    import torch

    from components.backbones.inference import exact_float32
    from components.evaluation.gradcam import grad_cam

    # One thread: sums in another order would change pixels from machine to machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        squares = [decode_to_square(data, preprocessing.pack_spec) for data in contents]
        images = preprocessing.to_input(torch.from_numpy(np.stack(squares)))
        with exact_float32():
            return grad_cam(network, images, classes)
    finally:
        torch.set_num_threads(threads)


def overlay(pixels: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """Lay a map (0 to 1) over a picture: the brighter, the more it speaks for the class."""
    from matplotlib import colormaps
    from PIL import Image

    size = (pixels.shape[1], pixels.shape[0])
    small = Image.fromarray(np.round(heat * 255).astype(np.uint8))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=np.float64) / 255
    colour = np.asarray(colormaps["inferno"](smooth))[..., :3] * 255
    strength = (0.15 + 0.5 * smooth)[..., None]
    return np.round(pixels * (1 - strength) + colour * strength).astype(np.uint8)


def surest_first(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return pairs with equal bytes or pixels first, then by matching points and likeness."""
    ordered = pairs.assign(same_spot=pairs["evidence"] == "same spot").sort_values(
        ["same_spot", "inliers", "similarity", "image_id_a", "image_id_b"],
        ascending=[True, False, False, True, True],
    )
    return ordered.drop(columns="same_spot")


def joined_pairs(
    joined: pd.DataFrame, files: dict[str, Original], most: int = 6
) -> list[dict[str, Any]]:
    """Return near-duplicates that no declared id explains, as pairs of photographs.

    Spread evenly from the surest to the least sure, so that the doubtful ones are seen too.
    """
    ordered = surest_first(joined)
    places = np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).astype(int))
    return [
        {
            "ids": (str(row["image_id_a"]), str(row["image_id_b"])),
            "evidence": str(row["evidence"]),
            "similarity": float(row["similarity"]),
            "inliers": int(row["inliers"]),
            "pictures": [
                thumbnail(files.get(str(name))) for name in (row["image_id_a"], row["image_id_b"])
            ],
        }
        for row in _rows(ordered.iloc[places])
    ]


def quarantined_images(
    quarantine: pd.DataFrame, files: dict[str, Original], most: int = 12
) -> list[dict[str, Any]]:
    """Return the first quarantined images that can be shown, with their reason."""
    shown: list[dict[str, Any]] = []
    for row in _rows(quarantine.sort_values("image_id")):
        if len(shown) == most:
            break
        picture = thumbnail(files.get(str(row["image_id"])))
        if picture is not None:
            found = {"image_id": str(row["image_id"]), "reason": str(row["reason"])}
            shown.append(found | {"picture": picture})
    return shown


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(map(str, frame.columns), row, strict=True)) for row in frame.to_numpy(object)]
