"""A detector on two replicas is the one of one replica: batch statistics and gradients are of all."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.evals.detection.detector import Detector, Proposals
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.replicas.collectives import distribute
from tests.evals.detection.test_protocol import tiny_network
from tests.processes import with_replicas

# So few boxes that all of them are drawn, whatever the random numbers.
NUMBERS = Proposals((12.0, 20.0), (1.0,), 4, 50, 5, 50, 5, 1000, 100)


def one_step(strategy, images, boxes):
    """Weights and moving averages after a step, the images shared out among the replicas."""
    with strategy.scope():
        model = Detector(tiny_network(), 2, NUMBERS, weight_decay=0.01)
        model.compile(LazySGD(0.1, 0.9, 0.0, 10))

    def batches(replica: int, replicas: int) -> tf.data.Dataset:
        own = slice(replica, None, replicas)
        count = len(images[own])
        there = np.ones([count, 2], bool)
        classes = np.tile(np.array([[0, 1]], np.int32), [count, 1])
        sizes, step = np.full([count, 2], 32, np.float32), np.zeros(count, np.int64)
        batch = (images[own], sizes, boxes[own], classes, there, step)
        return tf.data.Dataset.from_tensors(batch)

    model.fit(distribute(strategy, batches), steps_per_epoch=1, verbose=0)
    means = [v for v in model.non_trainable_variables if "moving_mean" in v.name]
    return [v.numpy() for v in [*model.trainable_variables, *means]]


@pytest.mark.slow
def test_a_step_is_the_same_on_any_number_of_replicas():
    rng = np.random.default_rng(0)
    images = rng.normal(size=[2, 32, 32, 3]).astype(np.float32)
    boxes = np.array(
        [[[4, 4, 16, 20], [10, 8, 30, 30]], [[2, 2, 14, 12], [12, 3, 31, 22]]], np.float32
    )
    one, two = (with_replicas(count, one_step, images, boxes) for count in (1, 2))
    assert len(one) == len(two) == 25
    for i, (a, b) in enumerate(zip(one, two)):
        # float32, sums in another order, behind four batch normalisations.
        np.testing.assert_allclose(a, b, atol=2e-5, err_msg=str(i))
    assert max(np.abs(a).max() for a in one) > 0.1
