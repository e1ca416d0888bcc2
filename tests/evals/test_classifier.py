"""The classifier of linear evaluation and fine-tuning against the same update in NumPy."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.linear_model import LogisticRegression

from pic_tf.evals.classifier import Classifier, layer_rates
from pic_tf.evals.logistic import logistic_regression
from pic_tf.models.vit import vit
from pic_tf.optim.lazy_sgd import LazySGD


def network():
    """x -> relu(x V) averaged over the image, with V [3, 4]."""
    inputs = keras.Input([2, 2, 3])
    return keras.Model(
        inputs,
        keras.layers.GlobalAveragePooling2D()(
            keras.layers.Dense(4, "relu", use_bias=False)(inputs)
        ),
    )


@pytest.mark.parametrize("fine_tune", [False, True])
def test_updates(fine_tune):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 2, 2, 3), dtype=np.uint8)
    labels, weights = rng.integers(0, 3, 6), np.array([1, 0, 1, 1, 1, 1], np.float32)
    random = np.ones([6, 10], np.float32)  # no image is mirrored
    backbone = network()
    model = Classifier(
        backbone, 4, labels, 3, fine_tune=fine_tune, layer_decay=1.0, backbone_rate=0.25, weight_decay=0.01,
        flip_probability=0.5, seed=0,
    )  # fmt: skip
    model.compile(LazySGD(0.5, 0.9, 0.0, 10))
    v, w, b = (x.numpy().astype(np.float64) for x in (*backbone.weights, *model.head.weights))
    uv, uw, ub = 0.0, 0.0, 0.0
    batch = (
        ((tf.constant(images), tf.constant(random)),),
        tf.range(6, dtype=tf.int64),
        tf.constant(weights),
    )
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(4), verbose=0)
    pixels = images.reshape(6, 4, 3) / 255
    for _ in range(4):
        hidden = pixels @ v
        features = np.maximum(hidden, 0).mean(1)
        p = np.exp(features @ w + b)
        p /= p.sum(1, keepdims=True)
        error = (p - np.eye(3)[labels]) * weights[:, None] / 6
        gv = np.einsum("bpc,bpf->cf", pixels, (hidden > 0) * (error @ w.T)[:, None] / 4)
        uw, ub = 0.9 * uw + features.T @ error + 0.01 * w, 0.9 * ub + error.sum(0) + 0.01 * b
        if fine_tune:
            uv = 0.9 * uv + 0.25 * (gv + 0.01 * v)
        v, w, b = v - 0.5 * uv, w - 0.5 * uw, b - 0.5 * ub
    for found, expected in zip((*backbone.weights, *model.head.weights), (v, w, b)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)  # float32 against float64


def test_layer_rates_fall_towards_the_input():
    names = [
        *(
            "stem_conv/kernel:0",
            "stem_bn/gamma:0",
            "stage1_block1_1_conv/kernel:0",
            "stage1_block1_2_bn/beta:0",
        ),
        *("stage1_block2_1_conv/kernel:0", "other/kernel:0", "other/bias:0"),
    ]
    assert layer_rates(names, 0.5, 0.8) == [0.1, 0.1, 0.2, 0.2, 0.4, 0.8, 0.8]


def test_layer_rates_of_a_transformer_fall_by_block():
    network = vit(dim=12, heads=3, patch=4, depth=3, grid=2)
    names = [variable.name for variable in network.trainable_variables]
    behind = {"norm": 0, "blocks_2": 1, "blocks_1": 2, "blocks_0": 3}
    behind |= {"patch_embed_proj": 4, "tokens": 4}
    for name, rate in zip(names, layer_rates(names, 0.5), strict=True):
        assert rate == 0.5 ** behind[re.match(r"blocks_\d|[a-z_]+", name)[0]], name


def test_logistic_regression_is_scikit_learns_on_scaled_features():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 5))
    labels, truth = rng.integers(0, 3, 200), rng.integers(0, 3, 300)
    features, queries = (
        centres[y] * 10 + 7 + 8 * rng.normal(size=(len(y), 5)) for y in (labels, truth)
    )
    probabilities, strength, *_ = logistic_regression(features, labels, queries, 0, strength=0.1)
    mean, std = features.mean(0), features.std(0)
    direct = LogisticRegression(C=0.1, max_iter=1000).fit((features - mean) / std, labels)
    # L-BFGS stops at a gradient of 1e-4.
    np.testing.assert_allclose(
        probabilities, direct.predict_proba((queries - mean) / std), atol=1e-3
    )
    assert strength == 0.1
    chosen, strength, *_ = logistic_regression(features, labels, queries, 0)
    assert 1e-5 <= strength <= 10 and np.mean(chosen.argmax(1) == truth) > 0.6
    for some in (labels > 0, labels >= 0):  # two classes, and all three
        found = logistic_regression(features[some], labels[some], queries, 0, strength=0.1)
        logits = queries @ found.kernel + found.bias
        exp = np.exp(logits - logits.max(1, keepdims=True))
        # The same numbers in float64, with the scaling in the weights.
        np.testing.assert_allclose(exp / exp.sum(1, keepdims=True), found.probabilities, atol=1e-9)
    with pytest.raises(ValueError, match="expected labelled images of at least 2 classes, got 1"):
        logistic_regression(features, np.zeros(200, np.int64), queries, 0)
