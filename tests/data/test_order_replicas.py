"""The order of visits of several replicas and virtual shards."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.order import SlidingWindow, default_shards
from tests.data.test_order import permutation, visits, windows


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_share_the_instances(replicas):
    """Replica r sees its own permutation of the ids that are r mod R, W / R positions a window,
    S / R further on.
    """
    n, b, w, s = 37, 8, 16, 8
    orders = [SlidingWindow(n, b, w, s, 6, r, replicas) for r in range(replicas)]
    for r, order in enumerate(orders):
        own = list(range(r, n, replicas))
        of_position = permutation(n, 6, r, replicas)
        assert sorted(of_position) == own
        for k, ids in enumerate(windows(order, 15)):
            expected = [
                of_position[(k * s // replicas + i) % len(own)] for i in range(w // replicas)
            ]
            assert sorted(ids) == sorted(expected)
    steps = np.concatenate([visits(order, 0, 30) for order in orders], axis=1)
    assert steps.shape == (30, b)
    assert all(len(set(batch)) == b for batch in steps)
    assert set(steps.ravel()) == set(range(n))


@pytest.mark.parametrize(("n", "b", "replicas"), [(64, 8, 2), (64, 8, 4), (37, 8, 2), (39, 8, 4)])
def test_replicas_cover_an_epoch_together(n, b, replicas):
    orders = [SlidingWindow(n, b, n, n, 9, r, replicas) for r in range(replicas)]
    assert {order.steps_per_window for order in orders} == {n // b}
    epochs = np.concatenate([windows(order, 5) for order in orders], axis=1)
    for ids in epochs:
        assert len(set(ids)) == len(ids) == n - n % b
    for r, order in enumerate(orders):
        assert set(visits(order, 0, 20).ravel() % replicas) == {r}


@pytest.mark.parametrize(("n", "shards"), [(96, 8), (101, 8), (67, 4), (150, 6)])
def test_windows_of_virtual_shards_do_not_depend_on_the_replicas(n, shards):
    """Each shard goes through its own permutation, W / V positions a window, whoever has it."""
    b, w, s = 24, 48, 24
    of_position = [permutation(n, 6, shard, shards) for shard in range(shards)]
    for replicas in [r for r in (1, 2, 3, 4, 6, 8) if shards % r == 0]:
        orders = [SlidingWindow(n, b, w, s, 6, r, replicas, shards) for r in range(replicas)]
        steps = [visits(order, 0, 40) for order in orders]
        for r, of_replica in enumerate(steps):
            for k, ids in enumerate(of_replica.reshape(20, -1)):  # two steps a window
                expected = [
                    of_position[shard][(k * s // shards + i) % len(of_position[shard])]
                    for shard in range(r, shards, replicas)
                    for i in range(w // shards)
                ]
                assert sorted(ids) == sorted(expected)
        steps = np.concatenate(steps, axis=1)
        assert steps.shape == (40, b) and all(len(set(batch)) == b for batch in steps)


def test_places_of_virtual_shards_worked_by_hand():
    """N = 10, V = 4, replica 1 of 2: shards 1 (1, 5, 9) and 3 (3, 7) by turns, each over and
    over, from below 0 on.
    """
    order = SlidingWindow(10, 4, 4, 4, 2, 1, 2, 4)
    one, three = (permutation(10, 2, shard, 4).tolist() for shard in (1, 3))
    assert sorted(one) == [1, 5, 9] and sorted(three) == [3, 7]
    expected = [x for k in range(-3, 6) for x in (one[k % 3], three[k % 2])]
    assert order.instances_at(tf.range(-6, 12, dtype=tf.int64)).numpy().tolist() == expected
    assert order.shards.tolist() == [1, 3] and order.shard_sizes.tolist() == [3, 2]


def test_as_many_virtual_shards_as_replicas_is_the_usual_order():
    for replicas in (1, 2, 4):
        usual, same = (
            SlidingWindow(37, 8, 16, 8, 6, replicas - 1, replicas, shards)
            for shards in (0, replicas)
        )
        np.testing.assert_array_equal(visits(usual, 0, 40), visits(same, 0, 40))


@pytest.mark.parametrize(
    ("w", "s", "replicas", "expected"),
    [
        (131072, 16384, 1, 256),
        (131072, 16384, 8, 256),
        (131072, 16380, 6, 0),
        (131072, 16384, 3, 0),
        (512, 64, 1, 0),
    ],
)
def test_default_shards(w, s, replicas, expected):
    assert default_shards(10**6, w, s, replicas) == expected


def test_epochs_have_no_default_shards():
    assert default_shards(1024, 1024, 1024) == 0


def test_replicas_have_permutations_of_their_own():
    ranks = [permutation(100, 0, replica, 2) // 2 for replica in range(2)]
    # Two random permutations agree in one place on average (Poisson).
    assert np.count_nonzero(ranks[0] == ranks[1]) < 8
