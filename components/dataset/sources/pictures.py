"""Pictures that look like dermoscopy and show nobody: drawn from random numbers alone.

A lesion is drawn once as a *scene* (skin, lesion, hairs) that is larger than a picture; a *view*
is a photograph of it: shifted, turned, zoomed, in other light. Each diagnosis has a look (colour,
border, structures); a lesion's look is blended with another diagnosis' one, so that the classes
can be told apart, but not always.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.float32]
"""Height × width × 3 (RGB, 0 to 1) or height × width (0 to 1)."""

_MARGIN = 1.5
"""Side of a scene over side of a picture: what a turned and shifted view may need."""
_ANGLES = 1024
"""Directions in which a border is drawn."""
_MARK_STRENGTH = 0.07
"""Brightness that the word SYNTHETIC adds."""


@dataclass(frozen=True)
class Look:
    """How a lesion looks; colours are RGB from 0 to 1, the rest are strengths or shares."""

    colour: tuple[float, float, float]
    second_colour: tuple[float, float, float]
    variegation: float
    """Share of the second colour."""
    opacity: float
    radius: float
    """Of the picture's side."""
    irregular: float
    """How far the border strays from an ellipse."""
    soft: float
    """Width of the border, over the radius."""
    network: float
    clods: float
    """Round lagoons (vascular lesions), or nests."""
    dark_dots: float
    white_dots: float
    vessels: float
    scale: float
    """White scales on the surface."""
    scar: float
    """White patch in the middle."""


LOOKS = {
    "akiec": Look((0.80, 0.46, 0.40), (0.72, 0.36, 0.33), 0.4, 0.60, 0.27, 0.22, 0.45,
                  0.0, 0.0, 0.15, 0.1, 0.25, 0.9, 0.0),
    "bcc": Look((0.83, 0.60, 0.62), (0.47, 0.47, 0.58), 0.25, 0.60, 0.24, 0.15, 0.25,
                0.0, 0.35, 0.1, 0.1, 1.0, 0.1, 0.0),
    "bkl": Look((0.66, 0.50, 0.28), (0.52, 0.38, 0.22), 0.5, 0.80, 0.28, 0.12, 0.07,
                0.1, 0.0, 0.6, 1.0, 0.0, 0.2, 0.0),
    "df": Look((0.72, 0.52, 0.42), (0.66, 0.45, 0.36), 0.3, 0.65, 0.22, 0.06, 0.40,
               0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "mel": Look((0.32, 0.20, 0.15), (0.30, 0.30, 0.38), 0.42, 0.88, 0.30, 0.34, 0.14,
                0.4, 0.1, 0.9, 0.0, 0.05, 0.0, 0.1),
    "nv": Look((0.48, 0.31, 0.21), (0.38, 0.24, 0.17), 0.4, 0.80, 0.21, 0.08, 0.25,
               0.9, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0),
    "vasc": Look((0.66, 0.13, 0.20), (0.42, 0.10, 0.28), 0.5, 0.85, 0.20, 0.10, 0.12,
                 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
}  # fmt: skip


def blend(look: Look, other: Look, share: float) -> Look:
    """Return `look` with `share` (0 to 1) of `other` in every attribute."""

    def mix(mine: float, theirs: float) -> float:
        return (1 - share) * mine + share * theirs

    values: dict[str, object] = {}
    for field in fields(Look):
        mine, theirs = getattr(look, field.name), getattr(other, field.name)
        values[field.name] = (
            tuple(map(mix, mine, theirs)) if isinstance(mine, tuple) else mix(mine, theirs)
        )
    return Look(**values)  # type: ignore[arg-type]


def draw_scene(look: Look, image_size: int, rng: np.random.Generator) -> Pixels:
    """Draw a lesion on skin.

    Parameters
    ----------
    look
        What the lesion looks like.
    image_size
        Side of the pictures that will be taken of it, in pixels.
    rng
        Everything random comes from here.

    Returns
    -------
    float32 array [S, S, 3]
        With S = 1.5 × `image_size`.
    """
    side = round(image_size * _MARGIN)
    skin = _skin(side, rng)
    shape, rim = _shape(look, side, image_size, rng)
    lesion = _surface(look, shape, side, rng)
    alpha = (shape * look.opacity)[..., None]
    scene = skin * (1 - alpha) + lesion * alpha
    _structures(scene, look, shape, rim, image_size, rng)
    _hairs(scene, image_size, rng)
    return np.clip(scene, 0, 1, out=scene)


def take_view(scene: Pixels, image_size: int, rng: np.random.Generator) -> bytes:
    """Photograph a scene: another place, angle, zoom and light each time.

    Returns
    -------
    bytes
        A JPEG of `image_size` × `image_size` pixels, marked as synthetic in its comment and by a
        faint word in a corner.
    """
    side = scene.shape[0]
    zoom = rng.uniform(0.85, 1.2)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 360), zoom)
    shift = rng.uniform(-0.06, 0.06, 2) * image_size
    turn[:, 2] += shift + (image_size - side) / 2
    view = cv2.warpAffine(
        scene, turn, (image_size, image_size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    light = rng.uniform(0.88, 1.1) * rng.uniform(0.96, 1.04, 3)
    view = view * light.astype(np.float32) * _lens(image_size, rng)[..., None]
    view += rng.normal(0, 0.012, view.shape).astype(np.float32)
    view += _mark(image_size)
    picture = Image.fromarray((np.clip(view, 0, 1) * 255).astype(np.uint8))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88, comment=b"SYNTHETIC: drawn by Lesionflow, no patient")
    return out.getvalue()


def _noise(side: int, cell: float, rng: np.random.Generator) -> Pixels:
    """Smooth noise with features of about `cell` pixels; mean 0, mostly within -1 to 1."""
    cells = max(2, round(side / cell) + 1)
    coarse = rng.normal(0, 0.5, (cells, cells)).astype(np.float32)
    return _float32(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))


def _float32(array: npt.ArrayLike) -> Pixels:
    return np.asarray(array, np.float32)


def _skin(side: int, rng: np.random.Generator) -> Pixels:
    tone = np.array([0.87, 0.68, 0.60]) * rng.uniform(0.8, 1.06) + rng.normal(0, 0.02, 3)
    relief = 0.05 * _noise(side, side / 4, rng) + 0.03 * _noise(side, 5, rng)
    relief -= 0.10 * _wrinkles(side, side / 18, rng)
    return _float32(tone * (1 + relief[..., None]))


def _wrinkles(side: int, cell: float, rng: np.random.Generator) -> Pixels:
    """Lines that no other scene has, 0 to 1: where turned smooth noise crosses zero."""
    angle = rng.uniform(0, 90)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.45)
    noise = cv2.warpAffine(_noise(side, cell / 1.45, rng), turn, (side, side))
    return np.clip(1 - np.abs(_float32(noise)) / 0.12, 0, 1)


def _shape(
    look: Look, side: int, image_size: int, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Return each pixel's share of lesion (0 to 1), and its distance from the centre in radii."""
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    radius = look.radius * image_size * rng.uniform(0.8, 1.2)
    x, y = (columns - side / 2) / radius, (rows - side / 2) / radius
    angle = rng.uniform(0, np.pi)
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    x = x / rng.uniform(0.75, 1.0)
    theta = np.linspace(-np.pi, np.pi, _ANGLES)
    border = np.ones_like(theta)
    for wave in range(2, 9):
        strength = look.irregular * rng.normal(0, 0.5) / wave**0.7
        border += strength * np.cos(wave * theta + rng.uniform(0, 2 * np.pi))
    place = ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * (_ANGLES - 1)).astype(np.int32)
    reach = _float32(border)[place] + look.irregular * 0.3 * _noise(side, radius / 3, rng)
    rim = _float32(np.hypot(x, y) / np.maximum(reach, 0.35))
    width = max(look.soft, 0.05)
    return _float32(np.clip((1 - rim) / width + 0.5, 0, 1)), rim


def _surface(look: Look, shape: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    patches = _noise(side, side / 7, rng) + 2 * look.variegation - 1
    share = (1 / (1 + np.exp(-6 * patches)))[..., None].astype(np.float32)
    jitter = rng.normal(0, 0.035, 3)
    first = np.asarray(np.array(look.colour) + jitter, np.float32)
    second = np.asarray(np.array(look.second_colour) + jitter, np.float32)
    grain = 1 + 0.06 * _noise(side, 4, rng)[..., None]
    deepen = 1.06 - 0.12 * shape[..., None]
    return _float32((first * (1 - share) + second * share) * grain * deepen)


def _structures(
    scene: Pixels,
    look: Look,
    shape: Pixels,
    rim: Pixels,
    image_size: int,
    rng: np.random.Generator,
) -> None:
    """Draw network, clods, dots, vessels, scales and scar into `scene`, where the lesion is."""
    side = scene.shape[0]
    unit = image_size / 160
    if look.network > 0.05:
        lines = _wrinkles(side, 7 * unit, rng) * shape * np.clip(rim, 0.3, 1)
        scene *= (1 - 0.42 * look.network * lines)[..., None]
    _spots(scene, shape, int(look.clods * 26), 4.5 * unit, np.array(look.second_colour) * 0.8, rng)
    _spots(scene, shape, int(look.dark_dots * 22), 1.6 * unit, np.array([0.16, 0.10, 0.09]), rng)
    _spots(scene, shape, int(look.white_dots * 16), 1.9 * unit, np.array([0.93, 0.88, 0.76]), rng)
    if look.vessels > 0.05:
        _vessels(scene, shape, int(look.vessels * 9), unit, rng)
    if look.scale > 0.05:
        flakes = np.clip(4 * (_noise(side, 6 * unit, rng) - 0.3), 0, 1) * shape * look.scale
        scene += flakes[..., None] * 0.75 * (np.float32(0.95) - scene)
    if look.scar > 0.05:
        patch = np.clip(1.6 - 3.2 * rim + 0.3 * _noise(side, 9 * unit, rng), 0, 1) * look.scar
        scene += patch[..., None] * 0.8 * (np.array([0.95, 0.90, 0.87], np.float32) - scene)


def _spots(
    scene: Pixels,
    shape: Pixels,
    count: int,
    radius: float,
    colour: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    inside = np.argwhere(shape > 0.7)
    if count < 1 or not len(inside):
        return
    mask = np.zeros(shape.shape, np.float32)
    for row, column in inside[rng.integers(0, len(inside), count)]:
        # No two spots alike: equal ones would look like one spot photographed twice.
        axes = np.maximum(1, radius * rng.uniform(0.5, 1.6, 2)).round().astype(int)
        place, angle = (int(column), int(row)), rng.uniform(0, 180)
        strength = rng.uniform(0.4, 1.0)
        cv2.ellipse(mask, place, axes.tolist(), angle, 0, 360, strength, -1, cv2.LINE_AA)
    mask *= 1 + 0.5 * _noise(len(mask), max(2, radius / 2), rng)
    mask = np.clip(cv2.GaussianBlur(mask, (3, 3), 0), 0, 1)[..., None] * shape[..., None]
    scene += mask * (np.asarray(colour, np.float32) - scene)


def _vessels(
    scene: Pixels, shape: Pixels, count: int, unit: float, rng: np.random.Generator
) -> None:
    """Branching red lines that wander through the lesion."""
    inside = np.argwhere(shape > 0.5)
    if not len(inside):
        return
    mask = np.zeros(shape.shape, np.float32)
    for row, column in inside[rng.integers(0, len(inside), max(count, 1))]:
        angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.45, 14))
        steps = np.stack([np.cos(angles), np.sin(angles)], 1) * 3 * unit
        line = (np.array([column, row]) + np.cumsum(steps, 0)).astype(np.int32)
        cv2.polylines(mask, [line], False, 1.0, max(1, round(1.2 * unit)), cv2.LINE_AA)
    mask = cv2.GaussianBlur(mask, (3, 3), 0)[..., None] * shape[..., None]
    scene += 0.85 * mask * (np.array([0.66, 0.12, 0.16], np.float32) - scene)


def _hairs(scene: Pixels, image_size: int, rng: np.random.Generator) -> None:
    side = scene.shape[0]
    mask = np.zeros((side, side), np.float32)
    for _ in range(int(rng.choice([0, 0, 0, 2, 5, 9]))):
        start, angle = rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi)
        bend = np.linspace(0, rng.normal(0, 0.5), 20)
        steps = np.stack([np.cos(angle + bend), np.sin(angle + bend)], 1) * image_size / 24
        line = (start + np.cumsum(steps, 0)).astype(np.int32)
        cv2.polylines(mask, [line], False, 1.0, max(1, round(image_size / 160)), cv2.LINE_AA)
    scene *= 1 - 0.75 * mask[..., None]


def _lens(image_size: int, rng: np.random.Generator) -> Pixels:
    """Uneven light, darker towards the corners; some pictures show the edge of the lens."""
    rows, columns = np.mgrid[-1 : 1 : image_size * 1j, -1 : 1 : image_size * 1j].astype(np.float32)
    tilt = rng.uniform(-0.05, 0.05, 2)
    distance = np.hypot(rows, columns)
    light = 1 + tilt[0] * rows + tilt[1] * columns - rng.uniform(0.02, 0.12) * distance**2
    if rng.uniform() < 0.2:
        light *= np.clip((rng.uniform(1.12, 1.3) - distance) / 0.05, 0.03, 1)
    return _float32(light)


@lru_cache(maxsize=4)
def _mark(side: int) -> Pixels:
    """Return the word SYNTHETIC in a corner, too faint for keypoints that could tie two lesions."""
    ink = Image.new("L", (side, side), 0)
    font = ImageFont.load_default(size=max(6, side // 18))
    ImageDraw.Draw(ink).text((side // 40, side - side // 12), "SYNTHETIC", fill=255, font=font)
    return np.asarray(ink, np.float32)[..., None] * (_MARK_STRENGTH / 255)
