"""Rows on disk are the rows on the device, bit for bit, whatever the window."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.callbacks.paging import PagingCallback
from pic_tf.instances.restore_rows import restore
from pic_tf.instances.rows import norms, snapshot
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
from tests.instances.test_ring import N, check, make, train_both
from tests.processes import with_replicas

SLOW = "K = W", "S = W", "a window just small enough"  # the others hold the same


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in WINDOWS]
)
def test_all_stores_equal_dense_sgd_and_each_other(case, tmp_path):
    window, stride, num_negatives = WINDOWS[case]
    ids = ids_of(window, stride)
    model, dense = make(num_negatives, SCHEDULE)
    encoder = model.backbone.get_weights()
    results, expected = train_both(model, dense, ids, rates())
    check(model, dense, results, expected)
    rows = rows_of(model)
    assert len(set(rows.stamp)) > 3  # rows rest at different steps, or it would show nothing
    other, dense, pager = paged(window, stride, num_negatives, tmp_path)
    pager.open(0)
    other.backbone.set_weights(encoder)
    other_results, _ = train_both(other, dense, ids, rates(), [PagingCallback(pager, 0)])
    np.testing.assert_array_equal(other_results, results)
    assert_same_rows(rows_of(other, pager), rows)
    pager.close()
    folder = tmp_path / "from-step-000000000000" / "replica-00000-of-00001"
    assert len(list(folder.glob("block-*.npz"))) > 3  # something did rest on disk


@pytest.mark.slow
def test_compiled_by_xla_and_several_steps_at_once(tmp_path):
    window, stride, num_negatives = WINDOWS["as usual"]
    ids = ids_of(window, stride)
    results = []
    for together in (1, 3):  # 4 steps a window: an execution may begin in one and end in the next
        model, _, pager = paged(window, stride, num_negatives, tmp_path / str(together))
        pager.open(0)
        model.backbone.set_weights([ENCODER])
        model.compile(model.optimizer, jit_compile=True, steps_per_execution=together)
        x = observations(ids)
        data = tf.data.Dataset.from_tensor_slices((x, ids))
        model.fit(
            data,
            epochs=1,
            steps_per_epoch=len(ids) - 1,
            verbose=0,
            callbacks=[PagingCallback(pager, 0)],
        )
        results.append(rows_of(model, pager))
        pager.close()
    assert_same_rows(*results)


def observations(ids):
    rng = np.random.default_rng(1)
    return (rng.normal(size=(N, 12))[ids] + 0.3 * rng.normal(size=(*ids.shape, 12))).astype(
        np.float32
    )


def in_replicas(strategy, folder):
    """Losses and rows of the device's store, and of the one on disk."""
    window, stride, num_negatives = WINDOWS["as usual"]
    ids, found = ids_of(window, stride, strategy.num_replicas_in_sync), []
    for store in ("device", "disk"):
        pager, callbacks = None, []
        if store == "disk":
            model, dense, pager = paged(window, stride, num_negatives, folder, strategy)
            pager.open(0)
            callbacks = [PagingCallback(pager, 0)]
        else:
            with strategy.scope():
                model, dense = make(num_negatives, SCHEDULE)
        model.backbone.set_weights([ENCODER])
        results, _ = train_both(model, dense, ids, rates(), callbacks, strategy)
        found.append((results, rows_of(model, pager)))
    return found


@pytest.mark.slow
def test_two_replicas(tmp_path):
    (results, rows), (other_results, other_rows) = with_replicas(2, in_replicas, tmp_path)
    np.testing.assert_array_equal(results, other_results)
    assert_same_rows(rows, other_rows)
    for replica in range(2):
        assert len(list(tmp_path.glob(f"*/replica-0000{replica}-of-00002/block-*.npz"))) > 3


def test_rows_go_back_to_their_places_at_any_step(tmp_path):
    """Collected from one store and placed into another, also into one on disk with its blocks as
    they were left.
    """
    window, stride, num_negatives = WINDOWS["as usual"]
    ids = ids_of(window, stride)[:75]
    model, dense, pager = paged(window, stride, num_negatives, tmp_path)
    pager.open(0)
    model.backbone.set_weights([ENCODER])
    train_both(model, dense, ids, rates(), [PagingCallback(pager, 0)])
    whole = rows_of(model, pager)
    part = snapshot(model.classifier, 75, model.distribute_strategy, pager.here())
    assert len(part.instance_ids) == 48 and not np.array_equal(part.weights[0], part.weights[1])
    np.testing.assert_array_equal(part.weights, whole.weights[part.instance_ids])
    known = norms(np.arange(N), model.classifier, model.distribute_strategy)
    assert set(np.flatnonzero(np.isfinite(known))) == set(
        part.instance_ids
    )  # of others nothing is said
    expected = np.linalg.norm(part.weights.astype(np.float64), axis=1)
    np.testing.assert_allclose(known[part.instance_ids], expected, rtol=1e-6)  # float32
    pager.close()

    again, _, its_pager = paged(window, stride, num_negatives, tmp_path / "again")
    its_pager.open(75)
    assert [number for number, _ in its_pager.missing()] == list(its_pager.schedules[0].needed(18))
    its_pager.open(75, *move_to_blocks(its_pager, 75, whole, report=False))
    restore(part, again.classifier, again.distribute_strategy, its_pager.here(), its_pager.stay(75))
    again.lazy_sgd.iterations.assign(75)
    assert_same_rows(rows_of(again, its_pager), whole)
    assert its_pager.missing() == []


def test_a_block_that_cannot_be_written_ends_the_run(tmp_path):
    window, stride, num_negatives = WINDOWS["as usual"]
    _, _, pager = paged(window, stride, num_negatives, tmp_path)
    pager.open(0)
    pager.stores[0].write = lambda *_: (_ for _ in ()).throw(OSError("no room"))
    pager.turn()  # nothing has left yet
    pager.turn()
    with pytest.raises(OSError, match="no room"):
        pager.flush()
