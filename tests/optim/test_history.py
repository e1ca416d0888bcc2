"""Products of update matrices against plain multiplication and the recursion they stand for."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.optim.history import ProductHistory


def update_matrices(rates, decay, momentum):
    matrices = np.empty((len(rates), 2, 2))
    matrices[:, 0, 0], matrices[:, 0, 1] = 1 - rates * decay, -rates * momentum
    matrices[:, 1, 0], matrices[:, 1, 1] = decay, momentum
    return matrices


def recorded(matrices, capacity):
    history = ProductHistory(capacity)
    record = tf.function(history.record)
    for t, matrix in enumerate(matrices):
        record(tf.constant(t, tf.int64), tf.constant(matrix))
    return history


@pytest.mark.parametrize("capacity", [1, 2, 3, 16, 37])
def test_every_pair_of_steps(capacity):
    """Also at every moment of its growth, when blocks are half full."""
    rng = np.random.default_rng(capacity)
    matrices = rng.normal(size=(capacity, 2, 2))
    history = ProductHistory(capacity)
    ids = tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)
    between = tf.function(history.between, input_signature=ids)  # traced once for all numbers
    for end in range(capacity + 1):
        products = between(tf.range(end + 1, dtype=tf.int64), tf.constant(end, tf.int64)).numpy()
        expected = np.eye(2)
        for start in range(end, -1, -1):
            # float64 products in another order: 37 factors of norm about 2
            np.testing.assert_allclose(
                products[start], expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
            )
            if start:
                expected = expected @ matrices[start - 1]
        if end < capacity:
            history.record(tf.constant(end, tf.int64), tf.constant(matrices[end]))


def test_long_gaps_against_the_recursion_in_long_double():
    steps, decay, momentum = 3000, 1e-2, 0.9
    rng = np.random.default_rng(0)
    rates = (
        0.06 * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps)) * rng.uniform(0.5, 1.5, steps)
    )
    history = recorded(update_matrices(rates, decay, momentum), steps)
    start = np.array([0, 1, 7, 1024, 1500, 2047, 2048, 2999, 3000])
    products = history.between(tf.constant(start), tf.constant(steps, tf.int64)).numpy()
    for s, product in zip(start, products):
        w, u = np.longdouble(0.3), np.longdouble(-0.7)
        for rate in rates[s:]:
            u = np.longdouble(momentum) * u + np.longdouble(decay) * w
            w = w - np.longdouble(rate) * u
        # measured 1e-14 and below; the tree sums log2(T) roundings of 1e-16
        np.testing.assert_allclose(product @ [0.3, -0.7], [float(w), float(u)], rtol=1e-12)


def test_constant_rate_is_the_papers_matrix_power():
    matrices = update_matrices(np.full(100, 0.06), 1e-4, 0.9)
    history = recorded(matrices, 100)
    product = history.between(tf.constant([11], tf.int64), tf.constant(100, tf.int64)).numpy()[0]
    np.testing.assert_allclose(
        product, np.linalg.matrix_power(matrices[0], 89), rtol=1e-12
    )  # both float64


def test_one_update_too_many_is_refused():
    history = recorded(np.tile(np.eye(2), (4, 1, 1)), 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected at most 4 updates"):
        history.record(tf.constant(4, tf.int64), tf.eye(2, dtype=tf.float64))
    with pytest.raises(ValueError, match="expected capacity >= 1"):
        ProductHistory(0)
