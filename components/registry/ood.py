"""Whether a picture is of the kind that the model was made with.

A classifier gives every picture a diagnosis, a page of text too. So each version keeps what its
validation pictures look like: about fifty statistics of colour, light, texture at four scales and
layout, and how they vary together. The score of a picture is its Mahalanobis distance from there,
as multiples of the spread among the validation pictures; `THRESHOLD` and more is refused.

The statistics are of the pixels, not of the network: after fine-tuning on a few hundred pictures
a network's own features no longer tell a photograph from a lesion (measured: docs/registry.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from components.errors import RegistryError
from components.settings import Settings

DOMAIN = "domain.json"
"""File of a version."""
THRESHOLD = 3.6
"""Least score that is refused; docs/registry.md has the measurements behind it."""
LEAST_IMAGES = 30
"""With fewer validation pictures nothing can be said."""
_SIDE, _SHRINKAGE, _LEAST_SCALE, _FOLDS = 64, 0.2, 0.02, 5
_LARGEST_Z = 4.0  # of a validation picture, for the covariance: one odd picture must not shape it

Floats = npt.NDArray[np.float64]
Squares = npt.NDArray[np.uint8]


class Domain(Settings):
    """What the validation pictures look like."""

    schema_version: Literal[1] = 1
    num_images: int
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    """Inverse of the covariance of the scaled statistics."""
    median: float
    """Of the distances of validation pictures that the fit had not seen."""
    upper: float
    """Their 90 % quantile."""

    def scores(self, squares: Squares) -> Floats:
        """Return the score of each of the squares (N, S, S, 3): 0 typical, 1 the outer tenth."""
        z = (statistics(squares) - np.array(self.centre)) / np.array(self.scale)
        return (_distances(z, np.array(self.precision)) - self.median) / (self.upper - self.median)


def fit_domain(squares: Squares) -> Domain | None:
    """Fit to the squares of validation pictures; None where they are fewer than `LEAST_IMAGES`."""
    if len(squares) < LEAST_IMAGES:
        return None
    values = statistics(squares)
    fold = np.arange(len(values)) % _FOLDS
    held_out = np.concatenate(
        [
            _distances_under(values[fold != number], values[fold == number])
            for number in range(_FOLDS)
        ]
    )
    median, upper = np.quantile(held_out, [0.5, 0.9])
    if not upper > median:  # all pictures are alike
        return None
    centre, scale, precision = _fit(values)
    return Domain(
        num_images=len(values),
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        precision=tuple(tuple(row) for row in precision.tolist()),
        median=float(median),
        upper=float(upper),
    )


def read_domain(folder: Path) -> Domain | None:
    """Read the domain of a version; None where it has none.

    Raises
    ------
    RegistryError
        It is damaged.
    """
    path = folder / DOMAIN
    if not path.is_file():
        return None
    try:
        return Domain.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RegistryError(
            f"{DOMAIN} is damaged", where=str(path), fix="fetch the model again"
        ) from error


def to_json(domain: Domain) -> bytes:
    """Return the bytes of `domain.json`."""
    return (json.dumps(domain.model_dump(mode="json")) + "\n").encode()


# --- the fit -----------------------------------------------------------------------------------


def _fit(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Return median, spread (half the middle 68 %), and the inverse of a shrunk covariance."""
    centre = np.median(values, axis=0)
    low, high = np.quantile(values, [0.16, 0.84], axis=0)
    scale = np.maximum((high - low) / 2, _LEAST_SCALE)
    z = np.clip((values - centre) / scale, -_LARGEST_Z, _LARGEST_Z)
    covariance = (1 - _SHRINKAGE) * (z.T @ z) / len(z) + _SHRINKAGE * np.eye(z.shape[1])
    return centre, scale, np.linalg.inv(covariance)


def _distances_under(fitted: Floats, values: Floats) -> Floats:
    centre, scale, precision = _fit(fitted)
    return _distances((values - centre) / scale, precision)


def _distances(z: Floats, precision: Floats) -> Floats:
    squared = np.einsum("ij,jk,ik->i", z, precision, z)
    return np.asarray(np.sqrt(np.maximum(squared, 0) / z.shape[1]))


# --- the statistics ----------------------------------------------------------------------------


def statistics(squares: Squares) -> Floats:
    """Return the statistics of pictures, shape (N, F).

    Parameters
    ----------
    squares
        uint8 (N, S, S, 3), RGB; brought to 64 × 64 first.
    """
    parts = [np.stack(list(_statistics(_resized(square)[None])), axis=1) for square in squares]
    return np.concatenate(parts)


def _resized(square: Squares) -> Floats:
    from PIL import Image

    image = Image.fromarray(square).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float64) / 255


def _statistics(images: Floats) -> Iterator[Any]:
    """Yield each statistic of images (N, 64, 64, 3) between 0 and 1, shape (N,)."""
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    light = images.mean(axis=-1)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    channels = (light, red_green, yellow_blue)
    saturation = images.max(axis=-1) - images.min(axis=-1)
    for values in (*channels, saturation):
        yield values.mean(axis=(1, 2))
        yield np.sqrt(values.std(axis=(1, 2)))
    yield from np.quantile(light, [0.05, 0.25, 0.75, 0.95], axis=(1, 2))
    for values in channels[1:]:
        yield from np.quantile(values, [0.05, 0.95], axis=(1, 2))
    for values in channels:
        yield from _texture(values, is_light=values is light)
    yield from _layout(channels)


def _texture(values: Floats, *, is_light: bool) -> Iterator[Any]:
    """Yield the size of steps between neighbours at four scales; of light their kind, too."""
    tiny = 1e-3
    for _ in range(4):
        across = np.abs(np.diff(values, axis=2)).reshape(len(values), -1)
        down = np.abs(np.diff(values, axis=1)).reshape(len(values), -1)
        yield np.log(across.mean(axis=1) + down.mean(axis=1) + tiny)
        if is_light:
            yield np.log((across.mean(axis=1) + tiny) / (down.mean(axis=1) + tiny))
            steps = np.concatenate([across, down], axis=1)
            root = np.sqrt((steps**2).mean(axis=1))
            yield np.log((root + tiny) / (steps.mean(axis=1) + tiny))  # few large or many small
        values = _blocks(values, 2).mean(axis=(2, 4))


def _layout(channels: tuple[Floats, Floats, Floats]) -> Iterator[Any]:
    """Yield how centre and border, the halves, and the blocks of a picture differ."""
    light, quarter, half = channels[0], _SIDE // 4, _SIDE // 2
    for values in channels:
        centre = values[:, quarter:-quarter, quarter:-quarter]
        border = (values.sum(axis=(1, 2)) - centre.sum(axis=(1, 2))) / (_SIDE**2 - half**2)
        yield border - centre.mean(axis=(1, 2))
    yield np.abs(light[:, :, :half].mean(axis=(1, 2)) - light[:, :, half:].mean(axis=(1, 2)))
    yield np.abs(light[:, :half].mean(axis=(1, 2)) - light[:, half:].mean(axis=(1, 2)))
    yield np.sqrt(_blocks(light, quarter).mean(axis=(2, 4)).std(axis=(1, 2)))
    within = _blocks(light, _SIDE // 8).std(axis=(2, 4))
    yield from np.log(np.quantile(within, [0.1, 0.5, 0.9], axis=(1, 2)) + 3e-3)


def _blocks(values: Floats, side: int) -> Floats:
    """Return (N, rows, side, columns, side) of values (N, H, W)."""
    count = values.shape[1] // side
    return values.reshape(len(values), count, side, count, side)
