"""Blocks of other starts of a run, and of other numbers of replicas."""

import shutil

import numpy as np
import pytest

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.paging.blocks import TABLES
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.instances.paging.segments import BlockStore, RunSegment
from tests.instances.test_ring import B, N


def stores(count, rows):
    return [
        BlockStore(SlidingWindow(N, B, 32, 8, 3, replica, count, 8), rows)
        for replica in range(count)
    ]


VALUES = np.random.default_rng(0).normal(size=(N, 2, 3)).astype(np.float32)


def write(blocks, numbers, plus=0):
    """Known rows: their stamp says which instance, of which block, and something more."""
    for number in numbers:
        ids = WindowSchedule(blocks._order, 24).of_block(number)
        blocks.write(
            number,
            {
                "weights": VALUES[ids, 0],
                "momentum": VALUES[ids, 1],
                "stamp": 1000 * number + ids + plus,
            },
        )


def check_read(blocks, number, plus=0):
    ids, found = WindowSchedule(blocks._order, 24).of_block(number), blocks.read(number)
    np.testing.assert_array_equal(found["weights"], VALUES[ids, 0])
    np.testing.assert_array_equal(found["momentum"], VALUES[ids, 1])
    np.testing.assert_array_equal(found["stamp"], 1000 * number + ids + plus)
    assert [found[name].dtype for name in TABLES] == [np.float32, np.float32, np.int64]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 2), (8, 1), (4, 4)])
def test_blocks_of_another_number_of_replicas(tmp_path, before, after):
    """Each replica finds the rows of its own instances in the blocks of others, in its own
    order.
    """
    for blocks in stores(before, tmp_path):
        blocks.begin(0, range(-3, -3), [])
        write(blocks, (-2, 0, 5))
    segments = blocks.segments
    for blocks in stores(after, tmp_path):
        blocks.begin(30, range(-2, 6), segments)
        assert blocks.segments == [RunSegment(-3, 0, before), RunSegment(6, 30, after)]
        assert {number for number, _ in blocks.missing(range(-2, 8))} == {-1, 1, 2, 3, 4, 6, 7}
        for number in (-2, 0, 5):
            check_read(blocks, number)
        assert blocks.rows_there() == 3 * 8 / after
        with pytest.raises(
            ValueError,
            match=rf"^expected a block of rows in '.*from-step-0+/replica-.*-of-0+{before}/",
        ):
            blocks.read(4)
        write(blocks, [6], plus=7)
        check_read(blocks, 6, plus=7)
    for blocks in stores(after, tmp_path):
        blocks.begin(30, range(-2, 6), segments)
        blocks.release(1)
    assert {path.name[-6:] for path in tmp_path.rglob("*.npz")} == {"05.npz", "06.npz"}


def test_blocks_that_were_left_behind_are_not_taken_for_others(tmp_path):
    """Two machines, then one, then two: what one of them wrote after the checkpoint is still
    there, and is not read.
    """
    (first, second), alone = stores(2, tmp_path), stores(1, tmp_path / "copy")[0]
    for blocks in (first, second):
        blocks.begin(0, range(0, 0), [])
        write(blocks, range(8))
    segments = (
        first.segments
    )  # of a checkpoint that needs blocks up to 4; then the machines went down
    shutil.copytree(
        tmp_path / "from-step-000000000000", tmp_path / "copy" / "from-step-000000000000"
    )
    alone.begin(20, range(1, 5), segments)
    alone.forget(5)
    write(alone, range(5, 10), plus=100)
    assert alone.segments == [RunSegment(0, 0, 2), RunSegment(5, 20, 1)]
    again = stores(2, tmp_path)  # with their own folders, as they left them
    for blocks in again:
        blocks.begin(40, range(3, 10), alone.segments)
        assert blocks.segments == [RunSegment(0, 0, 2), RunSegment(5, 20, 1), RunSegment(10, 40, 2)]
        folder = str(tmp_path / "from-step-000000000020" / "replica-00000-of-00001")
        assert blocks.missing(range(3, 10)) == [(number, folder) for number in range(5, 10)]
    shutil.copytree(
        tmp_path / "copy" / "from-step-000000000020", tmp_path / "from-step-000000000020"
    )
    for blocks in again:
        assert blocks.missing(range(3, 10)) == []
        for number in range(3, 10):
            check_read(blocks, number, plus=100 if number >= 5 else 0)
        blocks.forget(10)
        write(blocks, [10], plus=200)
    for blocks in again:
        blocks.release(6)  # what is older than the start before is needed by nobody
        blocks.begin(50, range(6, 11), blocks.segments)
        assert blocks.segments == [
            RunSegment(5, 20, 1),
            RunSegment(10, 40, 2),
            RunSegment(11, 50, 2),
        ]
        check_read(blocks, 10, plus=200)
    left = {int(path.stem.removeprefix("block-")) for path in tmp_path.glob("from-step-*/*/*.npz")}
    assert left == set(range(6, 11))
