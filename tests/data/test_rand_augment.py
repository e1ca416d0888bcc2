"""RandAugment against keras-cv's own layers, against NumPy, PIL and SciPy, and as a pure function of its numbers."""

import copy
import functools
import itertools

import keras_cv
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from keras_cv.core import ConstantFactorSampler
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats
from tensorflow.python.framework import op_def_registry

from pic_tf.data import rand_augment
from pic_tf.data.augment import normalise
from pic_tf.data.rand_augment import RandAugment

MEAN = np.array([0.485, 0.456, 0.406])
STDDEV = np.array([0.229, 0.224, 0.225])
LEVELS = (0, 255)
NAMES = "auto-contrast equalize solarize colour contrast brightness shear-x shear-y translate-x translate-y".split()
CASES = [(0.3, 0.0), (0.3, 0.8), (0.9, 0.2), (0.9, 0.97)]  # magnitude, share of the interval


def natural_images(count, height, width, seed=0):
    """uint8 [B, H, W, 3] of smooth colours with noise, not using the whole range."""
    rng = np.random.default_rng(seed)
    images = ndimage.gaussian_filter(rng.normal(128, 90, [count, height, width, 3]), (0, 1, 1, 0))
    return np.clip(images, 12, 240).astype(np.uint8)


def uniform(count, seed=0):
    return tf.random.stateless_uniform([count, 10], [seed, 0])


def numbers(*draws, flip=0.9):
    """float32 [1, 10] that make these draws: (number of the operation, strength in [0, 1))."""
    random = np.full([1, 10], 0.5, np.float32)
    random[0, 0] = flip
    for i, (operation, strength) in enumerate(draws):
        random[0, 1 + 2 * i : 3 + 2 * i] = (operation + 0.5) / 11, strength
    return tf.constant(random)


def levels(view):
    """float64 [H, W, 3] in 0..255 of a normalised view [1, H, W, 3]."""
    return 255 * (np.asarray(view[0], np.float64) * STDDEV + MEAN)


class Fixed:
    """Takes the place of a layer's random generator: always the same share of the interval."""

    def __init__(self, share):
        self.share = share

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=tf.float32):
        return tf.fill(shape, tf.cast(minval + (maxval - minval) * self.share, dtype))


@functools.cache
def policy(magnitude):
    return keras_cv.layers.RandAugment.get_standard_policy(LEVELS, magnitude, 0.0, seed=1)


def keras_cv_layer(operation, magnitude, strength):
    """A layer of keras-cv's standard policy that draws this strength, a share of the interval it draws from."""
    layer = copy.copy(policy(magnitude)[operation])
    layer._random_generator = Fixed(1 - strength if NAMES[operation].startswith("shear") else strength)
    for name in ("factor", "x_factor", "y_factor", "addition_factor", "threshold_factor"):
        sampler = getattr(layer, name, None)
        if isinstance(sampler, keras_cv.core.UniformFactorSampler):
            value = sampler.lower + (sampler.upper - sampler.lower) * strength
            setattr(layer, name, ConstantFactorSampler(value))
    return layer


def test_each_operation_is_that_of_keras_cv():
    """Its own layers, called as layers, eagerly; they draw from intervals, of which we take the same shares.

    keras-cv turns a shear round where its number is above 1/2, we where ours is below; both are as likely.
    """
    for (operation, name), (magnitude, strength) in itertools.product(enumerate(NAMES), CASES):
        image = natural_images(1, 14, 20, seed=operation)
        settings = RandAugment(augmentations_per_image=1, magnitude=magnitude)
        got = settings(tf.constant(image), numbers((operation, strength)))
        expected = keras_cv_layer(operation, magnitude, strength)(tf.constant(image, tf.float32))
        # float32 roundings of strengths and of levels up to 255, divided by 255 and by the standard deviation.
        np.testing.assert_allclose(got, normalise(expected), atol=2e-5, err_msg=f"{name} {magnitude} {strength}")


def resampled(image, matrix, offset):
    """Bilinear, reflected outside; `matrix` and `offset` lead from (row, column) of the result to that of the image."""
    planes = [
        ndimage.affine_transform(image[..., c].astype(float), matrix, offset, order=1, mode="reflect") for c in range(3)
    ]
    return np.stack(planes, axis=-1)


def expected_levels(operation, image, magnitude, strength):
    """float64 [H, W, 3] without keras-cv."""
    pil, (height, width, _) = Image.fromarray(image), image.shape
    signed, sign = magnitude * (2 * strength - 1), -magnitude if strength < 0.5 else magnitude
    if operation == "auto-contrast":
        return np.asarray(ImageOps.autocontrast(pil), float)
    if operation == "solarize":
        brighter = np.minimum(image + 110 * magnitude, 255)
        return np.where(brighter < 255 - 255 * magnitude, brighter, 255 - brighter)
    if operation == "colour":
        return np.asarray(ImageEnhance.Color(pil).enhance(1 - magnitude), float)
    if operation == "contrast":
        mean = image.mean(axis=(0, 1))
        return np.clip(mean + (1 + signed) * (image - mean), 0, 255)
    if operation == "brightness":
        return np.clip(image + 255 * signed, 0, 255)
    if operation == "shear-x":
        return resampled(image, [[1, 0], [sign, 1]], [0, 0])
    if operation == "shear-y":
        return resampled(image, [[1, sign], [0, 1]], [0, 0])
    if operation == "translate-x":
        return resampled(image, [[1, 0], [0, 1]], [0, -signed * width])
    return resampled(image, [[1, 0], [0, 1]], [-signed * height, 0])


# Levels: PIL rounds its table of auto-contrast, and for colour the gray level and the result, downwards; the others are
# float32 roundings, in translations of coordinates up to 20, between neighbours that differ by up to 150 levels.
TOLERANCES = {"auto-contrast": 1.0, "colour": 1.5, "solarize": 1e-3, "contrast": 1e-3, "brightness": 1e-3}


def test_each_operation_without_keras_cv():
    image = natural_images(1, 14, 20, seed=1)
    for (operation, name), (magnitude, strength) in itertools.product(enumerate(NAMES), CASES):
        if name == "equalize":
            continue  # below
        settings = RandAugment(augmentations_per_image=1, magnitude=magnitude)
        got = levels(settings(tf.constant(image), numbers((operation, strength))))
        expected = expected_levels(name, image[0], magnitude, strength)
        message = f"{name} {magnitude} {strength}"
        np.testing.assert_allclose(got, expected, atol=TOLERANCES.get(name, 5e-3), err_msg=message)


def test_equalize_against_pil():
    """PIL counts all pixels but those of the lightest level, keras-cv but those of the rarest; here the step is 2."""
    for seed in range(3):
        image = natural_images(1, 24, 24, seed)
        got = levels(RandAugment(augmentations_per_image=1)(tf.constant(image), numbers((1, 0.5))))
        expected = np.asarray(ImageOps.equalize(Image.fromarray(image[0])), float)
        np.testing.assert_allclose(got, expected, atol=1e-3)  # whole levels, normalised and back


@pytest.mark.parametrize("draws", [[(9, 0.3), (6, 0.1)], [(1, 0.5), (4, 0.9)], [(10, 0.5), (2, 0.5)]])
def test_draws_come_one_after_another(draws):
    """Two in a row, where 10 is nothing, against layers of keras-cv in a row; and mirrored."""
    image = natural_images(1, 14, 20)
    got = RandAugment()(tf.constant(image), numbers(*draws, flip=0.2))
    expected = tf.constant(image[:, :, ::-1], tf.float32)
    for operation, strength in draws:
        expected = expected if operation == 10 else keras_cv_layer(operation, 0.9, strength)(expected)
    np.testing.assert_allclose(got, normalise(expected), atol=2e-5)  # as above


def test_without_draws_or_with_nothing_drawn():
    images, random = tf.constant(natural_images(24, 12, 12)), uniform(24).numpy()
    flipped = random[:, 0, None, None, None] < 0.5
    expected = normalise(tf.where(flipped, images[:, :, ::-1], images))
    np.testing.assert_array_equal(RandAugment(augmentations_per_image=0)(images, tf.constant(random)), expected)
    random[:, 1:5] = np.nextafter(np.float32(1), np.float32(0))  # 11 of these is rounded to 11
    np.testing.assert_array_equal(RandAugment()(images, tf.constant(random)), expected)


def test_choices_are_uniform_and_independent(monkeypatch):
    """Each operation, and nothing, with 1/11 in each of two draws, whatever the other is."""

    def digits(magnitude, random):
        return [lambda image, i=i: 16 * image + i for i in range(1, 11)]

    monkeypatch.setattr(rand_augment, "_operations", digits)
    count = 4000
    views = RandAugment()(tf.zeros([count, 1, 1, 3], tf.uint8), uniform(count, seed=1))
    found = np.rint(255 * (np.asarray(views)[:, 0, 0] * STDDEV + MEAN))[:, 0]
    # One digit where one draw or the other is nothing.
    shares = (
        {16 * a + b: 1 for a, b in itertools.product(range(1, 11), repeat=2)} | dict.fromkeys(range(1, 11), 2) | {0: 1}
    )
    assert set(found) <= set(shares) and len(shares) == 111
    counts = [np.sum(found == code) for code in shares]
    assert stats.chisquare(counts, count * np.array(list(shares.values())) / 121).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_flips_are_met(probability):
    """4,000 images of 1 x 2 that nothing else changes; 0.036 is 4.5 standard deviations at most."""
    images = tf.constant(np.tile(np.array([[[[0] * 3, [255] * 3]]], np.uint8), [4000, 1, 1, 1]))
    views = RandAugment(probability, augmentations_per_image=0)(images, uniform(4000, seed=2))
    assert abs(np.mean(views[:, 0, 0, 0] > 0) - probability) < 0.036


def test_an_image_does_not_depend_on_the_others():
    """Other neighbours, another sequence, another size of the batch: the same bits."""
    images, random = tf.constant(natural_images(60, 12, 12)), uniform(60, seed=3)
    assert len(np.unique(np.floor(11 * random.numpy()[:, 1:5:2]))) == 11  # every operation is among them
    shapes = [tf.TensorSpec([None, 12, 12, 3], tf.uint8), tf.TensorSpec([None, 10], tf.float32)]
    augment = tf.function(RandAugment(), input_signature=shapes)
    whole = augment(images, random).numpy()
    for some in (np.random.default_rng(0).permutation(60), np.arange(60)[::-3], [7], [7, 7, 3]):
        np.testing.assert_array_equal(augment(tf.gather(images, some), tf.gather(random, some)), whole[some])


def test_eager_graph_and_dataset_agree():
    """To the bit, also where tf.data runs several at once."""
    images, random = tf.constant(natural_images(24, 12, 12)), uniform(24, seed=5)
    settings = RandAugment()
    eager = settings(images, random)
    np.testing.assert_array_equal(tf.function(settings)(images, random), eager)
    batches = tf.data.Dataset.from_tensor_slices((images, random)).batch(5).map(settings, num_parallel_calls=4)
    assert batches.element_spec.shape[1:] == [12, 12, 3]
    np.testing.assert_array_equal(np.concatenate(list(batches.as_numpy_iterator())), eager)


def stateful_operations(function, *arguments):
    """Kinds of operations with a state in the graph of a function and of all that it calls."""
    graph = tf.function(function).get_concrete_function(*arguments).graph.as_graph_def()
    called = {function.signature.name for function in graph.library.function}
    nodes = itertools.chain(graph.node, *(function.node_def for function in graph.library.function))
    return {kind for kind in {node.op for node in nodes} - called if op_def_registry.get(kind).is_stateful}


def test_no_operation_has_a_hidden_state():
    images, random = tf.TensorSpec([None, 12, 12, 3], tf.uint8), tf.TensorSpec([None, 10], tf.float32)
    assert not stateful_operations(RandAugment(), images, random)
    # Inside a loop, as in ours, one would be seen.
    assert "RandomUniform" in stateful_operations(lambda: tf.map_fn(lambda _: tf.random.uniform([]), tf.zeros([2])))


def test_inside_a_keras_train_step():
    """The loss is the mean of the view, so that fit returns what the augmentation made."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.augmentation = RandAugment()
            self.scale = self.add_weight(name="scale", shape=[], initializer="ones")

        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = self.scale * tf.reduce_mean(self.augmentation(*data))
            self.optimizer.minimize(loss, [self.scale], tape)
            return {"loss": loss}

    model = Model()
    model.compile(keras.optimizers.SGD(0.0))
    images, random = tf.constant(natural_images(24, 12, 12)), uniform(24, seed=7)
    history = model.fit(tf.data.Dataset.from_tensors((images, random)), epochs=2, verbose=0).history
    expected = np.mean(RandAugment()(images, random))
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)  # float32 sums of some 10,000 terms


def test_levels_stay_float32_in_a_model_of_less_precision():
    images, random = tf.constant(natural_images(24, 12, 12)), uniform(24, seed=8)
    settings = RandAugment()
    expected = settings(images, random)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    rand_augment._layer.cache_clear()
    try:
        got = tf.function(rand_augment._augmented.python_function)  # traced anew
        flipped = tf.where(random[:, 0, None, None, None] < 0.5, images[:, :, ::-1], images)
        got = got(tf.cast(flipped, tf.float32), tf.reshape(random[:, 1:5], [-1, 2, 2]), 0.9)
    finally:
        keras.mixed_precision.set_global_policy("float32")
        rand_augment._layer.cache_clear()
    np.testing.assert_array_equal(normalise(got), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augmentations_per_image": 5}, "expected augmentations_per_image from 0 to 4, got 5: "),
        ({"augmentations_per_image": -1}, "expected augmentations_per_image from 0 to 4, got -1: "),
        ({"augmentations_per_image": 1.5}, "expected augmentations_per_image from 0 to 4, got 1.5: "),
        ({"magnitude": 9}, "expected magnitude from 0 to 1, got 9: divide the paper's M by 10"),
        ({"flip_probability": -0.5}, "expected flip_probability from 0 to 1, got -0.5"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        RandAugment(**settings)
