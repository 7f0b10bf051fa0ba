"""What a picture is recognised by: SIFT keypoints, in a form that is exact to compare.

Descriptors are RootSIFT (Arandjelović & Zisserman 2012) as whole numbers: a product of two of them
is a whole number below 2^24 at every step, which float32 holds without rounding. Whatever the
order of additions, on whatever machine and in however many processes, similarities are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.dataset.decode import decode_rgb, decoder_version

NUM_KEYPOINTS = 300
"""The strongest keypoints of a picture that are kept."""
NUM_VALUES = 128
UNIT = 1024
"""Length of a descriptor; the rare value above 255 is clipped."""

_VERSION = 1
_SIDE = 320
_CONTRAST = 0.01  # skin is smooth: OpenCV's 0.04 finds fewer than ten points in a quarter of it
_POINT_VALUES = 4
_BYTES_PER_KEYPOINT = _POINT_VALUES * 4 + NUM_VALUES


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one picture, strongest first.

    Attributes
    ----------
    points
        Shape (n, 4), float32: x, y and size in pixels of a copy whose longer side is 320 at most;
        angle in radians.
    descriptors
        Shape (n, 128), uint8: RootSIFT × 1024.
    """

    points: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.uint8]

    def to_bytes(self) -> bytes:
        """Pack into bytes for a cache."""
        return self.points.tobytes() + self.descriptors.tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> Keypoints:
        """Unpack what `to_bytes` made."""
        count = Keypoints.count_in(len(data))
        border = count * _POINT_VALUES * 4
        return Keypoints(
            np.frombuffer(data[:border], np.float32).reshape(count, _POINT_VALUES),
            np.frombuffer(data[border:], np.uint8).reshape(count, NUM_VALUES),
        )

    @staticmethod
    def count_in(num_bytes: int) -> int:
        """Return how many keypoints so many packed bytes hold."""
        return num_bytes // _BYTES_PER_KEYPOINT


@dataclass(frozen=True)
class KeypointFiles:
    """The keypoints of many pictures in memory-mapped files that processes share, uncopied.

    Attributes
    ----------
    folder
        Where the files lie.
    num_pictures
        A picture's number is its place when the files were written.
    num_keypoints
        Of all pictures.
    """

    folder: Path
    num_pictures: int
    num_keypoints: int

    @staticmethod
    def write(folder: Path, counts: Sequence[int], pictures: Iterable[Keypoints]) -> KeypointFiles:
        """Write the keypoints of `pictures`, one after the other; they have `counts` keypoints."""
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        files = KeypointFiles(folder, len(counts), int(starts[-1]))
        files.save("starts", starts)
        files.save("pictures", np.repeat(np.arange(len(counts), dtype=np.int32), counts))
        # Written, not mapped: the pages of a map would count as this process's memory.
        with (
            files._new("points", "<f4", _POINT_VALUES) as points,
            files._new("descriptors", "|u1", NUM_VALUES) as descriptors,
        ):
            for picture in pictures:
                points.write(picture.points.tobytes())
                descriptors.write(picture.descriptors.tobytes())
        return files

    def read(self, number: int) -> Keypoints:
        """Return the keypoints of one picture."""
        start, stop = self.load("starts")[number : number + 2]
        return Keypoints(self.load("points")[start:stop], self.descriptors[start:stop])

    @property
    def descriptors(self) -> npt.NDArray[np.uint8]:
        """Shape (n, 128): of all pictures."""
        return self.load("descriptors")

    @property
    def pictures(self) -> npt.NDArray[np.int32]:
        """Shape (n,): the picture that each keypoint belongs to."""
        return self.load("pictures")

    def save(self, name: str, values: npt.NDArray[Any]) -> None:
        """Put what is derived from the keypoints beside them."""
        np.save(self.folder / f"{name}.npy", values)

    def load(self, name: str) -> npt.NDArray[Any]:
        """Map one of the files into memory."""
        return _mapped(self.folder / f"{name}.npy")

    def _new(self, name: str, kind: str, width: int) -> BinaryIO:
        file = (self.folder / f"{name}.npy").open("wb")
        header = {"descr": kind, "fortran_order": False, "shape": (self.num_keypoints, width)}
        np.lib.format.write_array_header_1_0(file, header)
        return file


@lru_cache(maxsize=16)
def _mapped(path: Path) -> npt.NDArray[Any]:
    # A plain array over the map: slices of np.memmap cost a Python call each.
    return np.asarray(np.load(path, mmap_mode="r"))


def keypoints_version() -> str:
    """Everything besides the bytes that the keypoints depend on."""
    import cv2

    return f"keypoints {_VERSION}, opencv {cv2.__version__}, {decoder_version()}"


def find_keypoints(data: bytes) -> Keypoints:
    """Find the keypoints of an image file.

    Raises
    ------
    UndecodableImage
        The file does not decode.

    References
    ----------
    D. Lowe: Distinctive image features from scale-invariant keypoints. IJCV 2004.
    R. Arandjelović, A. Zisserman: Three things everyone should know to improve object retrieval.
    CVPR 2012 (RootSIFT).
    """
    import cv2

    sift = cv2.SIFT.create(nfeatures=NUM_KEYPOINTS, contrastThreshold=_CONTRAST)
    found, values = sift.detectAndCompute(grey_picture(data), None)
    if values is None:
        return Keypoints(np.zeros((0, 4), np.float32), np.zeros((0, NUM_VALUES), np.uint8))
    points = np.array([(*p.pt, p.size, np.deg2rad(p.angle)) for p in found], np.float32)
    order = np.lexsort((*points.T, [-p.response for p in found]))[:NUM_KEYPOINTS]
    return Keypoints(points[order], root_sift(values[order]))


def grey_picture(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image file to grey in the pixels of its keypoints; shape (height, width).

    Raises
    ------
    UndecodableImage
        The file does not decode.
    """
    picture = decode_rgb(data, keep="long", at_least=_SIDE).upright()
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return np.asarray(picture.convert("L"), dtype=np.uint8)


def root_sift(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return RootSIFT descriptors × 1024 of SIFT descriptors of shape (n, 128)."""
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-6)
    return np.asarray(np.clip(np.rint(UNIT * np.sqrt(shares)), 0, 255), dtype=np.uint8)
