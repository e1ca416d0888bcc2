"""MoCo v2: a view finds the key of another view of its image among a queue of older keys."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from pic_tf.baselines.batch_groups import in_groups, shuffled
from pic_tf.baselines.views_of_images import views_of_images
from pic_tf.instances.first_weights import initial_rows
from pic_tf.instances.guarded_model import GuardedModel, features_of
from pic_tf.instances.health import ViewMetrics
from pic_tf.instances.loss import unit_rows
from pic_tf.models.probe import LinearProbe
from pic_tf.replicas import collectives


class MoCo(GuardedModel):
    """Momentum contrast, version 2.

    Two views of an image and step. The query q of the one must find the key k+ of the other among
    the keys of the last K images:

        loss = -log( exp(q.k+ / tau) / (exp(q.k+ / tau) + sum_{k in queue} exp(q.k / tau)) ).

    Keys come from a second encoder, which follows the first: theta_k <- m theta_k + (1 - m) theta.

    A network could tell k+ by the batch statistics that it shares with q. So batches are cut into
    groups with statistics of their own, and keys change places between the groups, over all
    replicas too.

    Args:
      backbone: Keras model, images -> features [B, C], or [B, h, w, C] to average over h and w.
      num_negatives: K, the length of the queue.
      head: see `projection_head`.
      hidden_dim: width of the mlp head's hidden layer.
      embedding_dim: D.
      temperature: tau.
      encoder_momentum: m.
      batch_groups: groups of a batch over all replicas, a multiple of their number.
      augment: function from images to views [2b, ...], the two of an image one after the other;
        None for images that are such views.
      seed: of the queue's first keys and of the groups.
      probe: learns from labelled images which the batches bring along, and changes nothing else.

    Attributes:
      queue: float32 [K, D], keys of length 1, the same on all replicas.
      oldest: int64 scalar, the place of the oldest key.

    Raises:
      ValueError: for values out of range.

    Source: He et al. 2019, https://arxiv.org/abs/1911.05722, Algorithm 1; Chen et al. 2020,
    https://arxiv.org/abs/2003.04297.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_negatives: int = 65536,
        head: str = "mlp",
        hidden_dim: int = 2048,
        embedding_dim: int = 128,
        temperature: float = 0.2,
        encoder_momentum: float = 0.999,
        batch_groups: int = 8,
        augment: Callable | None = None,
        seed: int = 0,
        probe: LinearProbe | None = None,
        name: str = "moco",
    ):
        network = backbone, head, hidden_dim, embedding_dim
        super().__init__(*network, augment, probe, ViewMetrics(), name)
        replicas = collectives.count()
        if batch_groups < 1 or batch_groups % replicas:
            raise ValueError(
                f"expected batch_groups to be a multiple of the {replicas} replicas, got "
                f"{batch_groups}"
            )
        self.num_negatives, self.temperature = num_negatives, temperature
        self.encoder_momentum, self.seed = encoder_momentum, seed
        self.groups = batch_groups // replicas
        self.key_backbone, self.key_projection = _copy(backbone), _copy(self.projection)
        queries, keys = (backbone, self.projection), (self.key_backbone, self.key_projection)
        self.of_queries = [in_groups(network, self.groups) for network in queries]
        self.of_keys = [in_groups(network, self.groups) for network in keys]
        ids, dim = tf.range(num_negatives, dtype=tf.int64), self.projection.output_shape[-1]
        first = unit_rows(initial_rows(ids, dim, 1.0, seed))
        self.queue = collectives.local_variable(lambda: first, "queue")
        self.oldest = collectives.local_variable(lambda: tf.constant(0, tf.int64), "oldest")

    def _step(self, views, instance_ids, weights) -> None:
        """Take the step of Algorithm 1."""
        views, statistics = views_of_images(views, instance_ids, 2), self.guard.snapshot()
        step, queue = tf.identity(self.lazy_sgd.iterations), tf.identity(self.queue)
        embed_keys = functools.partial(self._embed, *self.of_keys)
        keys = tf.stop_gradient(shuffled(embed_keys, views[1::2], self.seed, step))
        with tf.GradientTape() as tape:
            queries = self._embed(*self.of_queries, views[0::2])
            losses, correct = info_nce(queries, keys, queue, self.temperature)
            loss = self._share(weights * losses)
            scaled = self.guard.scaled(loss)
        finite, failed, _ = self._descend(tape, loss, scaled, statistics)
        self._enqueue(keys, finite)
        self._follow(finite)
        self.step_metrics.update_views(losses, weights, correct, ~failed)
        self.step_metrics.update_images(weights)

    def _embed(self, backbone: keras.Model, projection: keras.Model, views: tf.Tensor) -> tf.Tensor:
        """Compute embeddings float32 [b, D] of length 1."""
        features = features_of(backbone, views, training=not self.backbone_frozen)
        return unit_rows(tf.cast(projection(features, training=True), tf.float32))

    def _enqueue(self, keys: tf.Tensor, finite: tf.Tensor) -> None:
        """Let the keys of all replicas take the places of the oldest ones."""
        keys = collectives.all_gather(keys)
        count = tf.shape(keys, out_type=tf.int64)[0]
        places = (self.oldest + tf.range(count)) % self.num_negatives
        before = collectives.gather_rows(self.queue, places)
        collectives.scatter_rows(self.queue, places, tf.where(finite, keys, before))
        moved = (self.oldest + count) % self.num_negatives
        self.oldest.assign(tf.where(finite, moved, self.oldest))

    def _follow(self, finite: tf.Tensor) -> None:
        """Move the encoder of the keys towards that of the queries, which is the next step's."""
        m = tf.where(finite, self.encoder_momentum, 1.0)
        queries = self.backbone.weights + self.projection.weights
        keys = self.key_backbone.weights + self.key_projection.weights
        # Of all, in one order whatever is frozen: layers may have been unfrozen since.
        trained = self.backbone.trainable_weights + self.projection.trainable_weights
        trained = {id(variable) for variable in trained}
        for key, query in zip(keys, queries):
            if id(query) not in trained:
                continue
            value = m * tf.convert_to_tensor(key) + (1.0 - m) * tf.convert_to_tensor(query)
            # In this replica: all have the same value, and the strategy has nothing to average.
            tf.raw_ops.AssignVariableOp(resource=key.handle, value=value)

    @property
    def own_state(self) -> dict[str, Any]:
        """Encoder of the keys, and the queue."""
        encoder = {"key_backbone": self.key_backbone, "key_projection": self.key_projection}
        return encoder | {"queue": self.queue, "oldest_key": self.oldest}

    def _statistics(self) -> list[tf.Variable]:
        keys = self.key_backbone.non_trainable_weights + self.key_projection.non_trainable_weights
        return super()._statistics() + keys

    def _checks(self, instance_ids: tf.Tensor) -> list[tf.Operation]:
        groups, most = self.groups, self.num_negatives // collectives.count()
        expected = f"expected a multiple of {groups} images (batch_groups), at most {most} "
        expected += "(num_negatives), a batch and replica, got"
        number, count = instance_ids.shape[0], tf.size(instance_ids)
        if number is not None and (number % groups or number > most):
            raise ValueError(f"{expected} {number}")
        return [tf.debugging.Assert((count % groups == 0) & (count <= most), [expected, count])]


def info_nce(
    queries: tf.Tensor, keys: tf.Tensor, queue: tf.Tensor, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the cross-entropy of each query between its key and the queue.

    Args:
      queries: float32 [b, D], of length 1.
      keys: float32 [b, D], of length 1, the key of each query.
      queue: float32 [K, D], of length 1.
      temperature: tau > 0.

    Returns:
      loss float32 [b], and bool [b], whether the own key came first.

    Source: https://arxiv.org/abs/1911.05722, Equation 1.
    """
    own = tf.reduce_sum(queries * keys, axis=1, keepdims=True)
    logits = tf.concat([own, tf.matmul(queries, queue, transpose_b=True)], axis=1) / temperature
    first = tf.zeros(tf.shape(queries)[:1], tf.int32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(first, logits)
    return losses, tf.argmax(logits, axis=1, output_type=tf.int32) == first


def _copy(network: keras.Model) -> keras.Model:
    """Copy a network with its weights."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy
