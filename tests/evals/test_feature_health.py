"""RankMe against NumPy's singular values, cosines against a double loop, pairs of views against
their pixels.
"""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.augment import Augmentation, normalise
from pic_tf.data.crops import Crop
from pic_tf.data.sources.array import ArraySource
from pic_tf.evals import feature_health
from pic_tf.evals.feature_health import ViewPairs, closing_lines, rankme, view_cosines
from pic_tf.evals.some_images import SomeImages


def rank_by_singular_values(features):
    """Eq. 1 of the paper."""
    s = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    p = s / s.sum() + 1e-7
    return math.exp(-sum(x * math.log(x) for x in p))


@pytest.mark.parametrize("shape", [(300, 20), (12, 40), (50, 50)], ids=str)
def test_rankme_is_that_of_the_singular_values(shape):
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(1, 1, shape), 0) * rng.lognormal(0, 2, shape[1])
    features = features.astype(np.float32)
    # Eigenvalues of the products lose the singular values below 1e-8 of the largest: none here.
    assert rankme(features) == pytest.approx(rank_by_singular_values(features), rel=1e-6)


def test_rankme_of_known_spectra():
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(64, 8)))[0]  # 8 equal ones
    # 1e-7 for each singular value, times the logarithm of 1e7.
    assert rankme(basis) == pytest.approx(8, rel=1e-5)
    line = np.outer(np.arange(1.0, 33), np.ones(16, np.float32))
    # Here rounding stands for 15 singular values of 0: up to 1e-8 of the sum each.
    assert rankme(line) == pytest.approx(1, abs=1e-4)
    assert np.isfinite(rankme(np.zeros([5, 3])))


def test_rankme_takes_some_of_very_many(monkeypatch):
    monkeypatch.setattr(feature_health, "_SAMPLES", 10)
    features = np.random.default_rng(2).normal(size=(91, 4))
    assert rankme(features) == pytest.approx(rank_by_singular_values(features[::10]), rel=1e-6)


def test_cosines_are_means_over_all_pairs():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 7, 5)) + 0.5
    own, others = [], []
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            (own if i == j else others).append(a @ b / math.sqrt((a @ a) * (b @ b)))
    found = view_cosines(first.astype(np.float32), second.astype(np.float32))
    # Float32 holds the features, float64 all that follows.
    assert found.of_views == pytest.approx(np.mean(own), abs=1e-6)
    assert found.of_images == pytest.approx(np.mean(others), abs=1e-6)
    assert len(own) == 7 and len(others) == 42
    assert np.isnan(view_cosines(first[:1], second[:1])).all()


def figures(rank, of_views, of_images):
    return {"rankme": rank, "cosine_of_views": of_views, "cosine_of_images": of_images}


@pytest.mark.parametrize("rank, of_images, collapsed", [(30, 0.5, 0), (1.2, 0.5, 1), (30, 1, 1)])
def test_a_collapse_is_told(rank, of_images, collapsed):
    lines = closing_lines(figures(rank, 0.9, of_images), 64)
    assert lines[0].startswith(f"features       RankMe {rank:.1f} of 64, cosine 0.900 of views, ")
    assert [line.startswith("warning: the features have collapsed") for line in lines[1:]] == [
        True
    ] * collapsed
    assert closing_lines({"knn": 0.5}, 64) == ()


class Broken(ArraySource):
    """PNG files, the first of which is text."""

    def read(self, instance_ids):
        files = [io.BytesIO() for _ in self.images]
        for image, file in zip(self.images, files):
            Image.fromarray(image).save(file, "png")
        encoded = [b"text", *(file.getvalue() for file in files[1:])]
        return tf.gather(tf.constant(encoded), instance_ids)


@pytest.mark.parametrize("kind, used", [(ArraySource, 6), (Broken, 5)])
def test_pairs_are_two_views_of_each_image(kind, used):
    """Images of one level each: a view tells its image, whatever its window."""
    levels = np.array([250, 10, 60, 110, 160, 210], np.uint8)
    source = kind(np.broadcast_to(levels[:, None, None, None], (6, 9, 9, 3)).copy())
    seen = []

    def features(views):
        seen.append(views.numpy())
        return np.eye(256)[np.rint((views.numpy()[:, 0, 0, 0] * 0.229 + 0.485) * 255).astype(int)]

    pairs = ViewPairs(source, Crop(4), lambda views, _: normalise(views), seed=0)
    assert pairs.cosines(features) == (1, 0)
    assert seen[0].shape == (12, 4, 4, 3)
    assert {features(tf.constant(v[None])).argmax() for v in seen[0]} == {*levels[6 - used :]}


def test_pairs_are_augmented_and_the_same_ones_again():
    source = ArraySource(np.random.default_rng(4).integers(0, 256, (8, 12, 12, 3), np.uint8))
    pairs = ViewPairs(source, Crop(6), Augmentation(), seed=1)
    seen = []
    cosines = [pairs.cosines(lambda v: seen.append(v.numpy()) or v.numpy().reshape(len(v), -1))]
    cosines.append(pairs.cosines(lambda v: seen.append(v.numpy()) or v.numpy().reshape(len(v), -1)))
    np.testing.assert_array_equal(*seen)
    assert cosines[0] == cosines[1]
    assert -1 < cosines[0].of_views < 0.99  # two views, not one twice


def test_some_images_are_a_fixed_draw_with_their_labels():
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    source = ArraySource(images, np.arange(20) * 3)
    some = SomeImages(source, 7, seed=5, image_size=2, eval_crop=1.0, max_broken=0.0)
    found = some.extract(lambda batches: np.concatenate([b.numpy()[:, 0, 0, :1] for b in batches]))
    assert len(found.features) == 7
    np.testing.assert_array_equal(found.features[:, 0] * 3, found.labels)
