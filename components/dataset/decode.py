"""Image bytes to pixels: the one way that measuring, packing and predicting share.

`decode_to_square` is the first half of the preprocessing that a model file records (`PackSpec`):
whoever calls it with the same bytes and the same spec gets the same pixels. The rules:

- the picture is turned as its EXIF orientation says; several frames: the first one counts;
- greyscale, palette, CMYK and YCbCr become RGB, 16 bits per channel become 8, what is transparent
  is laid on white; embedded colour profiles are not applied;
- a damaged file is refused with the reason, never filled up with grey;
- a JPEG may be decoded at 1/2, 1/4 or 1/8 scale as long as at least three times the asked-for size
  is left, so that the antialiased resize still decides what the pixels look like: on dermoscopic
  pictures the result is within 0.25 grey levels of full-size decoding in the mean, 5 at most.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, features
from PIL import __version__ as pillow_version

Fit = Literal["crop", "pad", "stretch"]

DECODE_VERSION = 1
"""Raised whenever the same bytes and spec would give other pixels than before."""
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded (8000 × 8000); a bigger one is a mistake or an attack."""

# Formats that photographs come in; others (EPS, PDF, ...) start foreign programs or parsers.
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
_DRAFT_MARGIN = 3  # the reduced-scale JPEG stays at least this many times the target
_ORIENTATION = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (_TURN[5], _TURN[6], _TURN[7], _TURN[8])


def decoder_version() -> str:
    """What decoded pixels depend on besides the bytes: this module and the libraries below it."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"decode {DECODE_VERSION}, pillow {pillow_version}, jpeg {jpeg}"


class UndecodableImage(Exception):  # noqa: N818 - the name is the contract
    """These bytes are no picture that can be used; `reason` says why, in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class PackSpec:
    """How a picture becomes a square.

    Parameters
    ----------
    image_size
        Side of the square in pixels.
    fit
        `crop`: the shorter side fills the square, the longer one is cut evenly on both ends;
        `pad`: the longer side fills it, the rest is black; `stretch`: the aspect is given up.
    """

    image_size: int
    fit: Fit

    def key(self) -> str:
        """Everything that the pixels depend on besides the bytes, as one line of JSON."""
        return json.dumps(asdict(self) | {"decoder": decoder_version()}, sort_keys=True)


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    Attributes
    ----------
    image
        RGB, 8 bits, not yet turned upright.
    format, mode
        As the file has them, such as `JPEG` and `CMYK`.
    width, height
        Full size in pixels, not yet turned upright.
    reduction
        A pixel of `image` stands for reduction × reduction pixels of the full size (in the last
        row and column for what is left).
    turn
        How to turn it upright, or None where it is.
    """

    image: Image.Image
    format: str
    mode: str
    width: int
    height: int
    reduction: int
    turn: Image.Transpose | None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as they are seen."""
        swapped = self.turn in _SWAPS_SIDES
        return (self.height, self.width) if swapped else (self.width, self.height)

    def upright(self, image: Image.Image | None = None) -> Image.Image:
        """Return the picture, or `image` made from it, turned upright."""
        image = self.image if image is None else image
        return image if self.turn is None else image.transpose(self.turn)


def decode_to_square(data: bytes, spec: PackSpec) -> npt.NDArray[np.uint8]:
    """Decode `data` to an RGB square.

    Downscaling is antialiased: Pillow's bicubic filter with its support scaled by the factor.

    Returns
    -------
    ndarray of shape (S, S, 3), uint8
        S is `spec.image_size`.

    Raises
    ------
    UndecodableImage
        The bytes are empty, truncated, damaged, too large, or no picture.
    """
    keep: Literal["short", "long"] = "long" if spec.fit == "pad" else "short"
    decoded = decode_rgb(data, keep=keep, at_least=spec.image_size)
    width, height, size = decoded.width, decoded.height, spec.image_size
    if spec.fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return np.asarray(_resize(decoded, (left, top, left + side, top + side), (size, size)))
    whole = (0.0, 0.0, float(width), float(height))
    if spec.fit == "stretch":
        return np.asarray(_resize(decoded, whole, (size, size)))
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    part = _resize(decoded, whole, inner)
    canvas = Image.new("RGB", (size, size))
    canvas.paste(part, ((size - part.width) // 2, (size - part.height) // 2))
    return np.asarray(canvas)


def _resize(
    decoded: Decoded, box: tuple[float, float, float, float], size: tuple[int, int]
) -> Image.Image:
    """Resize the part `box`, in pixels of the full size, to `size`, and turn it upright."""
    left, top, right, bottom = (edge / decoded.reduction for edge in box)
    resized = decoded.image.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    return decoded.upright(resized)


def decode_rgb(
    data: bytes, *, keep: Literal["short", "long"] = "short", at_least: int | None = None
) -> Decoded:
    """Decode `data` to 8-bit RGB.

    Parameters
    ----------
    data
        The bytes of an image file.
    keep, at_least
        A JPEG may be decoded at a reduced scale that leaves its `keep` side at 3 × `at_least`
        pixels or more. None: full size.

    Raises
    ------
    UndecodableImage
        As `decode_to_square`.
    """
    if not data:
        raise UndecodableImage("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            return _load(opened, keep, at_least)
    except UndecodableImage:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableImage("not an image (of a format that is read)") from error
    except Image.DecompressionBombError as error:
        raise UndecodableImage(f"too large: over {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders raise anything on hostile bytes
        raise UndecodableImage(_reason(error)) from error


def _load(opened: Image.Image, keep: Literal["short", "long"], at_least: int | None) -> Decoded:
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise UndecodableImage(
            f"too large: {width} × {height} pixels, at most {MAX_PIXELS:,} are decoded"
        )
    kind, mode = opened.format or "", opened.mode
    reduction = 1
    if at_least is not None and kind in ("JPEG", "MPO"):
        side = min(width, height) if keep == "short" else max(width, height)
        wanted = max(1, side // (_DRAFT_MARGIN * at_least))
        draft = opened.draft(None, (max(1, width // wanted), max(1, height // wanted)))
        reduction = round(width / draft[1][2]) if draft else 1
    opened.load()
    turn = _TURN.get(_orientation(opened))
    return Decoded(_to_rgb(opened), kind, mode, width, height, reduction, turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float64) * (255 / 65535)
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UndecodableImage(
            f"pixels of mode {image.mode} (32 bits per channel) have no known range"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return f"truncated ({text})"
    return f"damaged ({text})"
