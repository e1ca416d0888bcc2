"""Instance discrimination: a view finds its image in a memory bank of all images."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from pic_tf.baselines.views_of_images import views_of_images
from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.loss import unit_rows
from pic_tf.instances.row_model import RowModel
from pic_tf.models.probe import LinearProbe
from pic_tf.replicas import collectives


class InstanceDiscrimination(RowModel):
    """Unsupervised feature learning via non-parametric instance discrimination.

    One view an image and step, every image its own class. The row v of an image is no weight but
    the memory of its embeddings z:

        loss = -log( exp(v_y.z / tau) / sum_{j < N} exp(v_j.z / tau) ),
        v_y <- m v_y + (1 - m) z, made as long as 1 again,

    with z of length 1. The soft-max is exact; the published code estimates it by noise-contrastive
    estimation with 4,096 negatives.

    Args:
      backbone: Keras model, images -> features [B, C], or [B, h, w, C] to average over h and w.
      num_instances: N, number of training images; ids are 0 ... N - 1.
      head: see `projection_head`; the published one is "linear".
      hidden_dim: width of the mlp head's hidden layer.
      embedding_dim: D.
      temperature: tau.
      bank_momentum: m.
      augment: function from images to the backbone's input, one view of each; or None.
      seed: of the first memory, random directions.
      probe: learns from labelled images which the batches bring along, and changes nothing else.

    Attributes:
      classifier: the bank, as the rows of an `InstanceClassifier` with K = N, without momentum.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, Sections 3.1 and 3.2; the update of
    the bank: the published code.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_instances: int,
        head: str = "linear",
        hidden_dim: int = 2048,
        embedding_dim: int = 128,
        temperature: float = 0.07,
        bank_momentum: float = 0.5,
        augment: Callable | None = None,
        seed: int = 0,
        probe: LinearProbe | None = None,
        name: str = "instance_discrimination",
    ):
        network = backbone, head, hidden_dim, embedding_dim
        super().__init__(*network, augment, probe, name=name)
        self.bank_momentum = bank_momentum
        dim = self.projection.output_shape[-1]
        self.classifier = InstanceClassifier(
            num_instances, dim, num_instances, temperature, seed=seed
        )

    def _step(self, views, instance_ids, weights) -> None:
        """Take the step, and remember the embeddings."""
        views, statistics = views_of_images(views, instance_ids, 1), self.guard.snapshot()
        places, moved = self.classifier.admit(instance_ids, self.lazy_sgd)
        bank = tf.identity(self.classifier.weights_ring)
        with tf.GradientTape() as tape:
            embedding = self(views, training=True)
            losses, correct = self.classifier(embedding, bank, places)
            loss = self._share(weights * losses)
            scaled = self.guard.scaled(loss)
        finite, failed, _ = self._descend(tape, loss, scaled, statistics)

        before, m = tf.gather(bank, places), self.bank_momentum
        embedding = unit_rows(tf.cast(embedding, tf.float32))
        after = unit_rows(m * unit_rows(before) + (1.0 - m) * embedding)
        seen = finite & (weights > 0)
        memory = tf.where(seen[:, None], after, before)
        collectives.scatter_rows(self.classifier.weights_ring, places, memory)

        self.step_metrics.update_views(losses, weights, correct, ~failed)
        self.step_metrics.update_images(weights)
        self.step_metrics.update_rows(moved, self.classifier.ids >= 0)
