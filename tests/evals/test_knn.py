"""kNN against a loop over queries and neighbours."""

import collections
import math

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.augment import normalise
from pic_tf.evals import knn
from pic_tf.evals.features import inference, raw_pixels
from pic_tf.evals.knn import knn_accuracy, vote
from pic_tf.models.resnet import resnet


def looped(bank, bank_labels, queries, query_labels, k, temperature):
    right = 0
    for query, label in zip(queries, query_labels):
        cosines = [
            float(np.dot(query, b) / np.linalg.norm(query) / np.linalg.norm(b)) for b in bank
        ]
        votes = collections.Counter()
        for j in sorted(range(len(bank)), key=lambda j: -cosines[j])[:k]:
            votes[bank_labels[j]] += math.exp(cosines[j] / temperature)
        right += max(votes, key=votes.get) == label
    return right / len(queries)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (5, 0.07), (20, 0.5), (1000, 0.1)])
def test_accuracy(k, temperature):
    rng = np.random.default_rng(k)
    centres = rng.normal(size=(4, 8))
    bank_labels, query_labels = (
        rng.integers(0, 4, 90),
        rng.integers(0, 4, 300),
    )  # more than a chunk of queries
    bank = centres[bank_labels] + 1.5 * rng.normal(size=(90, 8))
    queries = centres[query_labels] + 1.5 * rng.normal(size=(300, 8))
    accuracy = knn_accuracy(bank, bank_labels, queries, query_labels, k, temperature)
    assert accuracy == looped(bank, bank_labels, queries, query_labels, k, temperature)
    assert 0.3 < accuracy < 1


def test_the_nearest_neighbour_has_a_vote_however_small_the_temperature_is():
    cosines, labels = np.array([[0.6, 0.5, 0.4]], np.float32), np.array([[2, 1, 1]])
    np.testing.assert_array_equal(vote(cosines, labels, 3, 1e-4), [[0.0, 0.0, 1.0]])


def test_nearest_in_blocks_equals_a_sort_of_all_cosines(monkeypatch):
    """Blocks smaller than k, a bank that is no multiple of them, and equal rows on both sides of
    their border.
    """
    monkeypatch.setattr(knn, "_BANK", 7)
    monkeypatch.setattr(knn, "_QUERIES", 4)
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(45, 5)).astype(np.float32)
    bank[[3, 6, 7, 20, 44]] = bank[3]  # bit for bit the same, so their cosines are too
    queries = np.concatenate([bank[[3]], rng.normal(size=(10, 5)).astype(np.float32)])
    cosines, rows = knn.nearest(bank, queries, 10)
    exact = (queries.astype(np.float64) @ bank.T.astype(np.float64)) / (
        np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(bank, axis=1)
    )
    np.testing.assert_allclose(
        cosines, -np.sort(-exact, axis=1)[:, :10], atol=1e-6
    )  # a few roundings of float32
    assert rows[0, :5].tolist() == [3, 6, 7, 20, 44]  # the first ones first among equals
    for found, query in zip(rows, exact):
        assert len(set(found)) == 10
        np.testing.assert_allclose(np.sort(query[found]), np.sort(query)[-10:], atol=1e-6)


def test_raw_pixels_of_large_views_are_shrunk():
    """Rows of one value each: the mean of eight rows stays, which PIL's filter keeps away from
    the edges.
    """
    images = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None, None], 256, axis=2).repeat(
        3, axis=3
    )
    pixels = raw_pixels(tf.data.Dataset.from_tensors(images)).reshape(32, 32, 3) * 0.229 + 0.485
    np.testing.assert_allclose(
        255 * pixels[1:-1, 5, 0], 8 * np.arange(1, 31) + 3.5, rtol=1e-4
    )  # float32


def test_features_use_inference_statistics_and_keep_the_order():
    backbone = resnet(18, "small", 4)
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
    before = backbone.get_weights()
    of_views = inference(backbone)
    features = np.concatenate([of_views(normalise(batch)) for batch in batches])
    assert features.shape == (10, 32)
    for one, other in zip(before, backbone.get_weights()):
        np.testing.assert_array_equal(one, other)
    alone = of_views(normalise(tf.constant(images[7:8])))
    np.testing.assert_allclose(
        features[7], alone[0], rtol=1e-5, atol=1e-6
    )  # float32, another batch size
    mean, stddev = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(
        raw_pixels(batches), ((images / 255 - mean) / stddev).reshape(10, -1), rtol=1e-5, atol=1e-5
    )
