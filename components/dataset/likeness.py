"""Whether two pictures look alike where one lies on the other.

A few keypoints can agree by chance: light reflections of one dermoscope, hairs, the marks of a
ruler. The skin in between does not. So one picture is laid on the other, and the fine texture
(not the lesion's outline, which any two round lesions share) is compared everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from components.dataset.geometry import Alignment

Grey = npt.NDArray[np.float32]

LIKENESS_VERSION = 1
_FINE, _COARSE = 3.0, 6.0  # standard deviations of the Gaussians of the band, pixels
_WINDOW = 12.0  # of the window that the correlation is normalised in
_NOISE = 0.25  # variance below which a window holds nothing to compare
_DARK = 30  # the dermoscope's rim is no skin
_RIM = 4  # pixels at the edge of the laid-on picture that are left out
_LEAST_PIXELS = 500


def likeness(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], found: Alignment) -> float:
    """Mean locally normalised correlation of the texture of two aligned pictures.

    Parameters
    ----------
    one, other
        Grey pictures, shape (height, width), in the pixels of their keypoints.
    found
        How the first lies on the second.

    Returns
    -------
    float
        From -1 to 1: about 0 for different skin, 0 too where they hardly overlap.
    """
    import cv2

    factor, shift = found.factor, found.shift
    if abs(factor) > 1:  # the finer picture is laid on the coarser one
        one, other, factor, shift = other, one, 1 / factor, -shift / factor
    source, target = one.astype(np.float32), other.astype(np.float32)
    blur = 0.5 * np.sqrt(1 / abs(factor) ** 2 - 1)
    if blur > 0.2:  # as the antialiasing of a resize
        source = _blurred(source, blur)
    movement = np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )
    size = (target.shape[1], target.shape[0])
    laid = cv2.warpAffine(source, movement, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones_like(source), movement, size, flags=cv2.INTER_NEAREST)
    inside = cv2.erode(inside, np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8))
    shared = (inside > 0.5) & (laid > _DARK) & (target > _DARK)
    if shared.sum() < _LEAST_PIXELS:
        return 0.0
    return _correlation(_texture(laid), _texture(target), shared)


def _texture(grey: Grey) -> Grey:
    return np.asarray(_blurred(grey, _FINE) - _blurred(grey, _COARSE))


def _correlation(one: Grey, other: Grey, shared: npt.NDArray[np.bool_]) -> float:
    weight = shared.astype(np.float32)
    total = np.maximum(_blurred(weight, _WINDOW), 1e-3)

    def local_mean(values: Grey) -> Grey:
        return np.asarray(_blurred(values * weight, _WINDOW) / total)

    mean_one, mean_other = local_mean(one), local_mean(other)
    variance_one = np.maximum(local_mean(one * one) - mean_one**2, _NOISE)
    variance_other = np.maximum(local_mean(other * other) - mean_other**2, _NOISE)
    covariance = local_mean(one * other) - mean_one * mean_other
    correlation = covariance / np.sqrt(variance_one * variance_other)
    return float(correlation[shared].mean(dtype=np.float64))


def _blurred(grey: Any, deviation: float) -> Grey:
    import cv2

    return np.asarray(cv2.GaussianBlur(grey, (0, 0), deviation))
