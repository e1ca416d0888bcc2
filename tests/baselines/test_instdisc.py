"""Instance discrimination against its equations in float64, over steps that visit all images."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import pic_tf
from pic_tf.baselines.instdisc import InstanceDiscrimination
from pic_tf.replicas.collectives import distribute
from tests.baselines.test_simclr import network, slopes
from tests.processes import with_replicas

TAU, M, RATE, N, B, STEPS = 0.2, 0.5, 0.5, 7, 4, 4  # the replicas have four images and three


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def equations(kernel, bank, batches):
    """Losses, kernel and memory after all steps of (float64 views, ids, weights)."""
    losses, bank = [], unit(bank)
    for views, ids, weights in batches:

        def loss(kernel, views=views, ids=ids, weights=weights, bank=bank):
            logits = unit(views @ kernel) @ bank.T / TAU
            own = logits[np.arange(len(ids)), ids]
            return np.mean(weights * (np.log(np.exp(logits).sum(1)) - own))

        losses.append(loss(kernel) * len(ids) / weights.sum())
        embedding, kernel = unit(views @ kernel), kernel - RATE * slopes(loss, kernel)
        bank = bank.copy()
        for z, i, weight in zip(embedding, ids, weights):
            if weight:
                bank[i] = unit(M * bank[i] + (1 - M) * z)
    return losses, kernel, bank


def memory(model, strategy):
    """Rows of all images [N, D], wherever they are."""
    rows = strategy.experimental_local_results(model.classifier.weights_ring)
    together = np.stack([row.numpy() for row in rows], axis=1)
    return together.reshape(-1, together.shape[-1])[:N]


def trained(strategy, views, ids, weights):
    with strategy.scope():
        keras.utils.set_random_seed(3)
        model = InstanceDiscrimination(network(), N, "none", temperature=TAU, bank_momentum=M)
        model.compile(pic_tf.LazySGD(RATE, 0.0, 0.0, max_updates=STEPS))
    before = model.backbone.get_weights()[0], memory(model, strategy)

    def share(replica, count):
        own = ids[0] % count == replica  # in every step
        parts = views[:, own], ids[:, own], weights[:, own]
        return tf.data.Dataset.from_tensor_slices(parts)

    history = model.fit(
        distribute(strategy, share), steps_per_epoch=1, epochs=STEPS, verbose=0
    ).history
    return before, history["loss"], model.backbone.get_weights()[0], memory(model, strategy)


def test_steps_on_one_replica_and_on_two():
    """One image is left out once; its row stays."""
    rng = np.random.default_rng(0)
    views = rng.normal(size=(STEPS, B, 6)).astype(np.float32)
    ids = np.array([[0, 1, 2, 3], [4, 5, 6, 1], [2, 3, 0, 5], [6, 1, 4, 3]])
    weights = np.ones([STEPS, B], np.float32)
    weights[2, 2] = 0.0  # image 0
    for run in (trained, lambda _, *batches: with_replicas(2, trained, *batches)):
        before, losses, kernel, bank = run(tf.distribute.get_strategy(), views, ids, weights)
        first = [x.astype(np.float64) for x in before]
        expected = equations(*first, list(zip(views.astype(np.float64), ids, weights)))
        # float32 roundings, which four steps of rate 0.5 carry along
        np.testing.assert_allclose(losses, expected[0], rtol=2e-5)
        np.testing.assert_allclose(kernel, expected[1], atol=2e-5)
        np.testing.assert_allclose(unit(bank), expected[2], atol=2e-5)


def test_a_step_that_is_not_finite_leaves_no_trace():
    model = InstanceDiscrimination(network(), N, "none")
    model.compile(pic_tf.LazySGD(RATE, max_updates=2))
    state = [*model.backbone.variables, model.classifier.weights_ring]
    before = [variable.numpy() for variable in state]
    views = np.full([B, 6], np.nan, np.float32)
    history = model.fit(tf.data.Dataset.from_tensors((views, np.arange(B))), verbose=0).history
    assert history["skipped"] == [1]
    for variable, value in zip(state, before):
        np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(ValueError, match="expected one view of each image, got 8 views of 4"):
        model.fit(tf.data.Dataset.from_tensors((np.ones([8, 6]), np.arange(B))), verbose=0)
