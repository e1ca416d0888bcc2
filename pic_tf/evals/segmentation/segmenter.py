"""A fully convolutional network on a ResNet, which classifies every pixel."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from pic_tf.evals.segmentation.masks import IGNORED
from pic_tf.evals.transfer.network import (
    Config,
    batch_normalisation,
    decaying,
    synchronised,
    update,
)
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.replicas.collectives import all_sum

_LAST_STAGE = "stage4_"  # conv5 of the published networks


class Segmenter(keras.Model):
    """FCN-16s: a ResNet whose last stage keeps its resolution, and a head of three convolutions.

    The 3 x 3 convolutions of the last stage (conv5) have dilation 2 and stride 1. The head has two
    3 x 3 convolutions with dilation 6, batch normalisation and ReLU, then classifies each place
    by a 1 x 1 convolution; its logits are resized bilinearly to the image. All layers learn, all
    batch normalisation takes the statistics of the batch, over all replicas.

    Args:
      backbone: a ResNet of `pic_tf.models.resnet`; its weights are copied.
      classes: C, number of classes.
      channels, dilation: of the two convolutions of the head.
      weight_decay: lambda, of kernels and biases; not of batch normalisation.
      seed: seed of the new layers.

    Source: He et al. 2019 (https://arxiv.org/abs/1911.05722), Appendix A.4.
    """

    def __init__(
        self,
        backbone: keras.Model,
        classes: int,
        channels: int = 256,
        dilation: int = 6,
        weight_decay: float = 1e-4,
        seed: int = 0,
    ):
        super().__init__(name="segmenter")
        self.weight_decay = weight_decay
        backbone = synchronised(backbone, _dilated)
        x = backbone.get_layer("features").input
        he = keras.initializers.VarianceScaling
        for i in range(2):
            start = he(2.0, "fan_out", "untruncated_normal", seed=seed + i)
            x = keras.layers.Conv2D(
                *(channels, 3, 1, "same"),
                dilation_rate=dilation,
                use_bias=False,
                kernel_initializer=start,
            )(x)
            x = keras.layers.ReLU()(batch_normalisation()(x))
        start = keras.initializers.RandomNormal(stddev=0.01, seed=seed + 2)
        logits = keras.layers.Conv2D(classes, 1, kernel_initializer=start)(x)
        self.network = keras.Model(backbone.input, logits)
        self._decaying = decaying(self)
        self.mean = keras.metrics.Mean("loss")
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.mean]

    def compile(self, optimizer: LazySGD, **kwargs: Any) -> None:
        """Take an optimizer without decay of its own: not every tensor decays."""
        super().compile(optimizer=optimizer, **kwargs)
        optimizer.build(self.trainable_variables)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Compute the logits of all pixels.

        Args:
          images: float32 [B, H, W, 3], normalised.
          training: whether batch normalisation takes the statistics of the batch.

        Returns:
          float32 [B, H, W, C].
        """
        logits = self.network(images, training=training)
        return tf.image.resize(logits, tf.shape(images)[1:3])

    def train_step(self, batch: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Update from a batch of `inputs.training_batches`.

        L = -sum_i log p_i(c_i) / M over the M pixels of all replicas that are not ignored.
        """
        images, labels = batch
        counts = labels != IGNORED
        count = tf.maximum(all_sum(tf.reduce_sum(tf.cast(counts, tf.float32))), 1.0)
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            classes = tf.where(counts, tf.cast(labels, tf.int32), 0)
            entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
            loss = tf.reduce_sum(tf.where(counts, entropies, 0.0)) / count
        gradients = tape.gradient(loss, self.trainable_variables)
        update(self, gradients, self._decaying, self.weight_decay)
        self.mean.update_state(all_sum(loss))
        return {"loss": self.mean.result()}


def _dilated(name: str, config: Config) -> Config:
    """Set stride 1 and dilation 2 in the configuration of a layer of the last stage."""
    if not name.startswith(_LAST_STAGE):
        return config
    if "kernel_size" in config:
        wide = tuple(config["kernel_size"]) == (3, 3)
        return config | {"strides": (1, 1), "dilation_rate": (2, 2) if wide else (1, 1)}
    # The 3 x 3 convolution behind it does not pad: twice as wide, it needs twice the padding.
    return config | {"padding": ((2, 2), (2, 2))} if name.endswith("_pad") else config
