"""Groups of a batch with batch statistics of their own, as if each were on its own device."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from pic_tf.replicas import collectives


def in_groups(
    embed: Callable[[tf.Tensor], tf.Tensor],
    views: tf.Tensor,
    groups: int,
    statistics: Sequence[tf.Variable],
) -> tf.Tensor:
    """Embed each group of views by itself, in the mode of training.

    Running statistics move to the mean of what they would be after each group alone, as those of
    replicas do.

    Args:
      embed: views [n, ...] -> float [n, D].
      views: [b, ...], group after group.
      groups: how many there are; a divisor of b.
      statistics: variables that `embed` may move.

    Returns:
      float32 [b, D].

    Source: the published code of MoCo for one device (its notebook for CIFAR-10), class
    SplitBatchNorm.
    """
    if groups == 1:
        return tf.cast(embed(views), tf.float32)
    moving = [variable for variable in statistics if variable.dtype.is_floating]
    before = [tf.identity(variable) for variable in moving]

    def of_group(group: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        for variable, value in zip(moving, before):
            variable.assign(value)
        embedding = tf.cast(embed(group), tf.float32)
        return embedding, [variable - value for variable, value in zip(moving, before)]

    each = tf.TensorSpec([None, None]), [tf.TensorSpec(v.shape, v.dtype) for v in moving]
    # One after another: they share the running statistics.
    by_group = tf.stack(tf.split(views, groups))
    embedding, changes = tf.map_fn(
        of_group, by_group, parallel_iterations=1, fn_output_signature=each
    )
    for variable, value, change in zip(moving, before, changes):
        variable.assign(value + tf.reduce_mean(change, axis=0))
    return tf.concat(tf.unstack(embedding, groups), axis=0)


def shuffled(
    embed: Callable[[tf.Tensor], tf.Tensor], views: tf.Tensor, seed: int, step: tf.Tensor
) -> tf.Tensor:
    """Embed views of all replicas in another order, and bring the embeddings back into theirs.

    Args:
      embed: views [b, ...] -> embedding [b, D].
      views: [b, ...], this replica's.
      seed: with the step it decides the order, the same on all replicas.
      step: int64 scalar.

    Returns:
      [b, D], the embedding of each view.

    Source: He et al. 2019, https://arxiv.org/abs/1911.05722, Section 3.3.
    """
    everyone = collectives.all_gather(views)
    key = tf.stack([tf.constant(seed, tf.int64), step])
    order = tf.argsort(tf.random.stateless_uniform(tf.shape(everyone)[:1], key), stable=True)
    here = collectives.own_part(tf.gather(everyone, order))
    embedding = collectives.all_gather(embed(here))
    return collectives.own_part(tf.gather(embedding, tf.argsort(order)))
