"""Draw contact sheets: images in groups, framed by whether their classes agree, with a few words
under each.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
import tensorflow as tf

from pic_tf.data.pipeline import evaluation_batches, find_unreadable
from pic_tf.data.sources.source import Source
from pic_tf.look.figures import DPI, save_figure

SIDE = 112  # pixels of an image in a contact sheet
# pixels
_FRAME = 4
_GAP = 10
_GROUP_GAP = 26
_MARGIN = 16
# heights of a line, of the title above all; from a line's top to its letters' feet
_LINE = 18
_TITLE = 34
_BASE = 14
_MIN_WIDTH = 1000  # pixels, for the title
_SMALL, _LARGE = 7, 10  # sizes of letters in points
_COLOURS = {
    True: (46, 140, 60),
    False: (205, 50, 45),
    None: (190, 190, 190),
}  # of frames: agrees, does not, unknown


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """An image of a contact sheet.

    Attributes:
      image: uint8 [SIDE, SIDE, 3].
      lines: words under it, shortened where there is no room.
      agrees: whether its class is the one it is compared with; None where that is not known.
    """

    image: np.ndarray
    lines: tuple[str, ...]
    agrees: bool | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Cells that belong together, side by side.

    Attributes:
      title: words above them; "" for nothing.
      cells: its images.
    """

    title: str
    cells: tuple[Cell, ...]


def thumbnails(source: Source, instance_ids: np.ndarray) -> dict[int, np.ndarray]:
    """Read images as contact sheets show them: the centred square of the short side.

    Args:
      source: the images.
      instance_ids: integer [n], which; those that come twice are read once.

    Returns:
      uint8 [SIDE, SIDE, 3] by id; black for an image that cannot be decoded.

    Raises:
      ValueError: for an image that cannot be read.
    """
    ids = np.unique(instance_ids)
    try:
        views = list(
            evaluation_batches(source, ids, image_size=SIDE, crop_fraction=1.0)
            .unbatch()
            .as_numpy_iterator()
        )
    except tf.errors.OpError as error:
        raise (find_unreadable(source, ids) or error) from error
    return dict(zip(ids.tolist(), views))


def save_contact_sheet(rows: Sequence[Sequence[Group]], title: str, path: pathlib.Path) -> None:
    """Draw rows of groups, every image pixel by pixel.

    Args:
      rows: from top to bottom.
      title: words above all.
      path: PNG file to write.

    Raises:
      OSError: where it cannot be written.
    """
    import matplotlib.pyplot as plt

    canvas, texts = _compose(rows)
    height, width = canvas.shape[:2]
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.figimage(canvas, resize=False)
    renderer = figure.canvas.get_renderer()

    def fitting(text: str, room: int, **font) -> str:
        """Shorten a text to the room there is: its beginning and its end."""
        text = "".join(c if c.isprintable() else "?" for c in text)
        properties = matplotlib.font_manager.FontProperties(**font)
        for left_out in range(len(text)):
            kept = len(text) - left_out
            short = (
                text
                if not left_out
                else f"{text[: kept - kept // 2]}\u2026{text[len(text) - kept // 2 :]}"
            )
            if renderer.get_text_width_height_descent(short, properties, False)[0] <= room:
                return short
        return ""

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing"
        )  # a name in letters that matplotlib's font lacks
        words = fitting(title, width - 2 * _MARGIN, size=_LARGE)
        # As it is: "$" would begin a formula.
        figure.text(
            _MARGIN / width, 1 - (_MARGIN + _BASE) / height, words, size=_LARGE, parse_math=False
        )
        for x, y, room, text, weight in texts:
            font = {"size": _SMALL, "weight": weight}
            words = fitting(text, room, **font)
            figure.text(
                x / width, 1 - (y + _BASE) / height, words, ha="center", parse_math=False, **font
            )
        save_figure(figure, path)


def _compose(
    rows: Sequence[Sequence[Group]],
) -> tuple[np.ndarray, list[tuple[float, int, int, str, str]]]:
    """Compose the sheet without words, uint8 [H, W, 3], and its words: (centre, top, room in
    pixels, text, weight).
    """
    framed = SIDE + 2 * _FRAME
    pitch = framed + _GAP

    def width_of(groups: Sequence[Group]) -> int:
        return sum(pitch * len(group.cells) - _GAP for group in groups) + _GROUP_GAP * (
            len(groups) - 1
        )

    def height_of(groups: Sequence[Group]) -> int:
        lines = max(len(cell.lines) for group in groups for cell in group.cells)
        return any(group.title for group in groups) * _LINE + framed + lines * _LINE + _GAP

    width = max(*map(width_of, rows), _MIN_WIDTH) + 2 * _MARGIN
    height = sum(map(height_of, rows)) + _TITLE + 2 * _MARGIN
    canvas, texts, top = np.full([height, width, 3], 255, np.uint8), [], _MARGIN + _TITLE
    for groups in rows:
        left, first = _MARGIN, top + any(group.title for group in groups) * _LINE
        for group in groups:
            wide = pitch * len(group.cells) - _GAP
            texts.append((left + wide / 2, top, wide, group.title, "bold"))
            for i, cell in enumerate(group.cells):
                x = left + i * pitch
                canvas[first : first + framed, x : x + framed] = _COLOURS[cell.agrees]
                canvas[first + _FRAME : first + _FRAME + SIDE, x + _FRAME : x + _FRAME + SIDE] = (
                    cell.image
                )
                for number, line in enumerate(cell.lines):
                    texts.append(
                        (x + framed / 2, first + framed + number * _LINE, framed, line, "normal")
                    )
            left += wide + _GROUP_GAP
        top += height_of(groups)
    return canvas, [text for text in texts if text[3]]
