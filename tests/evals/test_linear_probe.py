"""The linear probe trained by SGD agrees with scikit-learn's logistic regression on the same
features.
"""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pic_tf.data.augment import normalise
from pic_tf.data.sources.array import digits
from pic_tf.evals.protocols import evaluate, open_labelled
from pic_tf.evals.settings import EvaluationSettings, resolve
from pic_tf.models.resnet import resnet
from pic_tf.runs import open_data
from pic_tf.serving.exported import open_exported
from pic_tf.serving.saved_model import export_backbone
from pic_tf.settings.config import Config
from pic_tf.training import loop

ONE = tf.distribute.get_strategy()  # one replica
DECAY = 1e-3  # lambda of the probe; it makes the solution unique, and finite
# Found with the update in NumPy on these features: with a peak rate of 2 for 256 images the 1,380
# steps of 64 images end where three orders of the images differ by 0 to 0.7 points from each other
# and from scikit-learn.
PROBE = {
    "protocol": "linear",
    "solver": "sgd",
    "dataset": "digits",
    "image_size": 8,
    "eval_crop": 1.0,
    "crop_scale": (1.0, 1.0),  # the central crop too
    "flip_probability": 0.0,
    "epochs": 60,
    "batch_size": 64,
    "learning_rate": 2.0,
    "weight_decay": DECAY,
    "eval_every": 60,
}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Random weights with the batch statistics of the images.

    With the usual gammas of 0 only one corner of an image of 8 pixels reaches the features: it is
    black in two of three digits, and which class a classifier gives to all of these together hangs
    by a hair.
    """
    keras.utils.set_random_seed(0)
    backbone = resnet(18, "small", 8)
    for variable in backbone.trainable_weights:
        if "gamma" in variable.name:
            variable.assign(tf.ones_like(variable))
    see, images = (
        tf.function(lambda images: backbone(normalise(images), training=True)),
        digits("train").images,
    )
    for i in range(30):
        see(tf.constant(images[40 * i : 40 * i + 128]))
    path = tmp_path_factory.mktemp("untrained") / "backbone"
    export_backbone(backbone, path, trained_size=8)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run on the digits, without labels."""
    config = Config(
        epochs=10,
        batch_size=64,
        num_negatives=256,
        backbone="resnet18",
        stem="small",
        width=8,
        hidden_dim=64,
        embedding_dim=64,
        image_size=8,
        crop_scale=(0.3, 1.0),
        flip_probability=0.0,
        jitter=(0.4, 0.4, 0.0, 0.0),
        grayscale_probability=0.0,
        blur_probability=0.0,
        learning_rate=0.24,
        eval_crop=1.0,
        knn_every=0,
        tensorboard=False,
        output_dir=str(tmp_path_factory.mktemp("trained")),
    )
    assert loop.run(*open_data.open_data(config), ONE).finished
    return pathlib.Path(config.output_dir)


def agrees(model, output, at_least):
    """The probe's accuracy and scikit-learn's, of features that the SavedModel gives."""
    exported = open_exported(model)
    settings = resolve(
        EvaluationSettings(model=str(model), output_dir=str(output), **PROBE), exported
    )
    found = evaluate(settings, exported, *open_labelled(settings), ONE)

    serve = tf.saved_model.load(exported.path).signatures["serving_default"]
    x, queries = (
        serve(images=tf.constant(digits(split).images / 255, tf.float32))["features"]
        .numpy()
        .astype(np.float64)
        for split in ("train", "held_out")
    )
    labels, truth = digits("train").labels, digits("held_out").labels
    # mean loss + lambda/2 |W|^2 is, 1/lambda times, scikit-learn's |W|^2 / 2 + C sum of losses.
    strength = 1 / (DECAY * len(labels))
    # On one thread: for matrices as small as these more of them wait for each other, for a minute
    # where others compute.
    with threadpool_limits(1):
        regression = LogisticRegression(C=strength, max_iter=3000, tol=1e-6).fit(x, labels)
        accuracy = regression.score(queries, truth)
        # The same but for b, which scikit-learn does not decay; as the weight of a feature that is
        # 1 it does.
        ones = LogisticRegression(C=strength, max_iter=3000, tol=1e-6, fit_intercept=False)
        decayed = ones.fit(np.c_[x, np.ones(len(x))], labels).score(
            np.c_[queries, np.ones(len(queries))], truth
        )
    print(f"probe {found.top1:.4f}, scikit-learn {accuracy:.4f}, with b decayed {decayed:.4f}")
    # 0.01 is three of the 297 images: some lie between two classes, and the last steps still move
    # them.
    np.testing.assert_allclose(found.top1, [accuracy, decayed], atol=0.01)
    assert found.top1 > at_least  # of ten classes
    assert found.confusion.sum() == 297


def test_on_an_untrained_backbone(untrained, tmp_path):
    agrees(untrained, tmp_path, 0.4)


@pytest.mark.slow
def test_on_a_trained_backbone(trained, tmp_path):
    agrees(trained, tmp_path, 0.6)
