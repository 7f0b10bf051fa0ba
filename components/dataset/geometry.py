"""Whether two pictures show the same spot: matched keypoints that one movement explains.

Matches are mutual nearest neighbours that pass Lowe's ratio test. Each match proposes a similarity
transform of its own (shift, turn and zoom from the two keypoints' positions, angles and sizes), so
all proposals are tried instead of a random sample: the same answer every time. The best ones are
refined by least squares, and the inliers are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.dataset.keypoints import Keypoints

GEOMETRY_VERSION = 1
_RATIO = 0.85  # Lowe's ratio test, in distances
_MAX_RESIDUAL = 5.0  # pixels of the keypoints' scale
_MAX_ZOOM = 3.0
_REFINED = 10  # proposals that are refined
_REFINEMENTS = 4


@dataclass(frozen=True)
class Alignment:
    """How well one similarity transform lays one picture on the other.

    Attributes
    ----------
    inliers
        Distinct keypoints (by position) that agree with it.
    factor, shift
        The transform z -> factor * z + shift from the first picture to the second, a point
        being the complex number x + iy in pixels of the keypoints' scale.
    """

    inliers: int
    factor: complex = 1 + 0j
    shift: complex = 0j


def align(one: Keypoints, other: Keypoints) -> Alignment:
    """Find the similarity transform that most matched keypoints agree with.

    References
    ----------
    D. Lowe: Distinctive image features from scale-invariant keypoints. IJCV 2004.
    J. Philbin et al.: Object retrieval with large vocabularies and fast spatial matching. CVPR
    2007 (one match proposes a transform).
    """
    matches = match(one, other)
    if len(matches) < 3:
        return Alignment(0)
    source, target = one.points[matches[:, 0]], other.points[matches[:, 1]]
    # A point is a complex number; a similarity transform is z -> factor * z + shift.
    z_source = source[:, 0].astype(np.float64) + 1j * source[:, 1]
    z_target = target[:, 0].astype(np.float64) + 1j * target[:, 1]
    agree = _proposals(source, target, z_source, z_target)
    best = Alignment(0)
    for proposal in np.argsort(-agree.sum(axis=1), kind="stable")[:_REFINED]:
        found = _refine(z_source, z_target, np.flatnonzero(agree[proposal]))
        if found.inliers > best.inliers:
            best = found
    return best


def match(one: Keypoints, other: Keypoints) -> npt.NDArray[np.int64]:
    """Return mutual nearest neighbours that pass the ratio test; shape (n, 2), row numbers."""
    if min(len(one.points), len(other.points)) < 2:
        return np.zeros((0, 2), np.int64)
    left, right = one.descriptors.astype(np.float32), other.descriptors.astype(np.float32)
    # Squared distances; all whole numbers below 2^24, so exact.
    distance = (left * left).sum(axis=1)[:, None] - 2 * (left @ right.T)
    distance += (right * right).sum(axis=1)
    rows = np.arange(len(left))
    nearest = distance.argmin(axis=1)
    mutual = distance.argmin(axis=0)[nearest] == rows
    closest = distance[rows, nearest]
    distance[rows, nearest] = np.inf
    passes = closest < _RATIO**2 * distance.min(axis=1)
    kept = np.flatnonzero(mutual & passes)
    return np.stack([kept, nearest[kept]], axis=1)


def _proposals(
    source: npt.NDArray[np.float32],
    target: npt.NDArray[np.float32],
    z_source: npt.NDArray[np.complex128],
    z_target: npt.NDArray[np.complex128],
) -> npt.NDArray[np.bool_]:
    """Return which matches (columns) each match's own transform (rows) roughly explains."""
    zoom = target[:, 2].astype(np.float64) / source[:, 2]
    factor = zoom * np.exp(1j * (target[:, 3].astype(np.float64) - source[:, 3]))
    shift = z_target - factor * z_source
    residual = np.abs(factor[:, None] * z_source + shift[:, None] - z_target)
    # A keypoint's angle and size are rough: far from it, three times the residual is allowed.
    agree = residual < 3 * _MAX_RESIDUAL
    agree[(zoom > _MAX_ZOOM) | (zoom < 1 / _MAX_ZOOM)] = False
    return np.asarray(agree, dtype=np.bool_)


def _refine(
    source: npt.NDArray[np.complex128],
    target: npt.NDArray[np.complex128],
    inliers: npt.NDArray[np.intp],
) -> Alignment:
    """Fit a transform to the inliers by least squares, take its inliers, and so on."""
    factor, shift = 1 + 0j, 0j
    for _ in range(_REFINEMENTS):
        centred = source[inliers] - source[inliers].mean() if len(inliers) > 1 else np.zeros(0)
        spread = float((np.abs(centred) ** 2).sum())
        if spread < 1e-6:
            return Alignment(0)
        factor = complex((np.conj(centred) * target[inliers]).sum() / spread)
        shift = complex(target[inliers].mean() - factor * source[inliers].mean())
        inliers = np.flatnonzero(np.abs(factor * source + shift - target) < _MAX_RESIDUAL)
    if not 1 / _MAX_ZOOM <= abs(factor) <= _MAX_ZOOM or len(inliers) < 2:
        return Alignment(0)
    distinct = min(_num_distinct(source[inliers]), _num_distinct(target[inliers]))
    return Alignment(distinct, factor, shift)


def _num_distinct(points: npt.NDArray[np.complex128]) -> int:
    """Count positions: one spot may bear several keypoints of different angles."""
    return len(np.unique(np.rint(points)))
