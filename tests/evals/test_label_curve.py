"""Curves against scikit-learn alone, draws against counting, and what is written of them."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pic_tf.evals.label_curve import draw_curves, label_curve, table, write_curves
from pic_tf.evals.some_images import Extracted
from pic_tf.evals.subset import balanced

CLASSES = 3


def blobs(count, seed):
    """Three classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    features = rng.normal(size=(count, 6)) * [1, 1, 1, 2, 5, 9] + 2 * np.eye(6)[labels]
    return Extracted(features.astype(np.float32), labels)


def test_draws_are_balanced():
    labels = np.array([0] * 50 + [1] * 2 + [2] * 30)
    for seed in range(4):
        ids = balanced(labels, 9, seed)
        # Class 1 has but two; the seven others are four and three, by chance.
        assert sorted(np.bincount(labels[ids])) == [2, 3, 4] and np.bincount(labels[ids])[1] == 2
        assert len(set(ids)) == 9 and (np.diff(ids) > 0).all()
        assert np.bincount(labels[balanced(labels, 3, seed)]).tolist() == [1, 1, 1]
    assert len({tuple(balanced(labels, 9, seed)) for seed in range(8)}) == 8
    assert {balanced(labels, 1, seed)[0] // 50 for seed in range(9)} == {0, 1}  # of any class
    np.testing.assert_array_equal(balanced(labels, 99, 0), np.arange(82))


def test_accuracies_are_scikit_learns():
    bank, queries = blobs(60, 0), blobs(40, 1)
    curve = label_curve(bank, queries, (6, 12, 60, 900))
    assert [len(accuracies) for accuracies in curve.values()] == [5, 5, 1]
    assert list(curve) == [6, 12, 60]
    for n, accuracies in curve.items():
        for seed, accuracy in enumerate(accuracies):
            ids = balanced(bank.labels, n, seed)
            judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            judge.fit(bank.features[ids], bank.labels[ids])
            assert accuracy == judge.score(queries.features, queries.labels)
    assert 0.5 < curve[60][0] < 1 and np.std(curve[6]) > 0


CURVES = {
    "pretrained": {10: np.array([0.5, 0.7]), 4000: np.array([0.96])},
    "raw pixels": {10: np.array([0.25, 0.35]), 4000: np.array([0.875])},
}


def test_table():
    assert table(CURVES) == [
        "labels                      10          4,000",
        "pretrained       0.600 ± 0.100          0.960",
        "raw pixels       0.300 ± 0.050          0.875",
    ]


def test_files(tmp_path):
    write_curves(CURVES, tmp_path / "curve.csv")
    with open(tmp_path / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [0.5, 0.7, 0.96, 0.25, 0.35, 0.875]
    assert (rows[1]["features"], rows[1]["labels"], rows[1]["draw"]) == ("pretrained", "10", "1")
    draw_curves(CURVES, "title", tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 500 and len(set(picture.convert("RGB").getdata())) > 50


@pytest.mark.parametrize("count", [2, 3])
def test_a_class_without_a_label_is_never_answered(count):
    bank, queries = blobs(60, 0), blobs(40, 1)
    assert (label_curve(bank, queries, (count,))[count] < 1).all()
