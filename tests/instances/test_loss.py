"""The instance soft-max against a triple loop and against finite differences."""

import math

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.instances.loss import instance_softmax, unit_rows
from pic_tf.instances.mixing import Partners

B, K, D = 5, 9, 4
LIVE = np.array([True, True, False, True, True, True, False, True, True])
SLOTS = np.array([0, 3, 8, 3, 5])  # two views of one instance among them
PARTNERS = np.array([1, 0, 8, 5, 3])  # of mixed views; one is its own
SHARES = (0.4, 0.0, 0.3, 0.1, 0.5)


def numbers(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, D)), rng.normal(size=(K, D))


def looped(embedding, weights, temperature, similarity, smoothing=0.0, shares=(0.0,) * B):
    """Losses and wins, one number at a time in float64."""
    losses, wins = [], []
    for z, own, partner, share in zip(embedding, SLOTS, PARTNERS, shares):
        logits = {}
        for j, w in enumerate(weights):
            if LIVE[j]:
                logits[j] = sum(a * b for a, b in zip(w, z)) / temperature
                if similarity == "cosine":
                    logits[j] /= math.sqrt(sum(a * a for a in w)) * math.sqrt(sum(b * b for b in z))
        total = sum(math.exp(x) for x in logits.values())
        target = {j: smoothing / len(logits) for j in logits}
        target[own] += (1 - smoothing) * (1 - share)
        target[partner] += (1 - smoothing) * share
        losses.append(-sum(target[j] * math.log(math.exp(logits[j]) / total) for j in logits))
        wins.append(logits[own] == max(logits.values()))
    return np.array(losses), np.array(wins)


@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_live_rows_nothing_moves(temperature, smoothing):
    """As in a first batch of images that all have weight 0."""
    embedding, weights = (tf.constant(x, tf.float32) for x in numbers())
    with tf.GradientTape() as tape:
        tape.watch([embedding, weights])
        none = np.zeros(K, bool)
        losses, _ = instance_softmax(
            embedding, weights, SLOTS, none, temperature, label_smoothing=smoothing
        )
        loss = tf.reduce_sum(0.0 * losses)
    assert loss == 0.0
    for gradient in tape.gradient(loss, [embedding, weights]):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_loss_and_wins(similarity, temperature):
    embedding, weights = numbers()
    loss, correct = instance_softmax(
        tf.constant(embedding, tf.float32),
        tf.constant(weights, tf.float32),
        SLOTS,
        LIVE,
        temperature,
        similarity,
    )
    losses, wins = looped(embedding, weights, temperature, similarity)
    # float32 logits up to 1 / 0.05 carry 1e-6 of absolute error into the loss.
    np.testing.assert_allclose(loss, losses, rtol=1e-5, atol=5e-6)
    np.testing.assert_array_equal(correct, wins)


@pytest.mark.parametrize("mixing", [None, SHARES], ids=["plain", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.8])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_gradient_against_finite_differences(similarity, smoothing, mixing):
    embedding, weights = numbers(1)
    shares = np.array([0.1, 0.2, 0.3, 0.4, 0.5])  # an upstream gradient that differs by view
    z, w = tf.constant(embedding, tf.float32), tf.constant(weights, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([z, w])
        partners = mixing and Partners(tf.constant(PARTNERS), tf.constant(mixing))
        loss, _ = instance_softmax(z, w, SLOTS, LIVE, 0.2, similarity, smoothing, partners)
        total = tf.reduce_sum(loss * tf.constant(shares, tf.float32))
    of_z, of_w = tape.gradient(total, [z, w])

    def total_at(embedding, weights):
        kind = similarity, smoothing, mixing or (0.0,) * B
        return np.dot(shares, looped(embedding, weights, 0.2, *kind)[0])

    assert float(total) == pytest.approx(total_at(embedding, weights), rel=1e-5)

    step = 1e-6
    for values, gradient, at in (
        (embedding, of_z, lambda x: total_at(x, weights)),
        (weights, of_w, lambda x: total_at(embedding, x)),
    ):
        for index in np.ndindex(values.shape):
            nudge = np.zeros_like(values)
            nudge[index] = step
            difference = (at(values + nudge) - at(values - nudge)) / (2 * step)
            # float32 gradient of terms up to 5 (1 / tau); the differences themselves err by 1e-9.
            np.testing.assert_allclose(gradient.numpy()[index], difference, rtol=1e-4, atol=1e-5)
    assert not np.any(of_w.numpy()[~LIVE])


def test_extreme_temperatures_stay_finite():
    embedding, weights = (tf.constant(x, tf.float32) for x in numbers())
    for temperature in (1e-3, 1e3):
        loss, _ = instance_softmax(embedding, weights, SLOTS, LIVE, temperature)
        assert np.all(np.isfinite(loss))


def test_large_dot_products_stay_finite():
    embedding, weights = (tf.constant(1e3 * x, tf.float32) for x in numbers())
    loss, _ = instance_softmax(embedding, weights, SLOTS, LIVE, 1.0, "dot")
    assert np.all(np.isfinite(loss))


def test_unit_rows_of_tiny_and_zero_rows():
    rows = tf.constant([[3e-12, 4e-12], [0.0, 0.0]])
    np.testing.assert_allclose(
        unit_rows(rows), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6
    )  # float32 rounding
