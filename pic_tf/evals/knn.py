"""Weighted nearest-neighbour classification in feature space."""

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from pic_tf.files.progress import drawing_interval

# Rows compared at once: 64 MiB of cosines, whatever the number of images.
_QUERIES, _BANK = 1024, 16384


def nearest(
    bank: np.ndarray, queries: np.ndarray, k: int, progress: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k rows of `bank` of highest cosine with each query; among equals the first.

    Both may be mapped from files: the bank is read once, in blocks, and memory does not grow with
    its length.

    Args:
      bank: float [n, C].
      queries: float [q, C].
      k: neighbours; at most n are found.
      progress: title of a progress bar; "" for none.

    Returns:
      (cosines float32 [q, min(k, n)] in falling order, rows of the bank int64 [q, min(k, n)]).
    """
    k = min(k, len(bank))
    best = np.full([len(queries), k], -np.inf, np.float32)
    rows = np.zeros([len(queries), k], np.int64)
    blocks = range(0, len(bank), _BANK)
    for first in tqdm(blocks, progress, disable=not progress, mininterval=drawing_interval()):
        block = _normalised(bank[first : first + _BANK])
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            cosines = tf.matmul(_normalised(queries[part]), block, transpose_b=True)
            cosines, found = tf.math.top_k(cosines, min(k, len(block)))
            # Earlier blocks first: then the order among equals does not depend on the blocks.
            cosines = tf.concat([best[part], cosines], 1)
            found = np.concatenate([rows[part], found.numpy() + first], 1)
            best[part], order = (x.numpy() for x in tf.math.top_k(cosines, k))
            rows[part] = np.take_along_axis(found, order, 1)
    return best, rows


def vote(cosines: np.ndarray, labels: np.ndarray, classes: int, temperature: float) -> np.ndarray:
    """Sum the neighbours' votes for each class: exp((s - s_1) / T), s a neighbour's cosine.

    Args:
      cosines: float32 [q, k] of the neighbours.
      labels: int64 [q, k] of the neighbours.
      classes: number of classes.
      temperature: T.

    Returns:
      float64 [q, classes].

    Source: Wu et al. 2018 (https://arxiv.org/abs/1805.01978), Section 3.4. The shift by the
    largest s_1 cancels, and however small T is the nearest neighbour has a vote.
    """
    votes = np.zeros([len(labels), classes])
    queries = np.arange(len(labels))[:, None]
    behind = cosines.astype(np.float64) - cosines.max(axis=1, keepdims=True)
    np.add.at(votes, (queries, labels), np.exp(behind / temperature))
    return votes


def most_likely(scores: np.ndarray) -> np.ndarray:
    """int64 [n, 5], classes by falling scores [n, classes], the first ones first among equals."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :5]


def knn_predictions(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    classes: int,
    k: int,
    temperature: float,
    progress: str = "",
) -> np.ndarray:
    """Predict classes by the votes of the k nearest neighbours.

    Args:
      bank: float32 [n, C] features of labelled images.
      bank_labels: int64 [n].
      queries: float32 [q, C].
      classes: number of classes.
      k: neighbours that vote; at most n are taken.
      temperature: T of their votes.
      progress: as of `nearest`.

    Returns:
      int64 [q, 5], the most likely class first.
    """
    cosines, rows = nearest(bank, queries, k, progress)
    parts = [slice(start, start + _QUERIES) for start in range(0, len(queries), _QUERIES)]
    votes = (vote(cosines[part], bank_labels[rows[part]], classes, temperature) for part in parts)
    return np.concatenate([most_likely(of_part) for of_part in votes])


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Compute the accuracy of the votes of the k nearest neighbours.

    Args:
      bank: float32 [n, C] features of labelled images.
      bank_labels: int64 [n].
      queries: float32 [q, C].
      query_labels: int64 [q].
      k: neighbours that vote; at most n are taken.
      temperature: T of their votes.

    Returns:
      Accuracy in [0, 1].

    Source: see `vote`; k = 20 and T = 0.07 on ImageNet are common since.
    """
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    predictions = knn_predictions(bank, bank_labels, queries, classes, k, temperature)
    return int(np.sum(predictions[:, 0] == query_labels)) / len(queries)


def _normalised(features: np.ndarray) -> tf.Tensor:
    return tf.math.l2_normalize(tf.constant(features, tf.float32), axis=1)
