"""What is measured of one picture, and how: pure functions of an image file's bytes.

All but the size is measured on a copy whose longer side is 256 pixels (a smaller picture as it
is), so that a threshold means the same for a photograph of 300 × 225 pixels and one of
6000 × 4000, and memory does not grow with the picture.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.dataset.decode import UndecodableImage, decode_rgb, decoder_version
from components.dataset.originals import Original

_VERSION = 1
_SIDE = 256
_DARK = 51  # a fifth of full scale: darker than pigment, as bright as a dermoscope's rim


def measures_version() -> str:
    """Everything besides the bytes that the measures depend on."""
    return f"measures {_VERSION}, {decoder_version()}"


@dataclass(frozen=True)
class Measures:
    """One row of the quality table, without the columns that name the file.

    Attributes
    ----------
    decodes
        Whether the whole file can be decoded; if not, `problem` says why and the rest is None.
    format, mode
        As the file has them, such as `JPEG` and `RGB`.
    width, height
        Full size in pixels, turned upright.
    aspect
        width / height.
    brightness
        Mean luma (ITU-R BT.601), 0 black to 1 white.
    contrast
        Standard deviation of the luma on the same scale (RMS contrast, Peli 1990).
    sharpness
        Variance of the Laplacian of the luma in 0..255 (Pech-Pacheco et al. 2000); the blurrier,
        the lower.
    entropy
        Shannon entropy of the luma's 256-bin histogram, 0 (one value) to 8 bits.
    colourfulness
        Hasler & Süsstrunk 2003; 0 is grey, above 80 extremely colourful.
    vignette_share
        Share of the picture that is dark (luma below 51) and hangs together with one of its
        corners: the rim of a dermoscope, 0 to 1.
    phash
        Perceptual hash of 64 bits as 16 hexadecimal digits (ImageHash's `phash`).
    """

    decodes: bool
    problem: str | None = None
    format: str | None = None
    mode: str | None = None
    width: int | None = None
    height: int | None = None
    aspect: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    entropy: float | None = None
    colourfulness: float | None = None
    vignette_share: float | None = None
    phash: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the columns in the order of the table."""
        return asdict(self)


def measure_file(file: Original) -> Measures:
    """Measure one file (in a worker process, which imports this module and not pandas)."""
    return measure_bytes(file.read())


def measure_bytes(data: bytes) -> Measures:
    """Measure the bytes of one image file; what does not decode is a result, not an error."""
    import imagehash

    try:
        decoded = decode_rgb(data, keep="long", at_least=_SIDE)
    except UndecodableImage as error:
        return Measures(decodes=False, problem=error.reason)
    small = decoded.upright()
    width, height = decoded.upright_size
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    grey = small.convert("L")
    luma = np.asarray(grey)
    histogram = np.asarray(grey.histogram())
    levels = np.arange(256) / 255
    brightness = float(histogram @ levels / luma.size)
    return Measures(
        decodes=True,
        format=decoded.format,
        mode=decoded.mode,
        width=width,
        height=height,
        aspect=width / height,
        brightness=brightness,
        contrast=float(np.sqrt(histogram @ (levels - brightness) ** 2 / luma.size)),
        sharpness=sharpness(luma),
        entropy=entropy(histogram),
        colourfulness=colourfulness(np.asarray(small)),
        vignette_share=vignette_share(luma),
        phash=str(imagehash.phash(grey)),
    )


def sharpness(luma: npt.NDArray[np.uint8]) -> float:
    """Variance of the 4-neighbour Laplacian inside the frame; 0 where there is no inside."""
    grey = luma.astype(np.int32)
    if min(grey.shape) < 3:
        return 0.0
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return _mean_and_variance(laplacian - 4 * grey[1:-1, 1:-1])[1]


def entropy(histogram: npt.NDArray[np.int64]) -> float:
    """Shannon entropy in bits of what `histogram` counts."""
    shares = histogram[histogram > 0] / histogram.sum()
    return float(abs((shares * np.log2(shares)).sum()))


def colourfulness(rgb: npt.NDArray[np.uint8]) -> float:
    """Spread and strength of the opponent colours red-green and yellow-blue.

    References
    ----------
    D. Hasler, S. Süsstrunk: Measuring colourfulness in natural images. Human Vision and
    Electronic Imaging VIII, 2003. M3 = sqrt(s_rg² + s_yb²) + 0.3 sqrt(m_rg² + m_yb²).
    """
    red, green, blue = np.moveaxis(rgb.astype(np.int32), 2, 0)
    red_green = _mean_and_variance(red - green)
    twice_yellow_blue = _mean_and_variance(red + green - 2 * blue)
    spread = np.sqrt(red_green[1] + twice_yellow_blue[1] / 4)
    strength = np.hypot(red_green[0], twice_yellow_blue[0] / 2)
    return float(spread + 0.3 * strength)


def _mean_and_variance(values: npt.NDArray[np.int32]) -> tuple[float, float]:
    """From sums of whole numbers: exact, so the same on every machine."""
    flat = values.ravel()
    mean = int(flat.sum(dtype=np.int64)) / flat.size
    square = int((flat * flat).sum(dtype=np.int64)) / flat.size
    return mean, max(0.0, square - mean * mean)


def vignette_share(luma: npt.NDArray[np.uint8]) -> float:
    """Share of the pixels that are dark and joined to a dark corner."""
    corners = (luma[0, 0], luma[0, -1], luma[-1, 0], luma[-1, -1])
    if min(int(corner) for corner in corners) >= _DARK:
        return 0.0
    from scipy import ndimage

    parts, _ = ndimage.label(luma < _DARK)
    named = {int(parts[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    return float(np.isin(parts, list(named)).mean())
