"""From the bytes of many pictures to probabilities, whatever some of them are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.dataset.decode import UndecodableImage, decode_to_square
from components.registry.images import ImageFiles
from components.registry.ood import THRESHOLD, Domain, fit_domain

if TYPE_CHECKING:
    from components.backbones.saved import LoadedModel
    from components.registry.candidate import Candidate

CHUNK = 64
_MOST_FOR_DOMAIN = 1000
Read = Callable[[], bytes]


def predict_all(
    model: LoadedModel,
    pictures: Sequence[Read],
    done: Callable[[int], None] = lambda _: None,
    domain: Domain | None = None,
) -> tuple[npt.NDArray[np.float64], list[str | None]]:
    """Predict pictures by the model's own preprocessing, a few at a time in memory.

    Parameters
    ----------
    pictures
        Each returns the bytes of one image file; it may raise `OSError`.
    done
        Called with the number of pictures done so far.
    domain
        Pictures that do not look like it get no prediction.

    Returns
    -------
    ndarray of shape (N, C), list of N
        Probabilities, NaN where there are none; and why there are none, else None.
    """
    probabilities = np.full((len(pictures), len(model.file.classes)), np.nan)
    problems: list[str | None] = []
    for start in range(0, len(pictures), CHUNK):
        squares, found = _decode(model, pictures[start : start + CHUNK])
        rows = start + np.flatnonzero([problem is None for problem in found])
        if len(rows):
            probabilities[rows] = model.predict_proba(squares)
            if domain is not None:
                scores = domain.scores(squares[model.pack_specs[0]])
                for position in np.flatnonzero(scores >= THRESHOLD):
                    probabilities[rows[position]] = np.nan
                    found[rows[position] - start] = _unlike(float(scores[position]))
        problems += found
        done(len(problems))
    return probabilities, problems


def _unlike(score: float) -> str:
    return (
        "it does not look like the pictures that the model was made with "
        f"(score {score:.1f}; {THRESHOLD} and more is refused; "
        "`lesionflow predict --any-picture` judges it all the same)"
    )


def _decode(
    model: LoadedModel, pictures: Sequence[Read]
) -> tuple[dict[Any, npt.NDArray[np.uint8]], list[str | None]]:
    squares: dict[Any, list[npt.NDArray[np.uint8]]] = {spec: [] for spec in model.pack_specs}
    problems: list[str | None] = []
    for read in pictures:
        try:
            data = read()
            decoded = {spec: decode_to_square(data, spec) for spec in squares}
        except UndecodableImage as error:
            problems.append(f"cannot be decoded: {error.reason}")
            continue
        except OSError as error:
            problems.append(f"cannot be read: {error.strerror or error}")
            continue
        problems.append(None)
        for spec, square in decoded.items():
            squares[spec].append(square)
    return {spec: np.stack(own) for spec, own in squares.items() if own}, problems


def domain_of(candidate: Candidate, images: Path) -> Domain | None:
    """Return what a candidate's validation pictures look like; None where they are too few.

    Parameters
    ----------
    images
        Folder of the original files.
    """
    shas = candidate.exposure.set_index("image_id")["sha256"]
    ids = candidate.validation["image_id"]
    chosen = ids.iloc[:: max(1, len(ids) // _MOST_FOR_DOMAIN)]
    lookup, spec = ImageFiles(images), candidate.model.members[0].preprocessing.pack_spec
    squares = []
    for image_id in chosen:
        with suppress(FileNotFoundError, UndecodableImage):
            squares.append(decode_to_square(lookup.read(image_id, shas[image_id]), spec))
    return fit_domain(np.stack(squares)) if squares else None
