"""Weighted nearest-neighbour classification in feature space."""

import numpy as np
import tensorflow as tf

_CHUNK = 256  # queries compared with the bank at once


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of queries whose k nearest neighbours vote for the right class.

    Each of the k neighbours of highest cosine s votes for its class with weight exp(s / T).

    Args:
      bank: float32 [n, C] features of labelled images.
      bank_labels: int64 [n].
      queries: float32 [q, C].
      query_labels: int64 [q].
      k: neighbours that vote; at most n are taken.
      temperature: T.

    Returns:
      Accuracy in [0, 1].

    Source: Wu et al. 2018 (https://arxiv.org/abs/1805.01978), Section 3.4; k = 20 and T = 0.07 on
    ImageNet are common since.
    """
    bank = tf.math.l2_normalize(tf.constant(bank, tf.float32), axis=1)
    labels = tf.constant(bank_labels, tf.int64)
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    k = min(k, len(bank_labels))
    right = 0
    for start in range(0, len(queries), _CHUNK):
        chunk = tf.math.l2_normalize(tf.constant(queries[start : start + _CHUNK], tf.float32), axis=1)
        similarity, neighbours = tf.math.top_k(tf.matmul(chunk, bank, transpose_b=True), k)
        weight = tf.exp((similarity - 1.0) / temperature)  # the shift cancels and keeps small T finite
        votes = tf.reduce_sum(weight[:, :, None] * tf.one_hot(tf.gather(labels, neighbours), classes), axis=1)
        right += int(np.sum(tf.argmax(votes, axis=1).numpy() == query_labels[start : start + _CHUNK]))
    return right / len(queries)
