"""Rows in host memory and on disk are the rows on the device, bit for bit, whatever the window."""

import dataclasses
import errno
import shutil

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.paging.blocks import TABLES, Blocks
from pic_tf.instances.paging.pager import Pager, read_block
from pic_tf.instances.paging.schedule import Pages
from pic_tf.instances.paging.segments import Lineage, Writer
from pic_tf.instances.rows import Rows, collect, norms, place
from pic_tf.optim.schedules import WarmupCosine
from tests.instances.test_ring import B, N, check, make, train_both
from tests.processes import with_replicas

STEPS = 160
SCHEDULE = WarmupCosine(0.3, STEPS, 16)
ENCODER = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32) / 4
# Window, stride, K of N = 96 instances: 20 windows and more, so that every one of these wraps around.
WINDOWS = {
    "as usual": (32, 8, 24),
    "K = W": (32, 8, 32),
    "K > W": (16, 8, 40),
    "S = W": (16, 16, 8),
    "N is no multiple of S": (32, 7, 24),
    "a window just small enough": (48, 16, 24),
}


def orders(window, stride, count=1, seed=3):
    return [SlidingWindow(N, B, window, stride, seed, replica, count) for replica in range(count)]


def paged(window, stride, num_negatives, folder, strategy=None, seed=3):
    """A model, the dense reference, and the pager of the model; in host memory where there is no folder."""
    strategy = strategy or tf.distribute.get_strategy()
    count = strategy.num_replicas_in_sync
    pages = [Pages(order, num_negatives) for order in orders(window, stride, count, seed)]
    with strategy.scope():
        model, dense = make(num_negatives, SCHEDULE, rows_on_device=pages[0].places)
    blocks = [Lineage(order, folder) for order in orders(window, stride, count, seed)]
    pager = Pager(model.classifier, pages, blocks, strategy, in_memory=folder is None)
    pager.open(0)
    return model, dense, pager


def ids_of(window, stride, count=1):
    """ids [T, B], those of replica 0 first."""
    of_replicas = orders(window, stride, count)
    return np.stack([np.concatenate([order.instance_ids(t).numpy() for order in of_replicas]) for t in range(STEPS)])


def rates():
    return [float(SCHEDULE(t)) for t in range(STEPS)]


def rows_of(model, pager=None):
    here = pager.here() if pager else None
    if pager:
        pager.flush()
    rows = collect(model.classifier, int(model.lazy_sgd.iterations.numpy()), model.distribute_strategy, here)
    return pager.with_blocks(rows) if pager else rows


def assert_same_rows(one, other):
    for name in ("weights", "momentum", "stamp", "ring", "head"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("case", WINDOWS)
def test_all_stores_equal_dense_sgd_and_each_other(case, tmp_path):
    window, stride, num_negatives = WINDOWS[case]
    ids = ids_of(window, stride)
    model, dense = make(num_negatives, SCHEDULE)
    encoder = model.backbone.get_weights()
    results, expected = train_both(model, dense, ids, rates())
    check(model, dense, results, expected)
    rows = rows_of(model)
    assert len(set(rows.stamp)) > 3  # rows rest at different steps, or it would show nothing
    for folder in (None, tmp_path) if case == "as usual" else (tmp_path,):
        other, dense, pager = paged(window, stride, num_negatives, folder)
        other.backbone.set_weights(encoder)
        other_results, _ = train_both(other, dense, ids, rates(), [pager])
        np.testing.assert_array_equal(other_results, results)
        assert_same_rows(rows_of(other, pager), rows)
        pager.close()
    folder = tmp_path / "from-step-000000000000" / "replica-00000-of-00001"
    assert len(list(folder.glob("block-*.npz"))) > 3  # something did rest on disk


def test_compiled_by_xla_and_several_steps_at_once(tmp_path):
    window, stride, num_negatives = WINDOWS["as usual"]
    ids = ids_of(window, stride)
    results = []
    for together in (1, 3):  # 4 steps a window: an execution may begin in one and end in the next
        model, _, pager = paged(window, stride, num_negatives, tmp_path / str(together))
        model.backbone.set_weights([ENCODER])
        model.compile(model.optimizer, jit_compile=True, steps_per_execution=together)
        x = observations(ids)
        data = tf.data.Dataset.from_tensor_slices((x, ids))
        model.fit(data, epochs=1, steps_per_epoch=len(ids) - 1, verbose=0, callbacks=[pager])
        results.append(rows_of(model, pager))
        pager.close()
    assert_same_rows(*results)


def observations(ids):
    rng = np.random.default_rng(1)
    return (rng.normal(size=(N, 12))[ids] + 0.3 * rng.normal(size=(*ids.shape, 12))).astype(np.float32)


def in_replicas(strategy, folder):
    """Losses and rows of the device's store, and of the one on disk."""
    window, stride, num_negatives = WINDOWS["as usual"]
    ids, found = ids_of(window, stride, strategy.num_replicas_in_sync), []
    for store in ("device", "disk"):
        pager = None
        if store == "disk":
            model, dense, pager = paged(window, stride, num_negatives, folder, strategy)
        else:
            with strategy.scope():
                model, dense = make(num_negatives, SCHEDULE)
        model.backbone.set_weights([ENCODER])
        results, _ = train_both(model, dense, ids, rates(), [pager] if pager else [], strategy)
        found.append((results, rows_of(model, pager)))
    return found


def test_two_replicas(tmp_path):
    (results, rows), (other_results, other_rows) = with_replicas(2, in_replicas, tmp_path)
    np.testing.assert_array_equal(results, other_results)
    assert_same_rows(rows, other_rows)
    for replica in range(2):
        assert len(list(tmp_path.glob(f"*/replica-0000{replica}-of-00002/block-*.npz"))) > 3


def test_rows_go_back_to_their_places_at_any_step(tmp_path):
    """Collected from one store and placed into another, also into one on disk with its blocks as they were left."""
    window, stride, num_negatives = WINDOWS["as usual"]
    ids = ids_of(window, stride)[:75]
    model, dense, pager = paged(window, stride, num_negatives, tmp_path)
    model.backbone.set_weights([ENCODER])
    train_both(model, dense, ids, rates(), [pager])
    whole = rows_of(model, pager)
    part = collect(model.classifier, 75, model.distribute_strategy, pager.here())
    assert len(part.instance_ids) == 48 and not np.array_equal(part.weights[0], part.weights[1])
    np.testing.assert_array_equal(part.weights, whole.weights[part.instance_ids])
    known = norms(np.arange(N), model.classifier, model.distribute_strategy)
    assert set(np.flatnonzero(np.isfinite(known))) == set(part.instance_ids)  # of others nothing is said
    expected = np.linalg.norm(part.weights.astype(np.float64), axis=1)
    np.testing.assert_allclose(known[part.instance_ids], expected, rtol=1e-6)  # float32
    pager.close()

    again, _, its_pager = paged(window, stride, num_negatives, tmp_path / "again")
    its_pager.open(75)
    assert [number for number, _ in its_pager.missing()] == list(its_pager._pages[0].needed(18))
    its_pager.fill(75, whole)
    its_pager.open(75, its_pager.writers)
    place(part, again.classifier, again.distribute_strategy, its_pager.here(), its_pager.stay(75))
    again.lazy_sgd.iterations.assign(75)
    assert_same_rows(rows_of(again, its_pager), whole)
    assert its_pager.missing() == []


@pytest.mark.parametrize("step", [0, 6, 20, 80])
def test_rows_of_another_order_of_visits(tmp_path, step):
    """Rows in the ring that the new windows do not need rest; none is lost, none that was trained begins anew."""
    window, stride, num_negatives = WINDOWS["as usual"]
    other_order = SlidingWindow(N, B, window, stride, seed=9)
    before = np.stack([other_order.instance_ids(t).numpy() for t in range(80)])
    model, dense = make(num_negatives, SCHEDULE)
    model.backbone.set_weights([ENCODER])
    train_both(model, dense, before, rates())
    # As if the step were an early one of the new windows; no update so far depends on its number.
    rows, state = rows_of(model), [variable.numpy() for variable in model.optimizer.variables]
    after, _, pager = paged(window, stride, num_negatives, tmp_path / "after")
    pager.fill(step, rows)
    assert pager.visited_before == (step < 80) and len(pager.here(step)[0]) == 48
    pager.open(step, pager.writers)
    place(rows, after.classifier, after.distribute_strategy, pager.here(), pager.stay(step))
    after.lazy_sgd.iterations.assign(80)
    found = rows_of(after, pager)
    for name in ("weights", "momentum", "stamp"):
        np.testing.assert_array_equal(getattr(found, name), getattr(rows, name), err_msg=name)
    recent = set(rows.ring) & set(pager.here()[0])
    assert -1 in found.ring and set(found.ring) - {-1} <= recent
    assert (set(found.ring) - {-1} == recent) == (step % 4 == 0)  # else one leaves the device sooner than the ring

    # On the device from the same ring: the same rows, also when those that rested come back.
    beside, _ = make(num_negatives, SCHEDULE)
    place(dataclasses.replace(rows, ring=found.ring, head=found.head), beside.classifier, beside.distribute_strategy)
    ids = ids_of(window, stride)[step : step + 60]
    for each, callbacks in ((beside, []), (after, [pager])):
        each.build_optimizers()
        each.backbone.set_weights(model.backbone.get_weights())
        for variable, value in zip(each.optimizer.variables, state):
            variable.assign(value)
        train_both(each, dense, ids, rates()[80:], callbacks)
    assert_same_rows(rows_of(after, pager), rows_of(beside))
    assert bool(list(tmp_path.rglob("block--*.npz"))) == (step < 80)
    pager.close()


def test_no_room_for_the_rows_of_another_order(tmp_path, monkeypatch):
    rows = Rows(*np.zeros([2, N, 16], np.float32), np.ones(N, np.int64), np.zeros(24, np.int64), 0)
    _, _, pager = paged(32, 8, 24, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(6000, 0, 6000))
    with pytest.raises(OSError, match=r"expected 6.53e-06 GB free for the rows .*, got 6e-06 GB: make room") as error:
        pager.fill(0, rows)  # 6 blocks of 8 rows of 136 bytes: all but the 48 on the device
    assert error.value.errno == errno.ENOSPC and not list(tmp_path.rglob("*.npz"))
    pager.close()


def test_untouched_rows_that_come_later_take_no_space(tmp_path):
    """Of the same order, early: nothing is written but what has left."""
    window, stride, num_negatives = WINDOWS["as usual"]
    model, dense = make(num_negatives, SCHEDULE)
    train_both(model, dense, ids_of(window, stride)[:20], rates())
    _, _, pager = paged(window, stride, num_negatives, tmp_path)
    pager.fill(20, rows_of(model))
    pager.open(20, pager.writers)
    assert not pager.visited_before and pager.missing() == []
    assert sorted(path.name[-6:] for path in tmp_path.rglob("*.npz")) == ["00.npz", "01.npz", "02.npz", "03.npz"]
    pager.close()


# --- what is where, by brute force ---


def geometries():
    rng = np.random.default_rng(0)
    while True:
        batch, count = int(rng.integers(1, 5)), int(rng.choice([1, 1, 2, 3]))
        shards = count * int(rng.choice([1, 1, 2, 3]))
        window = batch * shards * int(rng.integers(1, 9))
        stride = shards * int(rng.integers(1, window // shards + 1))
        n, seed, replica = int(rng.integers(window, 6 * window + 20)), int(rng.integers(99)), int(rng.integers(count))
        order = SlidingWindow(n, batch * count, window, stride, seed, replica, count, shards)
        negatives = count * int(rng.integers(batch, 2 * window + 1))
        if negatives <= n:
            yield order, negatives


@pytest.mark.parametrize("visited_before", [False, True])
def test_what_is_on_the_device_by_brute_force(visited_before):
    """Every row that a step reads or writes is there, none twice; blocks hold what was last seen of each row."""
    wrapped = tried = 0
    for order, num_negatives in geometries():
        try:
            pages = Pages(order, num_negatives, visited_before)
        except ValueError:
            continue
        tried += 1
        blocks, count = Blocks(), order.num_replicas
        own = range(order.replica, order.num_instances, count)
        ring, head = [-1] * (num_negatives // count), 0
        first = int(np.random.default_rng(tried).integers(5)) if visited_before else 0
        # Stamp and a value of each row.
        content = {i: (i + 1, i / 2) if visited_before else (0, 0.0) for i in own}

        def write(number, pages=pages, blocks=blocks, content=content):
            ids = pages.instance_ids(range(number * pages.stride, (number + 1) * pages.stride))
            stamps, values = zip(*(content[i] for i in ids.tolist()))
            weights = np.array(values, np.float32)[:, None]
            blocks.write(number, {"stamp": np.array(stamps), "weights": weights, "momentum": weights})

        for number in pages.needed(first):
            assert visited_before
            write(number)
        begin = first * order.steps_per_window
        for step in range(begin, begin + 4 * len(own) // (order.batch_size // count)):
            window = pages.window_of(step)
            here = pages.here(window)
            if step > begin and window != pages.window_of(step - 1):
                left = pages.leaving(window - 1)
                if left.start in pages.here(window - 1):
                    write(left.start // pages.stride)
            if step % order.steps_per_window == 0:
                rows = pages.rows(here) * count + order.replica
                assert len(set(rows.tolist())) == len(rows)
                coming = range(here.stop, here.stop + pages.stride)
                found = read_block(pages, blocks, coming, 1)
                for row, stamp, value in zip(pages.rows(coming), found["stamp"], found["weights"][:, 0]):
                    assert (stamp, value) == content[int(row) * count + order.replica]
                assert set(pages.needed(window)) <= set(blocks.numbers())
                later = pages.first_time(pages.to_come(window)).tolist()
                assert set(later) == set(own) - set(pages.instance_ids(range(0, here.stop)).tolist())
                assert len(set(later)) == len(later)
            batch = order.instance_ids(step).numpy().tolist()
            ring = [-1 if i in batch else i for i in ring]
            for i in batch:
                assert i in rows and (ring[head] in rows or ring[head] < 0)  # the one comes, the other goes
                ring[head], head = i, (head + 1) % len(ring)
            content |= {i: (step + 10_000, float(step)) for i in batch}
            wrapped += here.stop > len(own)
        if tried == 25:
            break
    assert wrapped > 500


def test_a_window_that_needs_nearly_all_rows_is_refused():
    Pages(SlidingWindow(56, 8, 32, 8), 24)  # 32 + 3 * 8
    with pytest.raises(ValueError, match=r"^expected at least 56 instances for rows in host memory or .* got 55"):
        Pages(SlidingWindow(55, 8, 32, 8), 24)


# --- who wrote what ---


def lineages(count, rows):
    return [Lineage(SlidingWindow(N, B, 32, 8, 3, replica, count, 8), rows) for replica in range(count)]


VALUES = np.random.default_rng(0).normal(size=(N, 2, 3)).astype(np.float32)


def write(blocks, numbers, plus=0):
    """Known rows: their stamp says which instance, of which block, and something more."""
    for number in numbers:
        ids = Pages(blocks._order, 24).of_block(number)
        blocks.write(
            number, {"weights": VALUES[ids, 0], "momentum": VALUES[ids, 1], "stamp": 1000 * number + ids + plus}
        )


def check_read(blocks, number, plus=0):
    ids, found = Pages(blocks._order, 24).of_block(number), blocks.read(number)
    np.testing.assert_array_equal(found["weights"], VALUES[ids, 0])
    np.testing.assert_array_equal(found["momentum"], VALUES[ids, 1])
    np.testing.assert_array_equal(found["stamp"], 1000 * number + ids + plus)
    assert [found[name].dtype for name in TABLES] == [np.float32, np.float32, np.int64]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 2), (8, 1), (4, 4)])
def test_blocks_of_another_number_of_replicas(tmp_path, before, after):
    """Each replica finds the rows of its own instances in the blocks of others, in its own order."""
    for blocks in lineages(before, tmp_path):
        blocks.begin(0, range(-3, -3), [])
        write(blocks, (-2, 0, 5))
    writers = blocks.writers
    for blocks in lineages(after, tmp_path):
        blocks.begin(30, range(-2, 6), writers)
        assert blocks.writers == [Writer(-3, 0, before), Writer(6, 30, after)]
        assert {number for number, _ in blocks.missing(range(-2, 8))} == {-1, 1, 2, 3, 4, 6, 7}
        for number in (-2, 0, 5):
            check_read(blocks, number)
        assert blocks.rows_there() == 3 * 8 / after
        with pytest.raises(
            ValueError, match=rf"^expected a block of rows in '.*from-step-0+/replica-.*-of-0+{before}/"
        ):
            blocks.read(4)
        write(blocks, [6], plus=7)
        check_read(blocks, 6, plus=7)
    for blocks in lineages(after, tmp_path):
        blocks.begin(30, range(-2, 6), writers)
        blocks.release(1)
    assert {path.name[-6:] for path in tmp_path.rglob("*.npz")} == {"05.npz", "06.npz"}


def test_blocks_that_were_left_behind_are_not_taken_for_others(tmp_path):
    """Two machines, then one, then two: what one of them wrote after the checkpoint is still there, and is not read."""
    (first, second), alone = lineages(2, tmp_path), lineages(1, tmp_path / "copy")[0]
    for blocks in (first, second):
        blocks.begin(0, range(0, 0), [])
        write(blocks, range(8))
    writers = first.writers  # of a checkpoint that needs blocks up to 4; then the machines went down
    shutil.copytree(tmp_path / "from-step-000000000000", tmp_path / "copy" / "from-step-000000000000")
    alone.begin(20, range(1, 5), writers)
    alone.forget(5)
    write(alone, range(5, 10), plus=100)
    assert alone.writers == [Writer(0, 0, 2), Writer(5, 20, 1)]
    again = lineages(2, tmp_path)  # with their own folders, as they left them
    for blocks in again:
        blocks.begin(40, range(3, 10), alone.writers)
        assert blocks.writers == [Writer(0, 0, 2), Writer(5, 20, 1), Writer(10, 40, 2)]
        folder = str(tmp_path / "from-step-000000000020" / "replica-00000-of-00001")
        assert blocks.missing(range(3, 10)) == [(number, folder) for number in range(5, 10)]
    shutil.copytree(tmp_path / "copy" / "from-step-000000000020", tmp_path / "from-step-000000000020")
    for blocks in again:
        assert blocks.missing(range(3, 10)) == []
        for number in range(3, 10):
            check_read(blocks, number, plus=100 if number >= 5 else 0)
        blocks.forget(10)
        write(blocks, [10], plus=200)
    for blocks in again:
        blocks.release(6)  # what is older than the start before is needed by nobody
        blocks.begin(50, range(6, 11), blocks.writers)
        assert blocks.writers == [Writer(5, 20, 1), Writer(10, 40, 2), Writer(11, 50, 2)]
        check_read(blocks, 10, plus=200)
    left = {int(path.stem.removeprefix("block-")) for path in tmp_path.glob("from-step-*/*/*.npz")}
    assert left == set(range(6, 11))


def test_a_try_that_was_cut_off_leaves_nothing_to_the_next(tmp_path):
    """From the same step in another order of visits: the blocks of the first try hold other instances."""
    window, stride, num_negatives = WINDOWS["as usual"]
    rows = Rows(*np.zeros([2, N, 16], np.float32), np.arange(1, N + 1), np.zeros(24, np.int64), 0)
    for seed in (3, 4):
        _, _, pager = paged(window, stride, num_negatives, tmp_path, seed=seed)
        if seed == 3:
            pager.fill(40, rows)
            write(pager._blocks[0], range(9, 12))
        else:
            pager.fill(0, rows)
            pager.fill(40, rows)
        pager.open(40, pager.writers)
        assert pager.missing() == []
        for number in pager._pages[0].needed(10):
            ids = pager._pages[0].of_block(number)
            np.testing.assert_array_equal(pager._blocks[0].read(number)["stamp"], ids + 1)
        pager.close()
    there = {path.name for path in (tmp_path / "from-step-000000000040").rglob("*.npz")}
    assert there == {f"block-{number:012d}.npz" for number in pager._pages[0].needed(10)}


# --- blocks ---


def block(seed):
    rng = np.random.default_rng(seed)
    rows = {"weights": rng.normal(size=(5, 3)), "momentum": rng.normal(size=(5, 3)), "stamp": rng.integers(9, size=5)}
    return {name: rows[name].astype(np.int64 if name == "stamp" else np.float32) for name in TABLES}


def test_blocks(tmp_path):
    (tmp_path / "rows").mkdir()
    for blocks in (Blocks(), Blocks(tmp_path / "rows")):
        for number in (3, 12, 7):
            blocks.write(number, block(number))
        assert blocks.numbers() == [3, 7, 12]
        for name in TABLES:
            np.testing.assert_array_equal(blocks.read(7)[name], block(7)[name])
        blocks.remove(lambda number: number < 12)
        assert blocks.numbers() == [12]
        assert blocks.has(12) and not blocks.has(7)
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["block-000000000012.npz"]


@pytest.mark.parametrize("damage", ["cut off", "a bit", "empty"])
def test_a_damaged_block_is_named(tmp_path, damage):
    blocks = Blocks(tmp_path)
    blocks.write(4, block(0))
    path = tmp_path / "block-000000000004.npz"
    content = bytearray(path.read_bytes())
    if damage == "a bit":
        content[content.find(block(0)["momentum"].tobytes()) + 7] ^= 1
    path.write_bytes({"cut off": content[:-100], "a bit": content, "empty": b""}[damage])
    with pytest.raises(
        ValueError, match=r"^expected a block of rows in '.*block-000000000004\.npz', got none that can be"
    ):
        blocks.read(4)


def test_no_bit_of_a_block_can_change_unnoticed(tmp_path):
    blocks = Blocks(tmp_path)
    blocks.write(4, block(0))
    path, refused = tmp_path / "block-000000000004.npz", 0
    content = path.read_bytes()
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :])
        try:
            rows = blocks.read(4)
        except ValueError as error:
            assert str(error).startswith("expected a block of rows")
            refused += 1
        else:  # where it says when it was written, for example
            for name, value in block(0).items():
                np.testing.assert_array_equal(rows[name], value)
    assert refused > len(content) / 2


def test_half_a_block_is_none(tmp_path, monkeypatch):
    blocks = Blocks(tmp_path)
    blocks.write(4, block(0))
    monkeypatch.setattr(np, "savez", lambda file, **_: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        blocks.write(5, block(1))
    assert blocks.numbers() == [4]


def test_a_block_that_cannot_be_written_ends_the_run(tmp_path):
    window, stride, num_negatives = WINDOWS["as usual"]
    _, _, pager = paged(window, stride, num_negatives, tmp_path)
    pager._blocks[0].write = lambda *_: (_ for _ in ()).throw(OSError("no room"))
    pager.turn()  # nothing has left yet
    pager.turn()
    with pytest.raises(OSError, match="no room"):
        pager.flush()
