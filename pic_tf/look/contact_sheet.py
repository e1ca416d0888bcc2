"""Draw contact sheets: images in groups, framed by agreement of classes, with words under each."""

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np

from pic_tf.data.pipeline import evaluation_batches, naming_unreadable
from pic_tf.data.sources.source import Source
from pic_tf.look.as_rgb import as_rgb
from pic_tf.look.figures import DPI, save_figure

SIDE = 112  # pixels of an image in a contact sheet
_FRAME, _MARGIN = 4, 16  # pixels
_GAP, _GROUP_GAP = 10, 26  # pixels between cells, between groups
_LINE, _TITLE = 18, 34  # pixels, heights of a line, of the title above all
_BASE = 14  # pixels from a line's top to its letters' feet
_MIN_WIDTH = 1000  # pixels, for the title
_SMALL, _LARGE = 7, 10  # sizes of letters in points
# Frames of images whose class agrees, does not, is unknown.
_COLOURS = {True: (46, 140, 60), False: (205, 50, 45), None: (190, 190, 190)}


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
      instance_ids: integer [n]; ids that come twice are read once.

    Returns:
      uint8 [SIDE, SIDE, 3] by id; black for an image that cannot be decoded.

    Raises:
      ValueError: for an image that cannot be read.
    """
    ids = np.unique(instance_ids)
    batches = evaluation_batches(source, ids, image_size=SIDE, crop_fraction=1.0)
    with naming_unreadable(source, ids):
        views = list(batches.unbatch().as_numpy_iterator())
    return dict(zip(ids.tolist(), map(as_rgb, views)))


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
            half = (len(text) - left_out) // 2
            head, tail = text[: len(text) - left_out - half], text[len(text) - half :]
            short = f"{head}\u2026{tail}" if left_out else text
            if renderer.get_text_width_height_descent(short, properties, False)[0] <= room:
                return short
        return ""

    def place(x: float, top: float, words: str, **style) -> None:
        # Without formulas, which "$" would begin.
        figure.text(x / width, 1 - (top + _BASE) / height, words, parse_math=False, **style)

    with warnings.catch_warnings():
        # A name may be in letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        words = fitting(title, width - 2 * _MARGIN, size=_LARGE)
        place(_MARGIN, _MARGIN, words, size=_LARGE)
        for x, top, room, text, weight in texts:
            font = {"size": _SMALL, "weight": weight}
            place(x, top, fitting(text, room, **font), ha="center", **font)
        save_figure(figure, path)


def _compose(
    rows: Sequence[Sequence[Group]],
) -> tuple[np.ndarray, list[tuple[float, int, int, str, str]]]:
    """Compose the sheet without words, uint8 [H, W, 3], and its words.

    Each of the words: (centre, top, room in pixels, text, weight).
    """
    framed = SIDE + 2 * _FRAME
    pitch = framed + _GAP

    def width_of(groups: Sequence[Group]) -> int:
        gaps = _GROUP_GAP * (len(groups) - 1)
        return sum(pitch * len(group.cells) - _GAP for group in groups) + gaps

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
                frame = canvas[first : first + framed, x : x + framed]
                frame[:] = _COLOURS[cell.agrees]
                frame[_FRAME : _FRAME + SIDE, _FRAME : _FRAME + SIDE] = cell.image
                for number, line in enumerate(cell.lines):
                    below = first + framed + number * _LINE
                    texts.append((x + framed / 2, below, framed, line, "normal"))
            left += wide + _GROUP_GAP
        top += height_of(groups)
    return canvas, [text for text in texts if text[3]]
