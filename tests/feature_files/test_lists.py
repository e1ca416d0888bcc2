"""The diverse subset and the duplicates against brute force in float64."""

import itertools

import numpy as np
import pytest

from pic_tf.feature_files import duplicates, subset
from pic_tf.feature_files.duplicates import pairs_above
from pic_tf.feature_files.subset import k_centres


def unit(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


def distances(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(unit(rows)[:, None] - unit(rows)[None], axis=2)


def test_each_centre_is_the_farthest_from_those_before(monkeypatch):
    monkeypatch.setattr(subset, "_BLOCK", 7)  # several blocks
    rows = np.random.default_rng(0).normal(size=[40, 3]).astype(np.float32)
    chosen, remaining = k_centres(rows, 12)
    apart = distances(rows)
    assert chosen[0] == np.argmin(
        np.linalg.norm(unit(rows) - unit(unit(rows).mean(0)[None]), axis=1)
    )
    for n in range(1, 12):
        nearest = apart[:, chosen[:n]].min(1)
        assert chosen[n] == nearest.argmax()
        # Through 2 - 2 cos in float64.
        np.testing.assert_allclose(remaining[n - 1], nearest.max(), rtol=1e-9)
    np.testing.assert_array_equal(k_centres(rows, 5)[0], chosen[:5])


def test_no_choice_is_twice_as_good():
    """Against the best of all choices."""
    for seed in range(5):
        rows = np.random.default_rng(seed).normal(size=[11, 4]).astype(np.float32)
        apart = distances(rows)
        best = min(apart[:, choice].min(1).max() for choice in itertools.combinations(range(11), 3))
        assert best <= k_centres(rows, 3)[1][-1] <= 2 * best


def test_broken_images_are_not_chosen_and_copies_last():
    rows = np.repeat(np.random.default_rng(0).normal(size=[6, 3]).astype(np.float32), 2, axis=0)
    rows[[2, 7]] = np.nan
    chosen, remaining = k_centres(rows, 10)
    assert sorted(chosen) == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]
    assert sorted(chosen[:6] // 2) == [0, 1, 2, 3, 4, 5]
    # The root of a rounding error of 1e-16.
    assert remaining[4] > 0.01 and (remaining[5:] < 1e-7).all()


def test_copies_are_found_at_a_cosine_of_one():
    """In float32 the cosines of a third of such rows with themselves come out below 1."""
    rows = np.abs(np.random.default_rng(0).normal(size=[50, 2048])).astype(np.float32)
    pairs, _ = pairs_above(np.concatenate([rows, rows]), 1.0)
    assert sorted(map(tuple, pairs.tolist())) == [(i, 50 + i) for i in range(50)]


def test_pairs_above_a_cosine(monkeypatch):
    monkeypatch.setattr(duplicates, "_BLOCK", 8)  # several blocks
    rng = np.random.default_rng(1)
    rows = rng.normal(size=[30, 4]).astype(np.float32)
    rows[17], rows[29], rows[5] = 3 * rows[2], rows[2], np.nan
    pairs, cosines = pairs_above(rows, 0.8)
    exact = unit(rows) @ unit(rows).T
    expected = {(i, j) for i, j in zip(*np.nonzero(exact >= 0.8)) if i < j}
    assert set(map(tuple, pairs.tolist())) == expected and len(pairs) == len(expected) > 3
    np.testing.assert_allclose(cosines, exact[tuple(pairs.T)], atol=1e-6)  # float32
    assert (np.diff(cosines) <= 0).all()
    assert {(2, 17), (2, 29), (17, 29)} == set(map(tuple, pairs[:3].tolist()))
    monkeypatch.setattr(duplicates, "MOST", len(expected) - 1)
    with pytest.raises(
        ValueError, match=r"expected at most .* pairs .* of at least 0.8 .* raise i"
    ):
        pairs_above(rows, 0.8)
