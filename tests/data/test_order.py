"""The order of visits against hand-worked windows, sets and brute-force counts."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from pic_tf.data.order import SlidingWindow, default_window, epoch_order


def visits(order, first, count):
    """ids [count, B / R] of some steps, computed inside tf.data."""
    dataset = tf.data.Dataset.range(first, first + count).map(order.instance_ids)
    return np.stack(list(dataset.as_numpy_iterator()))


def windows(order, count):
    """The ids of the first windows, one row a window."""
    return visits(order, 0, count * order.steps_per_window).reshape(count, -1)


def permutation(n, seed, replica=0, replicas=1):
    """The global permutation: with one position a window and replica, step t visits position t
    and nothing else.
    """
    one_by_one = SlidingWindow(n, replicas, replicas, replicas, seed, replica, replicas)
    own = len(range(replica, n, replicas))
    return visits(one_by_one, 0, own)[:, 0]


@pytest.mark.parametrize("seed", [0, 1, 12345, -7])
def test_windows_of_a_small_case_worked_by_hand(seed):
    """N = 10, W = 4, S = 3, B = 2: the positions of eleven windows, round the end of the
    permutation three times.
    """
    positions = [
        [0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [9, 0, 1, 2], [2, 3, 4, 5], [5, 6, 7, 8],
        [8, 9, 0, 1], [1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 0], [0, 1, 2, 3],
    ]  # fmt: skip
    order = SlidingWindow(num_instances=10, batch_size=2, window_size=4, window_stride=3, seed=seed)
    of_position = permutation(10, seed)
    assert sorted(of_position) == list(range(10))
    steps = visits(order, 0, 22)
    assert steps.shape == (22, 2) and steps.dtype == np.int64
    for n, expected in enumerate(positions):
        assert sorted(steps[2 * n : 2 * n + 2].ravel()) == sorted(of_position[expected])


@pytest.mark.parametrize(
    ("n", "b", "w", "s"),
    [(11, 2, 4, 3), (50, 5, 20, 7), (16, 4, 8, 8), (13, 4, 12, 5), (9, 1, 3, 1)],
)
def test_every_window_is_a_permutation_of_its_positions(n, b, w, s):
    """Window k holds positions kS ...

    KS + W - 1 (mod N), for N a multiple of S or not, twice round and more.
    """
    order = SlidingWindow(n, b, w, s, seed=3)
    of_position = permutation(n, seed=3)
    for k, ids in enumerate(windows(order, 2 * n // s + 3)):
        expected = [of_position[(k * s + i) % n] for i in range(w)]
        assert len(set(ids)) == w
        assert sorted(ids) == sorted(expected)


@pytest.mark.parametrize(("n", "b", "w", "s"), [(100, 4, 32, 8), (101, 8, 64, 16), (60, 3, 30, 29)])
def test_successive_windows_share_w_minus_s(n, b, w, s):
    """Wherever W + S <= N, so that a window does not meet its successor from behind."""
    held = [set(ids) for ids in windows(SlidingWindow(n, b, w, s, seed=8), 20)]
    assert [len(a & b) for a, b in itertools.pairwise(held)] == [w - s] * 19


def test_windows_are_shuffled_each_in_its_own_way():
    """No shuffle comes back, and an instance keeps its place from window to window as rarely as
    chance has it.
    """
    rows = windows(epoch_order(64, 64, seed=5), 600)
    assert len({tuple(row) for row in rows}) == 600
    # Two random permutations agree in one place on average (Poisson): the 599 pairs have a standard
    # deviation of 0.04.
    assert 0.8 < np.mean(np.sum(rows[1:] == rows[:-1], axis=1)) < 1.2


@pytest.mark.parametrize("order", [SlidingWindow(50, 5, 20, 7, seed=1), epoch_order(50, 8, seed=1)])
def test_no_batch_has_an_instance_twice(order):
    for batch in visits(order, 0, 200):
        assert len(set(batch)) == order.batch_size


@pytest.mark.parametrize(
    "order", [SlidingWindow(50, 5, 20, 7, seed=2), SlidingWindow(50, 4, 8, 4, 2, 1, 2)]
)
def test_restart_at_any_step_gives_the_same_ids(order):
    whole = visits(order, 0, 60)
    for start in range(60):
        np.testing.assert_array_equal(order.instance_ids(start), whole[start])
    for start in (1, 3, 4, 37):
        np.testing.assert_array_equal(visits(order, start, 60 - start), whole[start:])


def test_another_process_agrees():
    """A fresh interpreter with other hashing and one thread visits the same ids."""
    code = """
import json
import tensorflow as tf
from pic_tf.data.order import SlidingWindow
tf.config.threading.set_inter_op_parallelism_threads(1)
order = SlidingWindow(1000, 8, 64, 24, seed=7)
print(json.dumps([order.instance_ids(step).numpy().tolist() for step in range(20, 60)]))
"""
    env = {**os.environ, "PYTHONHASHSEED": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    here = visits(SlidingWindow(1000, 8, 64, 24, seed=7), 20, 40)
    assert json.loads(result.stdout.splitlines()[-1]) == here.tolist()


def test_eager_graph_and_dataset_agree():
    order = SlidingWindow(1000, 8, 64, 24, seed=7)
    in_dataset = visits(order, 0, 30)
    in_graph = tf.function(order.instance_ids)
    for step in range(30):
        np.testing.assert_array_equal(order.instance_ids(step), in_dataset[step])
        np.testing.assert_array_equal(
            in_graph(tf.constant(step)), in_dataset[step]
        )  # int32 steps do as well


@pytest.mark.parametrize(("n", "b"), [(64, 8), (61, 8), (10, 10), (7, 2), (5, 1)])
def test_epoch_order_visits_everything_once_an_epoch(n, b):
    """All N but the last N mod B, and not the same ones left out in each epoch."""
    order = epoch_order(n, b, seed=4)
    epochs = windows(order, 20)
    assert order.steps_per_window == n // b
    for ids in epochs:
        assert len(set(ids)) == len(ids) == n - n % b
        assert set(ids) <= set(range(n))
    assert set(epochs.ravel()) == set(range(n))
    assert len({tuple(ids) for ids in epochs}) > 10


def test_other_seeds_give_other_orders():
    """Both the permutation and the shuffle in the window change with any bit of the seed."""
    seeds = [0, 1, 2, 3, 128, 256, 1024, 2**16, 2**20, 2**31, 2**32, 2**40, -1, -2]
    rows = [windows(SlidingWindow(100, 10, 20, 5, seed), 1)[0] for seed in seeds]
    assert len({tuple(row) for row in rows}) == len(seeds)
    assert len({tuple(sorted(row)) for row in rows}) == len(seeds)
    epochs = [windows(epoch_order(30, 30, seed), 1)[0] for seed in seeds]
    assert len({tuple(row) for row in epochs}) == len(seeds)


@pytest.mark.parametrize("n", [65535, 65536, 65537, 262145])
def test_sizes_around_powers_of_two(n):
    """4^k + 1 is the first size that does not fit into 2k bits."""
    ids = epoch_order(n, n, seed=0).instance_ids(0).numpy()
    np.testing.assert_array_equal(np.sort(ids), np.arange(n))
    two_sizes = (
        SlidingWindow(2 * n + 1, 2, 2, 2, virtual_shards=2)
        .instances_at(tf.range(2 * n, dtype=tf.int64))
        .numpy()
    )
    np.testing.assert_array_equal(np.sort(two_sizes[1::2]), np.arange(1, 2 * n, 2))
    assert len(set(two_sizes[::2])) == n and set(two_sizes[::2]) < set(range(0, 2 * n + 1, 2))
    whole_permutation = SlidingWindow(n, 1, 1, 1).instance_ids
    assert whole_permutation(0)[0] != whole_permutation(n - 1)[0]


@pytest.mark.parametrize("step", [0, 10**6, 10**9])
def test_huge_number_of_instances(step):
    """N = 2**33 does not fit int32, nor a table in memory; successive windows still share W - S."""
    n, b, w, s = 2**33, 1024, 4096, 1024
    order = SlidingWindow(n, b, w, s, seed=1)
    ids = visits(order, step // 4 * 4, 2 * order.steps_per_window).reshape(2, w)
    assert ids.min() >= 0 and ids.max() < n
    assert len(np.intersect1d(ids[0], ids[1])) == w - s
    # 5120 different ids, uniform on [0, N): the largest distance of the distribution functions has
    # p > 1e-3.
    assert stats.kstest(np.unique(ids) / n, "uniform").pvalue > 1e-3


def assert_uniform(table, n):
    """`table` [k, k] counts how often permutations of n send the i-th k-th of them to the j-th:
    chi-square.
    """
    k = len(table)
    share = np.bincount(np.arange(n) * k // n)
    expected = table.sum() * np.outer(share, share) / n**2
    # Rows and columns of a permutation are bound: (k - 1)^2 degrees of freedom, and the variance of
    # a cell is n / (n - 1) times that of free counts. The seeds are fixed, so 1e-4 is no flaky
    # limit.
    statistic = np.sum((table - expected) ** 2 / expected) * (n - 1) / n
    assert 1e-4 < stats.chi2.sf(statistic, (k - 1) ** 2) < 1 - 1e-4


@pytest.mark.parametrize(("n", "k"), [(37, 37), (512, 8), (1500, 30)])
def test_shuffle_of_a_window_is_uniform(n, k):
    """Over 500 windows every instance is equally often in every place."""
    table = np.zeros([k, k])
    for ids in windows(epoch_order(n, n, seed=11), 500):
        np.add.at(table, (np.arange(n) * k // n, ids * k // n), 1)
    assert_uniform(table, n)


def test_permutation_is_uniform_over_seeds():
    """Over 400 seeds every instance is equally often at every position."""
    n, table = 6, np.zeros([6, 6])
    for seed in range(400):
        one_by_one = SlidingWindow(n, 1, 1, 1, seed)
        ids = one_by_one.instances_at(tf.range(n, dtype=tf.int64))
        np.add.at(table, (np.arange(n), ids), 1)
    assert_uniform(table, n)


@pytest.mark.parametrize(
    ("n", "b", "expected"),
    [
        (1500, 64, (512, 64)),  # digits
        (1281167, 512, (131072, 16384)),  # ImageNet at the paper's batch size
        (10**8, 512, (131072, 16384)),  # never more than the paper's window
        (10**7, 3000, (129000, 16125)),  # 131072 rounded down to whole batches
        (512, 64, (256, 32)),  # eight batches: windows begin
        (511, 64, (511, 511)),  # fewer: epoch order
        (100, 64, (100, 100)),
        (1, 1, (1, 1)),
    ],
)
def test_default_window(n, b, expected):
    assert default_window(n, b) == expected
    SlidingWindow(n, b, *expected)


def test_default_window_is_always_accepted():
    for n in [*range(1, 200), 1000, 10**4, 10**6]:
        for b in [b for b in (1, 2, 3, 7, 64, 512) if b <= n]:
            w, s = default_window(n, b)
            SlidingWindow(n, b, w, s)
            assert w == n or (2 * w <= n and w <= 131072)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((10, 0, 4, 2), r"expected 1 <= batch_size <= the number of instances \(10\), got 0"),
        ((10, 11, 11, 2), r"expected 1 <= batch_size <= the number of instances \(10\), got 11"),
        (
            (10, 4, 2, 1),
            r"expected batch_size \(4\) <= window_size <= number of instances \(10\), got "
            r"window_size 2",
        ),
        (
            (10, 4, 12, 1),
            r"expected batch_size \(4\) <= window_size <= number of instances \(10\), got "
            r"window_size 12",
        ),
        ((10, 2, 4, 0), r"expected 1 <= window_stride <= window_size \(4\), got 0"),
        ((10, 2, 4, 5), r"expected 1 <= window_stride <= window_size \(4\), got 5"),
        (
            (100, 8, 20, 4),
            r"expected window_size to be a multiple of batch_size \(8\), got 20: use 16 or 24",
        ),
        ((100, 8, 16, 8, 0, 2, 2), r"expected 0 <= replica < num_replicas \(2\), got 2"),
        ((100, 8, 16, 8, 0, -1, 2), r"expected 0 <= replica < num_replicas \(2\), got -1"),
        ((100, 8, 16, 8, 0, 0, 0), r"expected 0 <= replica < num_replicas \(0\), got 0"),
        (
            (100, 9, 18, 8, 0, 0, 2),
            r"expected batch_size to be a multiple of num_replicas \(2\), got 9: use 8 or 10",
        ),
        (
            (100, 8, 16, 7, 0, 0, 2),
            r"expected window_stride to be a multiple of num_replicas \(2\), got 7: use 6 or 8",
        ),
        (
            (100, 8, 100, 7, 0, 0, 2),
            r"expected window_stride to be a multiple of num_replicas \(2\), got 7: use 6 or 8",
        ),
        (
            (101, 9, 101, 101, 0, 0, 2),
            r"expected batch_size to be a multiple of num_replicas \(2\), got 9: use 8 or 10",
        ),
        (
            (100, 8, 16, 8, 0, 0, 2, 3),
            r"expected virtual_shards to be a multiple of num_replicas \(2\) that .* got 3",
        ),
        (
            (100, 8, 16, 6, 0, 0, 2, 4),
            r"expected .* divides window_size \(16\) and window_stride \(6\), got 4: use 0",
        ),
        ((100, 8, 16, 8, 0, 0, 2, -2), r"expected virtual_shards .*, got -2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindow(*sizes)
