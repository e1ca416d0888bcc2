"""A segmenter on two replicas is the one of one replica: batch statistics, the mean over pixels that
count, and gradients are of all.
"""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.evals.segmentation.segmenter import Segmenter
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.replicas.collectives import distribute
from tests.evals.detection.test_protocol import tiny_network
from tests.processes import with_replicas


def one_step(strategy, images, labels):
    """Weights, moving averages and the loss, the images shared out among the replicas."""
    with strategy.scope():
        model = Segmenter(tiny_network(), 3, channels=8, weight_decay=0.01)
        model.compile(LazySGD(0.1, 0.9, 0.0, 10))

    def batches(replica: int, replicas: int) -> tf.data.Dataset:
        own = slice(replica, None, replicas)
        return tf.data.Dataset.from_tensors((images[own], labels[own]))

    loss = model.fit(distribute(strategy, batches), steps_per_epoch=1, verbose=0).history["loss"]
    means = [v for v in model.non_trainable_variables if "moving_mean" in v.name]
    return [v.numpy() for v in [*model.trainable_variables, *means]] + loss


@pytest.mark.slow
def test_a_step_is_the_same_on_any_number_of_replicas():
    rng = np.random.default_rng(0)
    images = rng.normal(size=[2, 32, 32, 3]).astype(np.float32)
    labels = rng.integers(0, 3, [2, 32, 32]).astype(np.uint8)
    labels[0, :24] = 255  # one replica has a third of the pixels of the other
    one, two = (with_replicas(count, one_step, images, labels) for count in (1, 2))
    assert len(one) == len(two) == 17 + 5 + 1
    for i, (a, b) in enumerate(zip(one, two)):
        # float32, sums in another order, behind five batch normalisations.
        np.testing.assert_allclose(a, b, atol=2e-5, err_msg=str(i))
    assert max(np.abs(a).max() for a in one) > 0.1
