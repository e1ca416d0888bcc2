"""Find out the scaling of images that a backbone carries in its first layers."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

INPUTS = ("normalised", "unit", "levels")
_SIDE = 8  # pixels, of the images to try where the backbone takes any
_LEAST_SPREAD = 0.5  # of scaled images: those of the wrong range end in far less


class InputScaling(NamedTuple):
    """The images that a backbone takes, and what its first layers make of them.

    Attributes:
      takes: "normalised" by ImageNet's channel means and deviations; or, where the backbone scales
        them itself, "unit", images in [0, 1], or "levels", images in [0, 255].
      mean, stddev: own scaling by channel, (x - mean) / stddev, of levels as shares of 255; None
        where it is of another form.
    """

    takes: str = "normalised"
    mean: tuple[float, ...] | None = (0.0, 0.0, 0.0)
    stddev: tuple[float, ...] | None = (1.0, 1.0, 1.0)


def input_scaling(backbone: keras.Model, takes: str | None = None) -> InputScaling:
    """Find the scaling of images in a backbone's first layers.

    The first layers without weights (`Rescaling`, `Lambda`, operators) and `Normalization` get
    images of one colour, and give y = A x + b. Where that brings [0, 1] to numbers around 0, the
    backbone takes "unit" images, where it does so with [0, 255], "levels".

    Args:
      backbone: Keras model of images [B, H, W, n]; of 3 channels where its inputs tell no number.
      takes: one of `INPUTS`, where it is known; None to find it out.

    Returns:
      The images that it takes, and its own scaling.

    Raises:
      ValueError: for another word, or where the range of the images cannot be told.
    """
    if takes not in (None, *INPUTS):
        raise ValueError(f"expected backbone_input to be one of {', '.join(INPUTS)}, got {takes!r}")
    colours, closed = _scaled(backbone)
    offset, matrix = colours[0], colours[1:-1] - colours[0]
    affine = np.allclose(offset + matrix.sum(0), colours[-1], rtol=1e-2, atol=1e-3)
    channels = colours.shape[1]
    if np.array_equal(colours, _colours(channels)):
        if closed and takes is None:
            raise ValueError(_unknown(f"{closed!r} first in it, which hides what it does"))
        return InputScaling(takes or "normalised", (0.0,) * channels, (1.0,) * channels)
    takes = takes or (_range(offset, matrix) if affine else None)
    if takes is None:
        raise ValueError(_unknown(f"first layers that bring 0 to {offset} and 1 to {colours[-1]}"))
    gain = np.diag(matrix).copy()
    if not affine or not np.array_equal(matrix, np.diag(gain)) or not gain.all():
        return InputScaling(takes, None, None)
    gain *= 255 if takes == "levels" else 1
    # Four digits: what was found in float32 has no more.
    mean, stddev = (np.round(x, 4) + 0.0 for x in (-offset / gain, 1 / gain))
    return InputScaling(takes, tuple(mean.tolist()), tuple(stddev.tolist()))


def _unknown(got: str) -> str:
    return (
        f"expected a backbone whose scaling of images can be told, got {got}: "
        "say what it was trained on, backbone_input='normalised', 'unit' for [0, 1] or 'levels' "
        "for [0, 255]"
    )


def _range(offset: np.ndarray, matrix: np.ndarray) -> str | None:
    """Choose the range that is scaled to numbers around 0; None for neither or a mere shift."""
    for takes, top in (("unit", 1.0), ("levels", 255.0)):
        low = np.mean(offset + top * np.minimum(matrix, 0).sum(0))
        high = np.mean(offset + top * np.maximum(matrix, 0).sum(0))
        slack = 0.05 * (high - low)
        if high - low >= _LEAST_SPREAD and low <= slack and high >= -slack:
            return takes
    return None


def channels_of(backbone: keras.Model) -> int:
    """Number of channels of a backbone's images; 3 where its inputs tell none."""
    shape = getattr(backbone, "input_shape", None)
    return (shape[-1] if isinstance(shape, tuple) else None) or 3


def _colours(channels: int) -> np.ndarray:
    """float32 [channels + 2, channels]: black, full in one channel alone each, and white."""
    rows = np.zeros([1, channels]), np.eye(channels), np.ones([1, channels])
    return np.concatenate(rows).astype(np.float32)


def _scaled(backbone: keras.Model) -> tuple[np.ndarray, str]:
    """Put images of one colour each through the first layers.

    Returns:
      (float64 [n + 2, n], name of a layer behind these whose insides cannot be looked into, or "").
    """
    sides = [side or _SIDE for side in getattr(backbone, "input_shape", [0] * 4)[1:3]]
    colours = _colours(channels_of(backbone))[:, None, None]
    images = tf.constant(np.broadcast_to(colours, [len(colours), *sides, colours.shape[-1]]))
    images, closed = _through(backbone, images)
    return images.numpy()[:, images.shape[1] // 2, images.shape[2] // 2].astype(np.float64), closed


def _through(model: keras.layers.Layer, images: tf.Tensor) -> tuple[tf.Tensor, str]:
    """Apply those first layers of a model that scale images, and go into models within it."""
    if not getattr(model, "_is_graph_network", False):
        return images, model.name
    tensor = model.inputs[0]
    while True:
        found = [
            (layer, node)
            for layer in model.layers
            for node in layer.inbound_nodes
            if any(tensor is given for given in node.keras_inputs)
        ]
        layer, node = found[0] if len(found) == 1 else (None, None)
        if (
            layer is None
            or len(node.keras_inputs) > 1
            or not _keeps_colours(layer, node.outputs, images.shape[-1])
        ):
            break
        tensor = node.outputs
    if tensor is not model.inputs[0]:
        images = keras.Model(model.inputs, tensor)(images, training=False)
    if isinstance(layer, keras.Model):
        return _through(layer, images)
    return images, "" if layer is None or _is_open(layer) else layer.name


def _keeps_colours(layer: keras.layers.Layer, outputs: tf.Tensor, channels: int) -> bool:
    """Whether a layer has no weights but those of a scaling, and images as its output."""
    scales = not layer.weights or isinstance(layer, keras.layers.Normalization)
    shape = getattr(outputs, "shape", None)
    return scales and _is_open(layer) and shape is not None and shape[3:] == [channels]


def _is_open(layer: keras.layers.Layer) -> bool:
    """Whether a layer is one of Keras' own, none that holds a whole network."""
    return type(layer).__module__.startswith(("tf_keras.", "keras."))
