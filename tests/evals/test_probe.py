"""The linear probe learns, and changes nothing."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.models.probe import LinearProbe
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.pic import PIC
from tests.processes import with_replicas


def test_learn_equals_softmax_regression_in_float64():
    """A loop in NumPy: running statistics, then SGD with momentum on the mean cross-entropy."""
    rng = np.random.default_rng(0)
    probe = LinearProbe(5, 3, learning_rate=0.3)
    w, b, uw, ub = np.zeros([5, 3]), np.zeros(3), np.zeros([5, 3]), np.zeros(3)
    mean, variance = np.zeros(5), np.ones(5)
    for step in range(20):
        features, labels = rng.normal(2, 3, (8, 5)).astype(np.float32), rng.integers(0, 3, 8)
        weights = (
            np.array([1, 1, 0, 1, 1, 1, 0, 1], np.float32) if step % 2 else np.ones(8, np.float32)
        )
        probe.learn(tf.constant(features), tf.constant(labels), tf.constant(weights))
        counted, classes = features[weights > 0].astype(np.float64), labels[weights > 0]
        mean = 0.99 * mean + 0.01 * counted.mean(0)
        variance = 0.99 * variance + 0.01 * counted.var(0)
        x = (counted - mean) / np.sqrt(variance + 1e-5)
        logits = x @ w + b
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(classes)), classes] -= 1
        uw, ub = 0.9 * uw + x.T @ p / len(classes), 0.9 * ub + p.mean(0)
        w, b = w - 0.3 * uw, b - 0.3 * ub
    # float32 against float64 over 20 steps.
    np.testing.assert_allclose(probe.kernel, w, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probe.bias, b, rtol=1e-4, atol=1e-4)


def learned(strategy):
    """Kernel and bias after ten steps whose batches are shared out among the replicas."""
    rng, count = np.random.default_rng(1), strategy.num_replicas_in_sync
    with strategy.scope():
        probe = LinearProbe(5, 3, learning_rate=0.3)

    @tf.function
    def step(*batch):
        def on_replica():
            own = tf.distribute.get_replica_context().replica_id_in_sync_group
            probe.learn(*(tf.stack(tf.split(x, count))[own] for x in batch))

        strategy.run(on_replica)

    for _ in range(10):
        weights = np.array([1, 0, 1, 1, 1, 1, 1, 1], np.float32)
        step(rng.normal(2, 3, (8, 5)).astype(np.float32), rng.integers(0, 3, 8), weights)
    return [
        strategy.experimental_local_results(variable)[0].numpy()
        for variable in (probe.kernel, probe.bias)
    ]


def test_two_replicas_learn_as_one():
    for one, two in zip(with_replicas(1, learned), with_replicas(2, learned)):
        assert np.abs(one).max() > 0.1  # it moved
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)  # float32 sums in another order


@pytest.mark.parametrize("head", ["mlp", "mlp_bn"])
def test_training_is_bit_for_bit_that_without_it(head):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(32, 6)).astype(np.float32)
    labels = (images[:, 0] > 0).astype(np.int64)

    def train(probed: bool):
        keras.utils.set_random_seed(3)
        inputs = keras.Input([6])
        features = keras.layers.BatchNormalization()(keras.layers.Dense(16, "relu")(inputs))
        backbone = keras.Model(inputs, features)
        probe = LinearProbe(16, 2) if probed else None
        model = PIC(backbone, 32, 16, head, hidden_dim=8, embedding_dim=4, probe=probe)
        model.compile(LazySGD(0.1, max_updates=100))
        ids = np.concatenate(
            [rng_ids.permutation(32) for rng_ids in (np.random.default_rng(s) for s in range(15))]
        )
        parts = [images[ids], ids, np.ones(len(ids), np.float32)]
        if probed:
            parts.append((images[ids], labels[ids], np.ones(len(ids), np.float32)))
        history = model.fit(
            tf.data.Dataset.from_tensor_slices(tuple(parts)).batch(8), epochs=1, verbose=0
        )
        return model, history.history

    (plain, _), (probed, history) = train(False), train(True)
    for one, other in zip(
        [*plain.backbone.weights, *plain.projection.weights, plain.classifier.weights_ring],
        [*probed.backbone.weights, *probed.projection.weights, probed.classifier.weights_ring],
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert (
        history["probe_accuracy"][0] > 0.7
    )  # it learns the sign of one input, of which half are positive
    assert probed.probe.accuracy_on(probed.features(images).numpy(), labels) > 0.9
