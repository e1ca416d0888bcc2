"""SimCLR: two views of an image find each other among all views of the batch."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from pic_tf.baselines.views_of_images import views_of_images
from pic_tf.instances.guarded_model import GuardedModel
from pic_tf.instances.health import ViewMetrics
from pic_tf.instances.loss import unit_rows
from pic_tf.models.probe import LinearProbe
from pic_tf.replicas.collectives import all_gather, index

_MASKED = -1e30  # a logit whose exponential is 0


class SimCLR(GuardedModel):
    """A simple framework for contrastive learning of visual representations.

    Two views of an image and step. The embedding z_i of a view must find that of the other view of
    its image among those of all other views of the batch, on all replicas (`nt_xent`).

        model = SimCLR(backbone)
        model.compile(LazySGD(WarmupCosine(0.06, total_steps)))
        model.fit(batches_of_two_views_and_instance_ids)

    Args:
      backbone: Keras model, images -> features [B, C], or [B, h, w, C] to average over h and w.
      head: see `projection_head`.
      hidden_dim: width of the mlp head's hidden layer.
      embedding_dim: D.
      temperature: tau; published for ImageNet is 0.1, for CIFAR-10 0.5.
      augment: function from images to views [2b, ...], the two of an image one after the other;
        None for images that are such views.
      probe: learns from labelled images which the batches bring along, and changes nothing else.

    Batch normalisation sees the two views of a replica's images together. The published code takes
    batch statistics over all devices: with several replicas they are smaller here.

    Source: Chen et al. 2020, https://arxiv.org/abs/2002.05709, Algorithm 1.
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: str = "mlp",
        hidden_dim: int = 2048,
        embedding_dim: int = 128,
        temperature: float = 0.1,
        augment: Callable | None = None,
        probe: LinearProbe | None = None,
        name: str = "simclr",
    ):
        network = backbone, head, hidden_dim, embedding_dim
        super().__init__(*network, augment, probe, ViewMetrics(), name)
        self.temperature = temperature

    def _step(self, views, instance_ids, weights) -> None:
        """Take the step of Algorithm 1."""
        views, statistics = views_of_images(views, instance_ids, 2), self.guard.snapshot()
        with tf.GradientTape() as tape:
            embedding = self(views, training=True)
            losses, correct = nt_xent(embedding, weights, self.temperature)
            of_views = tf.repeat(weights, 2)
            loss = self._share(of_views * losses)
            scaled = self.guard.scaled(loss)
        _, failed, _ = self._descend(tape, loss, scaled, statistics)
        self.step_metrics.update_views(losses, of_views, correct, ~failed)
        self.step_metrics.update_images(weights)


def nt_xent(
    embedding: tf.Tensor, weights: tf.Tensor, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the normalised, temperature-scaled cross-entropy of each view.

        l_i = -log( exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau) ),   s_ik = cos(z_i, z_k),

    j the other view of i's image, k over all 2B views of all replicas. A replica's loss is that of
    its own views; its gradient with respect to the views of the others goes to them, so the
    gradient is that of the sum of all replicas' losses.

    Args:
      embedding: float [2b, D], the two views of an image one after the other.
      weights: float32 [b], 0 for an image without loss, whose views are no negatives either.
      temperature: tau > 0.

    Returns:
      loss float32 [2b], and bool [2b], whether the other view came first.

    Source: https://arxiv.org/abs/2002.05709, Equation 1.
    """
    unit = unit_rows(tf.cast(embedding, tf.float32))
    everyone, there = all_gather(unit), all_gather(tf.repeat(weights, 2)) > 0  # [2B, D], [2B]
    count, total = tf.shape(unit)[0], tf.shape(everyone)[0]
    first = tf.cast(index(), tf.int32) * count
    own = first + tf.range(count)  # numbers of this replica's views among all, 2n and 2n + 1
    other = tf.bitwise.bitwise_xor(own, 1)
    number = tf.range(total)[None]
    compared = (there & (number != own[:, None])) | (number == other[:, None])
    logits = tf.matmul(unit, everyone, transpose_b=True) / temperature
    logits = tf.where(compared, logits, _MASKED)  # [2b, 2B]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(other, logits)
    return losses, tf.argmax(logits, axis=1, output_type=tf.int32) == other
