"""Contact sheets: the offenders of a check as a grid of pictures with ids and reasons."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from components.atomic import atomic_path
from components.dataset.decode import UndecodableImage, decode_rgb
from components.dataset.originals import Original, list_originals
from components.validation.checks import Outcome

_COLUMNS = 6
_MAX_TILES = 24
_SIDE = 200
_CAPTION = 62
_GAP = 8
_HEADER = 34
_WRAP = 34
_BEHIND = (240, 240, 240)


def sheet_name(check: str) -> str:
    """Return the file name of a check's sheet."""
    return check.replace(".", "-").replace("_", "-") + ".png"


def write_sheets(outcomes: list[Outcome], images: Path, folder: Path) -> list[str]:
    """Write a sheet for every check that pictures broke.

    Parameters
    ----------
    outcomes
        What the checks found.
    images
        Folder of the original files' archives.
    folder
        Where the sheets go.

    Returns
    -------
    list of str
        Names of the checks that have a sheet.
    """
    shown = [outcome for outcome in outcomes if outcome.check.pictures and outcome.reasons]
    files = list_originals(images) if shown else {}
    for outcome in shown:
        sheet = _sheet(outcome, files)
        with atomic_path(folder / sheet_name(outcome.check.name)) as path:
            sheet.save(path, format="PNG", optimize=False)
    return [outcome.check.name for outcome in shown]


def _sheet(outcome: Outcome, files: Mapping[str, Original]) -> Image.Image:
    shown = list(outcome.reasons.items())[:_MAX_TILES]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width = max(columns * (_SIDE + _GAP) + _GAP, 3 * (_SIDE + _GAP))
    sheet = Image.new("RGB", (width, _HEADER + rows * (_SIDE + _CAPTION + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    total = len(outcome.reasons)
    which = f"{total}" if total <= _MAX_TILES else f"first {_MAX_TILES} of {total}"
    title = f"{outcome.check.name} ({outcome.check.severity}), images: {which}"
    draw.text((_GAP, _GAP), title, fill="black", font=ImageFont.load_default(15))
    font = ImageFont.load_default(11)
    for number, (image_id, reason) in enumerate(shown):
        left = _GAP + number % columns * (_SIDE + _GAP)
        top = _HEADER + number // columns * (_SIDE + _CAPTION + _GAP)
        picture = _thumbnail(files.get(image_id))
        draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), fill=_BEHIND)
        middle = ((_SIDE - picture.width) // 2, (_SIDE - picture.height) // 2)
        sheet.paste(picture, (left + middle[0], top + middle[1]))
        lines = [image_id[-_WRAP:], *textwrap.wrap(reason, _WRAP, max_lines=3, placeholder=" …")]
        draw.multiline_text((left, top + _SIDE + 2), "\n".join(lines), fill="black", font=font)
    return sheet


def _thumbnail(file: Original | None) -> Image.Image:
    """Return the picture at tile size, or a grey tile that says why there is none."""
    try:
        if file is None:
            raise UndecodableImage("no file")
        picture = decode_rgb(file.read(), keep="long", at_least=_SIDE).image
    except UndecodableImage as error:
        tile = Image.new("RGB", (_SIDE, _SIDE), _BEHIND)
        text = "\n".join(textwrap.wrap(error.reason, 26, max_lines=6, placeholder=" …"))
        font = ImageFont.load_default(13)
        ImageDraw.Draw(tile).multiline_text((14, 60), text, fill="black", font=font)
        return tile
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR)
