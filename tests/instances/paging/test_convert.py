"""Rows of all instances move into blocks, of another order of visits too; nothing is lost."""

import dataclasses
import shutil

import numpy as np
import pytest

from pic_tf.callbacks.paging import PagingCallback
from pic_tf.data.order import SlidingWindow
from pic_tf.instances.restore_rows import restore
from pic_tf.instances.rows import RowSnapshot
from pic_tf.runs.rows_on_disk import move_to_blocks
from tests.instances.paging.paged import (
    ENCODER,
    SCHEDULE,
    WINDOWS,
    assert_same_rows,
    ids_of,
    paged,
    rates,
    rows_of,
)
from tests.instances.paging.test_segments import write
from tests.instances.test_ring import B, N, make, train_both
from tests.instances.visits import visits


@pytest.fixture(scope="module")
def before():
    """Rows, network and the optimizer's state after 80 steps of another order of visits."""
    window, stride, num_negatives = WINDOWS["as usual"]
    model, dense = make(num_negatives, SCHEDULE)
    model.backbone.set_weights([ENCODER])
    train_both(model, dense, visits(SlidingWindow(N, B, window, stride, seed=9), 80), rates())
    state = [variable.numpy() for variable in model.optimizer.variables]
    return rows_of(model), model.backbone.get_weights(), state


# 20 is as 0 and 6: early, where a window begins.
@pytest.mark.parametrize("step", [0, 6, pytest.param(20, marks=pytest.mark.slow), 80])
def test_rows_of_another_order_of_visits(before, tmp_path, step):
    """Rows in the ring that the new windows do not need rest; none is lost, none that was
    trained begins anew.
    """
    window, stride, num_negatives = WINDOWS["as usual"]
    # As if the step were an early one of the new windows; no update so far depends on its number.
    rows, network, state = before
    after, _, pager = paged(window, stride, num_negatives, tmp_path / "after")
    pager.open(step, *move_to_blocks(pager, step, rows, report=False))
    assert pager.visited_before == (step < 80) and len(pager.here()[0]) == 48
    restore(rows, after.classifier, after.distribute_strategy, pager.here(), pager.stay(step))
    after.lazy_sgd.iterations.assign(80)
    found = rows_of(after, pager)
    for name in ("weights", "momentum", "stamp"):
        np.testing.assert_array_equal(getattr(found, name), getattr(rows, name), err_msg=name)
    recent = set(rows.ring) & set(pager.here()[0])
    assert -1 in found.ring and set(found.ring) - {-1} <= recent
    assert (set(found.ring) - {-1} == recent) == (
        step % 4 == 0
    )  # else one leaves the device sooner than the ring

    # On the device from the same ring: the same rows, also when those that rested come back.
    beside, dense = make(num_negatives, SCHEDULE)
    restore(
        dataclasses.replace(rows, ring=found.ring, head=found.head),
        beside.classifier,
        beside.distribute_strategy,
    )
    ids = ids_of(window, stride)[step : step + 60]
    for each, callbacks in ((beside, []), (after, [PagingCallback(pager, step)])):
        each.build_optimizers()
        each.backbone.set_weights(network)
        for variable, value in zip(each.optimizer.variables, state):
            variable.assign(value)
        train_both(each, dense, ids, rates()[80:], callbacks)
    assert_same_rows(rows_of(after, pager), rows_of(beside))
    assert bool(list(tmp_path.rglob("block--*.npz"))) == (step < 80)
    pager.close()


def test_no_room_for_the_rows_of_another_order(tmp_path, monkeypatch):
    rows = RowSnapshot(
        *np.zeros([2, N, 16], np.float32), np.ones(N, np.int64), np.zeros(24, np.int64), 0
    )
    _, _, pager = paged(32, 8, 24, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(6000, 0, 6000))
    with pytest.raises(
        ValueError, match=r"^expected 6.53 KB free in .* for the rows .*, got 6 KB: make room"
    ):
        move_to_blocks(
            pager, 0, rows
        )  # 6 blocks of 8 rows of 136 bytes: all but the 48 on the device
    assert not list(tmp_path.rglob("*.npz"))
    pager.close()


def test_untouched_rows_that_come_later_take_no_space(tmp_path):
    """Of the same order, early: nothing is written but what has left."""
    window, stride, num_negatives = WINDOWS["as usual"]
    model, dense = make(num_negatives, SCHEDULE)
    train_both(model, dense, ids_of(window, stride)[:20], rates())
    _, _, pager = paged(window, stride, num_negatives, tmp_path)
    pager.open(20, *move_to_blocks(pager, 20, rows_of(model)))
    assert not pager.visited_before and pager.missing() == []
    assert sorted(path.name[-6:] for path in tmp_path.rglob("*.npz")) == [
        "00.npz",
        "01.npz",
        "02.npz",
        "03.npz",
    ]
    pager.close()


def test_a_try_that_was_cut_off_leaves_nothing_to_the_next(tmp_path):
    """From the same step in another order of visits: the blocks of the first try hold other
    instances.
    """
    window, stride, num_negatives = WINDOWS["as usual"]
    rows = RowSnapshot(
        *np.zeros([2, N, 16], np.float32), np.arange(1, N + 1), np.zeros(24, np.int64), 0
    )
    for seed in (3, 4):
        _, _, pager = paged(window, stride, num_negatives, tmp_path, seed=seed)
        if seed == 3:
            pager.open(40, *move_to_blocks(pager, 40, rows))
            write(pager.stores[0], range(9, 12))
        else:
            pager.open(0, *move_to_blocks(pager, 0, rows))
            pager.open(40, *move_to_blocks(pager, 40, rows))
        assert pager.missing() == []
        for number in pager.schedules[0].needed(10):
            ids = pager.schedules[0].of_block(number)
            np.testing.assert_array_equal(pager.stores[0].read(number)["stamp"], ids + 1)
        pager.close()
    there = {path.name for path in (tmp_path / "from-step-000000000040").rglob("*.npz")}
    assert there == {f"block-{number:012d}.npz" for number in pager.schedules[0].needed(10)}
