"""SimCLR's loss, gradient and step against brute force in float64."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import pic_tf
from pic_tf.baselines.simclr import SimCLR, nt_xent
from tests.processes import with_replicas

TAU = 0.2


def brute_force(embedding, weights, tau=TAU):
    """Mean loss over the views of float64 [2b, D], term by term, and whether the other view won."""
    z = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    losses, won = [], []
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        others = [k for k in range(len(z)) if k != i and (weights[k // 2] > 0 or k == j)]
        logits = {k: z[i] @ z[k] / tau for k in others}
        losses.append(np.log(sum(np.exp(x) for x in logits.values())) - logits[j])
        won.append(logits[j] == max(logits.values()))
    return np.array(losses), np.array(won)


def mean_loss(embedding, weights):
    return np.mean(np.repeat(weights, 2) * brute_force(embedding, weights)[0])


def slopes(function, x, step=1e-6):
    """Central differences of a function of a float64 array."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][at] += step
        moved[1][at] -= step
        gradient[at] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return gradient


def sample(b=4, dim=5):
    return np.random.default_rng(1).normal(size=(2 * b, dim))


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 0, 1, 1]], ids=["all", "one left out"])
def test_loss_and_gradient(weights):
    embedding, weights = sample(), np.array(weights, np.float32)
    z = tf.constant(embedding, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(z)
        losses, correct = nt_xent(z, tf.constant(weights), TAU)
        loss = tf.reduce_mean(tf.repeat(weights, 2) * losses)
    expected, won = brute_force(embedding, weights)
    counted = np.repeat(weights, 2) > 0
    # float32 roundings of eight logits of at most 5
    np.testing.assert_allclose(losses[counted], expected[counted], rtol=2e-6)
    np.testing.assert_array_equal(correct[counted], won[counted])
    of_loss = slopes(lambda x: mean_loss(x, weights), embedding)
    np.testing.assert_allclose(tape.gradient(loss, z), of_loss, atol=1e-6)
    assert not np.any(of_loss[~counted])  # an image left out takes no part at all


def test_a_low_temperature_does_not_overflow():
    losses, _ = nt_xent(tf.constant(sample(), tf.float32), tf.ones(4), 1e-3)
    # Logits of up to 1000 have a rounding of 6e-5.
    np.testing.assert_allclose(losses, brute_force(sample(), np.ones(4), 1e-3)[0], atol=3e-4)


def network():
    inputs = keras.Input([6])
    return keras.Model(inputs, keras.layers.Dense(5, use_bias=False)(inputs))


def one_step(strategy, views, ids):
    """The kernel of a linear network and the logs after one step of plain gradient descent."""
    from pic_tf.replicas.collectives import distribute

    with strategy.scope():
        keras.utils.set_random_seed(3)
        model = SimCLR(network(), head="none", temperature=TAU)
        model.compile(pic_tf.LazySGD(1.0, 0.0, 0.0, max_updates=2))
    before = model.backbone.get_weights()[0]

    def share(replica, count):
        own = ids % count == replica
        return tf.data.Dataset.from_tensors((views[np.repeat(own, 2)], ids[own]))

    history = model.fit(distribute(strategy, share), steps_per_epoch=1, verbose=0).history
    logs = {name: float(value[0]) for name, value in history.items()}
    return before, model.backbone.get_weights()[0], logs


def test_a_step_follows_the_gradient_on_one_replica_and_on_two():
    """The sum of both replicas' gradients reaches views of the other one too."""
    rng = np.random.default_rng(0)
    views, ids = rng.normal(size=(8, 6)).astype(np.float32), np.arange(4)
    for run in (one_step, lambda strategy, *batch: with_replicas(2, one_step, *batch)):
        before, after, logs = run(tf.distribute.get_strategy(), views, ids)

        def loss(kernel):
            return mean_loss(views.astype(np.float64) @ kernel, np.ones(4))

        kernel = before.astype(np.float64)
        # float32 sums of some dozen products of about 1
        np.testing.assert_allclose(before - after, slopes(loss, kernel), atol=5e-6)
        assert logs["loss"] == pytest.approx(loss(kernel), rel=1e-5)
        assert logs["skipped"] == 0 and logs["left_out"] == 0


def test_other_numbers_of_views_are_refused():
    model = SimCLR(network(), head="none")
    model.compile(pic_tf.LazySGD(max_updates=2))
    ids = np.arange(4)
    for count in (4, 12):
        batch = (np.ones([count, 6], np.float32), ids)
        with pytest.raises(ValueError, match="expected two views of one size of each image, got"):
            model.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
