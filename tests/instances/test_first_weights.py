"""First weights of rows against the published generator, in Python's integers, and against their
law.
"""

import numpy as np
import tensorflow as tf
from scipy import stats

from pic_tf.instances.first_weights import initial_rows
from tests.instances.test_ring import D, N, make


def splitmix(seed, count):
    """The published generator, in Python's integers."""
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = seed
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def test_initial_rows_by_hand():
    # What its authors' program prints for this seed:
    # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
    assert list(splitmix(1234567, 2)) == [6457827717110365317, 3203168211198807973]
    (start,) = splitmix(5, 1)
    bits = np.array(list(splitmix(start, 3 * D))[2 * D :], np.uint64)  # of instance 2
    v, turn = ((bits >> 40) + 1) / 2**24, (bits % 2**24) / 2**24
    expected = 0.01 * np.sqrt(-2 * np.log(v)) * np.cos(2 * np.pi * turn)
    rows = initial_rows(tf.constant([7, 2], tf.int64), D, 0.01, 5)
    np.testing.assert_allclose(rows[1], expected, atol=1e-8)  # float32 of 0.01 is 1e-9 exact


def test_initial_rows_are_normal_and_depend_on_seed_and_instance_only():
    ids = tf.range(2048, dtype=tf.int64)
    one, other, reseeded, far = (
        initial_rows(i, D, 0.01, s).numpy().astype(np.float64)
        for i, s in [(ids, 5), (ids + 2048, 5), (ids, 6), (ids + 10**12, 5)]
    )
    np.testing.assert_array_equal(initial_rows(ids[::-1], D, 0.01, 5)[::-1], one)
    for different in (other, reseeded, far):
        assert (
            abs(np.corrcoef(one.ravel(), different.ravel())[0, 1]) < 0.02
        )  # 32,768 draws: 3 sigma is 0.017
        assert stats.kstest(different.ravel() / 0.01, "norm").pvalue > 1e-3
    neighbours = np.corrcoef(one, rowvar=False) - np.eye(D)
    assert (
        np.abs(neighbours).max() < 0.1
    )  # of 240 coefficients with sigma 0.022 the largest is near 3 sigma
    model = make(24, 0.1)[0]
    start, _, stamp = model.classifier.store.read(tf.range(N, dtype=tf.int64))
    np.testing.assert_array_equal(start, initial_rows(tf.range(N, dtype=tf.int64), D, 0.01, 0))
    assert not stamp.numpy().any()
