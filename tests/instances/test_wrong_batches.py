"""Batches and steps that are refused: the sentence comes first, and no state moves."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.lars import LARS
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.pic import PIC
from tests.instances.test_ring import B, C, make, state

INVALID = tf.errors.InvalidArgumentError
X, IDS, ONES = np.ones([B, C], np.float32), np.arange(B), np.ones(B, np.float32)


@pytest.fixture(scope="module", params=[False, True], ids=["", "jit"])
def trained(request):
    """A model that has taken a step, and its batches' shapes are not known beforehand."""
    model, _ = make(24, 0.3)
    model.compile(model.optimizer, jit_compile=request.param)
    fit(model, (X, IDS))
    return model


def fit(model, batch, known=False):
    data = tf.data.Dataset.from_tensors(tuple(map(tf.constant, batch)))
    if not known:
        unknown = [tf.TensorSpec([None] * x.shape.rank, x.dtype) for x in data.element_spec]
        data = tf.data.Dataset.from_generator(lambda: [batch], output_signature=tuple(unknown))
    model.fit(data, verbose=0)


@pytest.mark.parametrize(
    "batch, error, sentence",
    [
        ((X, IDS + 0.5), ValueError, "expected instance ids that are integers, got float64"),
        ((X, IDS.astype(np.float32)), ValueError, "expected instance ids that are integers, got f"),
        ((X, IDS > 3), ValueError, "expected instance ids that are integers, got bool"),
        ((X, IDS.astype(str)), ValueError, "expected instance ids that are integers, got string"),
        ((X, IDS[:, None]), ValueError, r"expected instance ids of shape \[images of the batch\]"),
        ((X, IDS + 93), INVALID, "expected instance ids from 0 to 95, got 100$"),
        ((X, IDS - 3), INVALID, "expected instance ids from 0 to 95, got -3$"),
        (
            (X, IDS.astype(np.uint64) + 2**63),
            INVALID,
            "expected instance ids from 0 to 95, got -92",
        ),
        ((X[:5], IDS), INVALID, "expected as many images as instance ids, .* got 5 of 8 ids$"),
        ((X, IDS[:3]), INVALID, "expected as many images as instance ids, .* got 8 of 3 ids$"),
        ((X, IDS, -ONES), INVALID, "expected weights >= 0 of images, got -1$"),
        ((X, IDS, ONES * np.nan), INVALID, "expected weights >= 0 of images, got nan$"),
        ((X, IDS, ONES[:4]), INVALID, "expected as many weights as instance ids, got 4 and 8$"),
        ((np.ones([32, C], np.float32), np.arange(32)), INVALID, "expected at most 24 images a ba"),
    ],
)
def test_a_batch_that_is_wrong(trained, batch, error, sentence):
    before = [variable.numpy() for variable in state(trained)]
    with pytest.raises(error, match=r"^" + sentence):
        fit(trained, batch)
    for variable, value in zip(state(trained), before):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("batch", [(X[:5], IDS), (X, IDS, ONES[:4])])
def test_shapes_that_are_known_are_refused_before_the_step(batch):
    model, _ = make(24, 0.3)
    with pytest.raises(ValueError, match=r"expected as many (images|weights) as instance ids"):
        fit(model, batch, known=True)
    assert int(model.optimizer.iterations) == 0


def test_views_that_an_augmentation_makes_are_counted():
    encoder = keras.Sequential([keras.Input([C]), keras.layers.Dense(4)])
    model = PIC(encoder, 96, 24, head="none", augment=lambda images: images[1:])
    model.compile(LazySGD(0.3, max_updates=2))
    with pytest.raises(INVALID, match=r"^expected as many images as instance ids, .* 7 of 8 ids$"):
        fit(model, (X, IDS))
    assert int(model.optimizer.iterations) == 0 and np.all(model.classifier.ids.numpy() == -1)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_history_ends_before_a_step_and_a_rate_below_zero_takes_none(jit_compile):
    model, _ = make(24, 0.3)
    model.compile(LazySGD(0.3, max_updates=3), jit_compile=jit_compile)
    for _ in range(3):
        fit(model, (X, IDS))
    before = [variable.numpy() for variable in state(model)]
    with pytest.raises(INVALID, match=r"^expected at most max_updates=3 steps of LazySGD"):
        fit(model, (X, IDS))
    model.optimizer.iterations.assign(2)
    model.optimizer.learning_rate.assign(-0.1)
    with pytest.raises(INVALID, match=r"^expected a learning rate >= 0, got -0.1"):
        fit(model, (X, IDS))
    model.optimizer.iterations.assign(3)
    model.optimizer.learning_rate.assign(0.3)
    for variable, value in zip(state(model), before):
        np.testing.assert_array_equal(variable, value)


def test_held_out_images_are_refused_before_training():
    model, _ = make(24, 0.3)
    for given in ({"validation_data": (X, IDS)}, {"validation_split": 0.5}):
        with pytest.raises(ValueError, match="expected fit without validation data, got some"):
            model.fit(X, IDS, verbose=0, **given)
    with pytest.raises(ValueError, match=r"^expected fit without class_weight, got some"):
        model.fit(X, IDS, verbose=0, class_weight={0: 1.0, 1: 2.0})
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("name", ["loss", "metrics", "loss_weights", "weighted_metrics"])
def test_settings_without_effect_are_refused(name):
    model, _ = make(24, 0.3)
    before = model.optimizer
    with pytest.raises(ValueError, match=f"expected compile without loss, .* got {name}: "):
        model.compile(LazySGD(0.1), **{name: ["mse"]})
    assert model.optimizer is model.lazy_sgd is before


@pytest.mark.parametrize("name", ["momentum", "coupled_weight_decay", "weight_decay"])
def test_what_a_step_is_traced_with_stays(name):
    optimizer = LazySGD(0.1, max_updates=2)
    with pytest.raises(AttributeError, match=f"expected {name} to stay as LazySGD was made"):
        setattr(optimizer, name, 0.5)
    with pytest.raises(AttributeError, match="expected a number as another learning rate, got a s"):
        optimizer.learning_rate = WarmupCosine(0.1, 10)
    optimizer.learning_rate = 0.2
    assert float(optimizer.learning_rate) == np.float32(0.2)


class Adam:
    """Stands for an optimizer of Keras 3."""


def test_parts_of_another_keras_are_refused():
    model, _ = make(24, 0.3)
    with pytest.raises(TypeError, match=r"expected a backbone of tf_keras, got .*Adam: import pic"):
        PIC(Adam(), 96)
    with pytest.raises(TypeError, match=r"expected a backbone_optimizer of tf_keras, got .*Adam"):
        model.compile(LazySGD(0.1), Adam())
    with pytest.raises(ValueError, match="expected another optimizer as backbone_optimizer"):
        model.compile(model.optimizer, model.optimizer)
    with pytest.raises(TypeError, match="a LearningRateSchedule of tf_keras, got <lambda>"):
        LazySGD(lambda step: 0.1)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate):
    for optimizer in (LazySGD, LARS):
        with pytest.raises(ValueError, match="expected learning_rate >= 0, got"):
            optimizer(rate)
