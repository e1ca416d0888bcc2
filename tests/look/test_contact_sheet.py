"""Contact sheets pixel by pixel."""

import numpy as np
from PIL import Image

from pic_tf.data.sources.array import ArraySource
from pic_tf.look import contact_sheet
from pic_tf.look.contact_sheet import SIDE, Cell, Group, save_contact_sheet
from pic_tf.look.neighbour_tables import (
    NeighbourTable,
    draw_neighbours,
    draw_pairs,
    write_neighbours,
)
from tests.look.files import lines_of


def test_a_sheet_shows_images_pixel_by_pixel_in_their_frames(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [5, SIDE, SIDE, 3], np.uint8)
    cells = [Cell(image, ("a$x_$b", "\u732b\n\x1b[31m" + "W" * 40), agrees) for image, agrees in
             zip(images, (None, True, False, None, None))]  # fmt: skip
    rows = [
        [Group("one", (cells[0],)), Group("three", tuple(cells[1:4]))],
        [Group("", (cells[4],))],
    ]
    save_contact_sheet(rows, "$title_$" + "x" * 200, tmp_path / "sheet.png")
    got = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    framed, top = (
        SIDE + 2 * contact_sheet._FRAME,
        contact_sheet._MARGIN + contact_sheet._TITLE + contact_sheet._LINE,
    )
    left = contact_sheet._MARGIN
    second = left + framed + contact_sheet._GROUP_GAP
    pitch = framed + contact_sheet._GAP
    below = top + framed + 2 * contact_sheet._LINE + contact_sheet._GAP
    places = [
        (top, left),
        (top, second),
        (top, second + pitch),
        (top, second + 2 * pitch),
        (below, left),
    ]
    height = below + framed + 2 * contact_sheet._LINE + contact_sheet._GAP + contact_sheet._MARGIN
    assert got.shape == (height, contact_sheet._MIN_WIDTH + 2 * contact_sheet._MARGIN, 3)
    for cell, (y, x) in zip(cells, places):
        whole = got[y : y + framed, x : x + framed]
        np.testing.assert_array_equal(
            whole[
                contact_sheet._FRAME : -contact_sheet._FRAME,
                contact_sheet._FRAME : -contact_sheet._FRAME,
            ],
            cell.image,
        )
        for line in (whole[0], whole[-1], whole[:, 0], whole[:, -1]):
            assert (line == contact_sheet._COLOURS[cell.agrees]).all()
        words = got[y + framed : y + framed + 2 * contact_sheet._LINE, x : x + framed]
        assert words.min() < 100  # something is written there,
        between = got[
            y + framed : y + framed + 2 * contact_sheet._LINE,
            x + framed : x + framed + contact_sheet._GAP,
        ]
        assert (between == 255).all()  # and nothing runs over into the next one's place
    assert all((edge == 255).all() for edge in (got[0], got[-1], got[:, 0], got[:, -1]))


def test_images_of_several_sizes_without_classes(tmp_path):
    """Pairs and neighbours of a source without labels: names alone, grey frames."""
    source = ArraySource(np.random.default_rng(0).integers(0, 256, [9, 5, 7, 3], np.uint8))
    draw_pairs(
        source,
        np.array([[0, 1], [2, 3], [4, 5], [6, 7], [7, 8]]),
        np.ones(5),
        "pairs",
        tmp_path / "a.png",
    )
    neighbours = NeighbourTable(source, np.array([0]), source, np.array([[1, 2]]), np.ones([1, 2]))
    draw_neighbours(neighbours, "neighbours", tmp_path / "b.png")
    write_neighbours(neighbours, tmp_path / "b.csv")
    assert [row["query_class"] for row in lines_of(tmp_path / "b.csv")] == ["", ""]
    for name in ("a.png", "b.png"):
        colours = {
            colour for _, colour in Image.open(tmp_path / name).convert("RGB").getcolors(1 << 20)
        }
        assert (
            contact_sheet._COLOURS[None] in colours and contact_sheet._COLOURS[False] not in colours
        )
