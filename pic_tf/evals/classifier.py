"""Train a linear classifier on the features of a backbone, alone or with the backbone."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.normalisation import unit_range
from pic_tf.optim.lazy_sgd import LazySGD

TOP = 5  # classes that a prediction names


class Classifier(keras.Model):
    """Linear classifier, logits = W f(x) + b, with f fixed or trained along (fine-tuning).

    A fixed f is in inference mode: its batch statistics do not move.

    Args:
      network: f, float32 [b, H, W, n] in [0, 1], training: bool -> [b, C], with
        `trainable_variables`.
      feature_dim: C.
      labels: int64 [N] of the training images.
      classes: number of them.
      fine_tune: whether f is trained along; False for linear evaluation.
      layer_decay: rate of a block of f, as a share of that of the block behind it.
      backbone_rate: rate of the last block of f, as a share of that of W and b.
      weight_decay: lambda, of everything that is trained.
      flip_probability: probability of a horizontal flip of a training image.
      seed: seed of W.

    Raises:
      ValueError: for a network that has nothing to train where it should be.
    """

    def __init__(
        self,
        network: Callable[..., tf.Tensor],
        feature_dim: int,
        labels: np.ndarray,
        classes: int,
        *,
        fine_tune: bool,
        layer_decay: float,
        backbone_rate: float,
        weight_decay: float,
        flip_probability: float,
        seed: int,
    ):
        super().__init__(name="classifier")
        self.network, self.fine_tune = network, fine_tune
        self.weight_decay, self.flip_probability = weight_decay, flip_probability
        # MoCo's: small weights, so that the first steps see all classes alike.
        start = keras.initializers.RandomNormal(stddev=0.01, seed=seed)
        self.head = keras.layers.Dense(classes, kernel_initializer=start, name="head")
        self.head.build([None, feature_dim])
        self._labels = tf.constant(labels, tf.int64)
        self.mean_loss = keras.metrics.Mean("loss")
        self.mean_accuracy = keras.metrics.Mean("accuracy")
        backbone = list(network.trainable_variables) if fine_tune else []
        if fine_tune and not backbone:
            raise ValueError(
                "expected a backbone with trainable variables to fine-tune, "
                "got none: export it again"
            )
        shares = layer_rates([variable.name for variable in backbone], layer_decay, backbone_rate)
        self.trained = [*backbone, *self.head.trainable_variables]
        self._shares = [*shares, *[1.0] * len(self.head.trainable_variables)]
        # A saved state holds these beside the optimizer's momenta.
        self.state = [*(network.variables if fine_tune else []), *self.head.variables]
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.mean_loss, self.mean_accuracy]

    def compile(self, optimizer: LazySGD, **kwargs: Any) -> None:
        """Take an optimizer without decay of its own: the rate of a tensor counts for decay too."""
        super().compile(optimizer=optimizer, **kwargs)
        optimizer.build(self.trained)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Compute logits float32 [b, classes] of images float32 [b, H, W, n] in [0, 1]."""
        return self.head(self.network(images, training=training and self.fine_tune))

    def train_step(self, batch: tuple) -> dict[str, tf.Tensor]:
        """Update from a batch of `pretraining_batches`; images of weight 0 count for nothing."""
        ((views, random),), ids, weights = batch
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        flip = (random[:, 0] < self.flip_probability)[:, None, None, None]
        images = unit_range(views)
        images = tf.where(flip, tf.reverse(images, [2]), images)
        labels = tf.gather(self._labels, ids)
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(weights * losses) / tf.cast(tf.size(ids) * replicas, tf.float32)
        gradients = tape.gradient(loss, self.trained)
        # u <- m u + c (g + lambda w), w <- w - eta u: as if the rate of this tensor were c eta.
        decay = self.weight_decay / replicas  # the optimizer adds up the replicas' directions
        directions = [
            share * (gradient + decay * variable)
            for share, gradient, variable in zip(self._shares, gradients, self.trained)
        ]
        self.optimizer.apply_gradients(zip(directions, self.trained))
        self.mean_loss.update_state(losses, weights)
        self.mean_accuracy.update_state(tf.argmax(logits, 1) == labels, weights)
        return {metric.name: metric.result() for metric in self.metrics}

    def predict_step(self, images: tf.Tensor) -> tf.Tensor:
        """Predict the 5 most likely classes, int32 [b, 5], of levels [b, H, W, n] of images."""
        logits = self(unit_range(images), training=False)
        return tf.math.top_k(logits, min(TOP, logits.shape[-1])).indices


def layer_rates(names: Sequence[str], decay: float, last: float = 1.0) -> list[float]:
    """Compute the rates of a network's tensors, smaller towards the input.

    rate = last decay^(number of blocks behind the tensor's)

    The blocks are those of the tensors' names, in the order of their first appearance: a residual
    block is one, a transformer's block, its embedding of patches and positions, and so is each
    other layer with all its tensors.

    Args:
      names: names of the tensors, LAYER/TENSOR, those near the input first.
      decay: rate of a block as a share of that of the block behind it, in (0, 1].
      last: rate of the last block.

    Returns:
      One rate a tensor.

    Source: Clark et al. 2020 (https://arxiv.org/abs/2003.10555), Section 3.1 ("layerwise
    learning-rate decay").
    """
    blocks = [_block(name) for name in names]
    position = {block: i for i, block in enumerate(dict.fromkeys(blocks))}
    return [last * decay ** (len(position) - 1 - position[block]) for block in blocks]


def _block(name: str) -> str:
    layer = name.split("/")[0]
    if layer in ("patch_embed_proj", "tokens"):
        return "embedding"
    block = re.match(r"stem|stage\d+_block\d+|blocks_\d+", layer)  # of our networks
    return block[0] if block else layer
