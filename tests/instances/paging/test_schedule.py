"""Rows on the device and blocks that the future needs, by brute force."""

import numpy as np
import pytest

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.paging.pager import read_block
from pic_tf.instances.paging.schedule import WindowSchedule
from tests.instances.visits import visits


def geometries():
    rng = np.random.default_rng(0)
    while True:
        batch, count = int(rng.integers(1, 5)), int(rng.choice([1, 1, 2, 3]))
        shards = count * int(rng.choice([1, 1, 2, 3]))
        window = batch * shards * int(rng.integers(1, 9))
        stride = shards * int(rng.integers(1, window // shards + 1))
        n, seed, replica = (
            int(rng.integers(window, 6 * window + 20)),
            int(rng.integers(99)),
            int(rng.integers(count)),
        )
        order = SlidingWindow(n, batch * count, window, stride, seed, replica, count, shards)
        negatives = count * int(rng.integers(batch, 2 * window + 1))
        if negatives <= n:
            yield order, negatives


class InMemory(dict):
    """Blocks by number."""

    write, read, numbers = dict.__setitem__, dict.__getitem__, dict.keys


@pytest.mark.parametrize("visited_before", [False, True])
def test_what_is_on_the_device_by_brute_force(visited_before):
    """Every row that a step reads or writes is there, none twice; blocks hold what was last seen
    of each row.
    """
    wrapped = tried = 0
    for order, num_negatives in geometries():
        try:
            schedule = WindowSchedule(order, num_negatives, visited_before)
        except ValueError:
            continue
        tried += 1
        blocks, count = InMemory(), order.num_replicas
        own = range(order.replica, order.num_instances, count)
        ring, head = [-1] * (num_negatives // count), 0
        first = int(np.random.default_rng(tried).integers(5)) if visited_before else 0
        # Stamp and a value of each row.
        content = {i: (i + 1, i / 2) if visited_before else (0, 0.0) for i in own}

        def write(number, schedule=schedule, blocks=blocks, content=content):
            ids = schedule.instance_ids(
                range(number * schedule.stride, (number + 1) * schedule.stride)
            )
            stamps, values = zip(*(content[i] for i in ids.tolist()))
            weights = np.array(values, np.float32)[:, None]
            blocks.write(
                number, {"stamp": np.array(stamps), "weights": weights, "momentum": weights}
            )

        for number in schedule.needed(first):
            assert visited_before
            write(number)
        begin = first * order.steps_per_window
        two_sweeps = 2 * len(own) // (order.batch_size // count)
        steps = range(begin, begin + two_sweeps)
        batches = visits(order, 5 * order.steps_per_window + two_sweeps).tolist()
        for step in steps:
            window = schedule.window_of(step)
            here = schedule.here(window)
            if step > begin and window != schedule.window_of(step - 1):
                left = schedule.leaving(window - 1)
                if left.start in schedule.here(window - 1):
                    write(left.start // schedule.stride)
            if step % order.steps_per_window == 0:
                rows = schedule.rows(here) * count + order.replica
                assert len(set(rows.tolist())) == len(rows)
                coming = range(here.stop, here.stop + schedule.stride)
                found = read_block(schedule, blocks, coming, 1)
                for row, stamp, value in zip(
                    schedule.rows(coming), found["stamp"], found["weights"][:, 0]
                ):
                    assert (stamp, value) == content[int(row) * count + order.replica]
                assert set(schedule.needed(window)) <= set(blocks.numbers())
                later = schedule.first_time(schedule.to_come(window)).tolist()
                assert set(later) == set(own) - set(
                    schedule.instance_ids(range(0, here.stop)).tolist()
                )
                assert len(set(later)) == len(later)
            batch = batches[step]
            ring = [-1 if i in batch else i for i in ring]
            for i in batch:
                assert i in rows and (
                    ring[head] in rows or ring[head] < 0
                )  # the one comes, the other goes
                ring[head], head = i, (head + 1) % len(ring)
            content |= {i: (step + 10_000, float(step)) for i in batch}
            wrapped += here.stop > len(own)
        if tried == 25:
            break
    assert wrapped > 500


def test_a_window_that_needs_nearly_all_rows_is_refused():
    WindowSchedule(SlidingWindow(56, 8, 32, 8), 24)  # 32 + 3 * 8
    with pytest.raises(
        ValueError, match=r"^expected at least 56 instances for rows on disk .* got 55"
    ):
        WindowSchedule(SlidingWindow(55, 8, 32, 8), 24)
