"""DIET, which is PIC with its settings, against its equations in float64."""

import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras as keras

import pic_tf
from pic_tf.replicas.collectives import distribute
from pic_tf.settings import defaults
from tests.baselines.test_instdisc import memory
from tests.baselines.test_simclr import network, slopes
from tests.processes import with_replicas
from tests.short_runs import SMALL, model_of

RATE, N, B, STEPS, SMOOTHING = 0.1, 7, 4, 3, 0.8  # the replicas have four images and three


def equations(kernel, rows, batches):
    """Losses, kernel and rows after all steps of (float64 views, ids)."""
    losses = []
    for views, ids in batches:
        target = (1 - SMOOTHING) * np.eye(N)[ids] + SMOOTHING / N

        def loss(kernel, rows, views=views, target=target):
            logits = views @ kernel @ rows.T
            chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            return -np.mean(np.sum(target * np.log(chances), 1))

        losses.append(loss(kernel, rows))
        of_kernel = slopes(lambda x, loss=loss, rows=rows: loss(x, rows), kernel)
        of_rows = slopes(lambda x, loss=loss, kernel=kernel: loss(kernel, x), rows)
        kernel, rows = kernel - RATE * of_kernel, rows - RATE * of_rows
    return losses, kernel, rows


def trained(strategy, views, ids):
    with strategy.scope():
        keras.utils.set_random_seed(3)
        kind = dict(temperature=1.0, similarity="dot", label_smoothing=SMOOTHING)
        model = pic_tf.PIC(network(), N, N, "none", **kind)
        model.compile(pic_tf.LazySGD(RATE, 0.0, 0.0, max_updates=STEPS))
    before = model.backbone.get_weights()[0], memory(model, strategy)

    def share(replica, count):
        own = ids[0] % count == replica  # in every step
        return tf.data.Dataset.from_tensor_slices((views[:, own], ids[:, own]))

    batches = distribute(strategy, share)
    history = model.fit(batches, steps_per_epoch=1, epochs=STEPS, verbose=0).history
    return before, history["loss"], model.backbone.get_weights()[0], memory(model, strategy)


def test_steps_on_one_replica_and_on_two():
    views = np.random.default_rng(0).normal(size=(STEPS, B, 6)).astype(np.float32)
    ids = np.array([[0, 1, 2, 3], [4, 5, 6, 1], [2, 3, 0, 5]])
    for run in (trained, lambda _, *batches: with_replicas(2, trained, *batches)):
        before, losses, kernel, rows = run(tf.distribute.get_strategy(), views, ids)
        first = [x.astype(np.float64) for x in before]
        expected = equations(*first, list(zip(views.astype(np.float64), ids)))
        # float32 roundings of numbers of about 1
        np.testing.assert_allclose(losses, expected[0], rtol=2e-6)
        np.testing.assert_allclose(kernel, expected[1], atol=2e-6)
        np.testing.assert_allclose(rows, expected[2], atol=2e-6)


def test_the_method_builds_this_model(shallow_networks):
    settings = dataclasses.replace(SMALL, method="diet", num_negatives=None)
    classifier = model_of(defaults.resolve(settings, 200)).classifier
    found = (classifier.similarity, classifier.label_smoothing, classifier.temperature)
    assert found == ("dot", 0.8, 1.0) and classifier.store is None  # all images are compared
