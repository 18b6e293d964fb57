"""Contact sheets: media side by side with captions, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gas.media.image import RGB

__all__ = ["Panel", "contact_sheet", "film_strip", "fit_into", "overlay"]

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PAPER, _INK = (255, 255, 255), (24, 24, 28)
_MASK_COLOUR: Final = np.array([230, 30, 60], np.float32)
_FONT, _LINE, _GAP = 14, 18, 14


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a sheet.

    Attributes:
        picture: uint8, (h, w, 3).
        caption: Shown below it, wrapped to its width.
    """

    picture: RGB
    caption: str


def overlay(rgb: RGB, mask: NDArray[np.uint8]) -> RGB:
    """The picture with its masked pixels tinted red, and a line around them.

    Args:
        rgb: uint8, (h, w, 3).
        mask: uint8, (h, w); any value but 0 is masked.

    Raises:
        ValueError: The sizes differ.
    """
    if mask.shape != rgb.shape[:2]:
        raise ValueError("The mask has another size than the picture.")
    inside = (mask > 0).astype(np.uint8)
    out = rgb.astype(np.float32)
    out[inside > 0] = out[inside > 0] * 0.6 + _MASK_COLOUR * 0.4
    thickness = max(1, round(min(mask.shape) / 200))
    rim = cv2.dilate(inside, np.ones((1 + 2 * thickness, 1 + 2 * thickness), np.uint8)) > inside
    out[rim] = _MASK_COLOUR
    return np.asarray(np.rint(out), dtype=np.uint8)


def fit_into(rgb: RGB, width: int, height: int) -> RGB:
    """The picture, shrunk where it must be so that it fits, never enlarged; its proportions stay."""
    factor = min(width / rgb.shape[1], height / rgb.shape[0], 1.0)
    if factor == 1:
        return rgb
    size = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def film_strip(frames: Sequence[RGB], count: int, height: int) -> RGB:
    """Frames of a clip, evenly spread, in one row.

    Args:
        frames: At least one.
        count: How many at most.
        height: Of the strip, pixels.

    Returns:
        uint8, (height, w, 3).
    """
    picked = sorted({round(index) for index in np.linspace(0, len(frames) - 1, min(count, len(frames)))})
    row = []
    for index in picked:
        frame = frames[index]
        size = max(1, round(frame.shape[1] * height / frame.shape[0])), height
        how = cv2.INTER_AREA if height < frame.shape[0] else cv2.INTER_LINEAR
        row.append(np.asarray(cv2.resize(frame, size, interpolation=how), dtype=np.uint8))
        row.append(np.full((height, 3, 3), 255, np.uint8))
    return np.concatenate(row[:-1], axis=1)


def contact_sheet(panels: Sequence[Panel], columns: int, title: str = "") -> RGB:
    """Panels in rows, each with its caption below; every column as wide as its widest picture.

    Args:
        panels: At least one; pictures are shown as large as they are.
        columns: At most so many side by side.
        title: One line above.

    Returns:
        uint8, (h, w, 3), on white.

    Raises:
        ValueError: No panel, or no column.
    """
    if not panels or columns < 1:
        raise ValueError("A sheet needs a panel and a column.")
    font, heading = ImageFont.load_default(_FONT), ImageFont.load_default(_FONT + 4)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    widths = [max(row[at].picture.shape[1] for row in rows if at < len(row)) for at in range(len(rows[0]))]
    texts = [[_wrap(panel.caption, font, widths[at]) for at, panel in enumerate(row)] for row in rows]
    heights = [
        max(panel.picture.shape[0] + 4 + _LINE * len(text) for panel, text in zip(row, lines, strict=True))
        for row, lines in zip(rows, texts, strict=True)
    ]
    above = _wrap(title, heading, sum(widths) + _GAP * (len(widths) - 1)) if title else []
    top = _GAP + len(above) * (_LINE + 6)
    sheet = Image.new("RGB", (sum(widths) + _GAP * (len(widths) + 1), top + sum(heights) + _GAP * len(rows)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(above):
        draw.text((_GAP, _GAP // 2 + number * (_LINE + 6)), line, fill=_INK, font=heading)
    for row, lines, height in zip(rows, texts, heights, strict=True):
        left = _GAP
        for at, (panel, text) in enumerate(zip(row, lines, strict=True)):
            sheet.paste(Image.fromarray(panel.picture), (left, top))
            for number, line in enumerate(text):
                y = top + panel.picture.shape[0] + 4 + number * _LINE
                draw.text((left, y), line, fill=_INK, font=font)
            left += widths[at] + _GAP
        top += height + _GAP
    return np.asarray(sheet, dtype=np.uint8)


def _wrap(text: str, font: _Font, width: int) -> list[str]:
    """Lines no wider than ``width`` pixels; a word that is wider is broken."""
    lines, line = [], ""
    for word in text.split():
        while True:
            longer = f"{line} {word}".strip()
            if font.getlength(longer) <= width:
                line = longer
                break
            if line:
                lines.append(line)
                line = ""
                continue
            cut = 1
            while cut < len(word) and font.getlength(word[: cut + 1]) <= width:
                cut += 1
            lines.append(word[:cut])
            word = word[cut:]
            if not word:
                break
    return [*lines, line] if line else lines
