"""Build backbones by name: networks of tf_keras.applications, of keras-cv, transformers, yours."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import tf_keras as keras

from pic_tf.models.keras_cv_presets import check_preset, preset_network
from pic_tf.models.vit import parse_vit, vit

APPLICATIONS, KERAS_CV, OURS = "applications:", "keras_cv:", "ours:"
# Word of --initial_weights for published weights -> the networks that have them.
PUBLISHED = {"imagenet": APPLICATIONS, "preset": KERAS_CV}


def check_name(name: str) -> None:
    """Check that there is a network of a name, without building it.

    Args:
      name: "applications:NAME", "keras_cv:PRESET", "ours:vit_..." or "module.path:function".

    Raises:
      ValueError: where there is none.
    """
    if name.startswith(OURS):
        parse_vit(name.removeprefix(OURS))
        return
    if name.startswith(KERAS_CV):
        check_preset(name.removeprefix(KERAS_CV))
        return
    if not name.startswith(APPLICATIONS):
        _own_function(name)
        return
    wanted = name.removeprefix(APPLICATIONS)
    if wanted not in applications():
        names = sorted(applications())
        close = difflib.get_close_matches(wanted, names, 3, 0)
        raise ValueError(
            f"expected --backbone={APPLICATIONS}NAME of one of {len(names)} networks, got "
            f"{wanted!r}: {', '.join(close)} are some of them"
        )


def named_backbone(
    name: str,
    mean: tuple[float, ...],
    stddev: tuple[float, ...],
    weights: str | None = None,
    channels: int = 3,
) -> keras.Model:
    """Build a network that ends in features; feature maps are averaged over h and w.

    Networks of tf_keras.applications and of keras-cv get levels from 0 to 255 of normalised images
    x, that is 255 (x stddev + mean), and scale these as they were published.

    Args:
      name: as of `check_name`.
      mean, stddev: those by which each channel was normalised.
      weights: a key of `PUBLISHED`; None for random ones.
      channels: channels of the images; 3 for networks of tf_keras.applications and of keras-cv.

    Returns:
      Model from images [B, H, W, channels], normalised by channel, to features [B, C].

    Raises:
      ValueError: for a name without a network, or a function that returns none or one for another
        number of channels.
    """
    check_name(name)
    network = _network(name, weights, channels, (mean, stddev))
    if len(network.output_shape) == 2:
        return network
    average = keras.layers.GlobalAveragePooling2D(name="features")
    return keras.Model(network.inputs, average(network.output), name=network.name)


def _network(
    name: str, weights: str | None, channels: int, scale: tuple[tuple[float, ...], ...]
) -> keras.Model:
    if name.startswith(APPLICATIONS):
        builder, preprocess = applications()[name.removeprefix(APPLICATIONS)]
        images, levels = _levels(*scale)
        network = builder(include_top=False, pooling="avg", weights=weights)
        # `call` applies layer by layer. With input_tensor, ConvNeXt and RegNet would start at its
        # source, the images, and so pass over the scaling.
        return keras.Model(images, network.call(preprocess(levels)), name=network.name)
    if name.startswith(KERAS_CV):
        images, levels = _levels(*scale)
        network = preset_network(name.removeprefix(KERAS_CV), weights is not None)
        return keras.Model(images, network(levels), name=network.name)
    if name.startswith(OURS):
        return vit(*parse_vit(name.removeprefix(OURS)), channels=channels)
    network = _own_function(name)()
    if not isinstance(network, keras.Model):
        raise ValueError(
            f"expected a model of tf_keras from {name!r}, got {type(network).__name__}: return a "
            "tf_keras.Model from images [B, H, W, 3] to features"
        )
    takes = network.input_shape[-1]
    if takes not in (None, channels):
        raise ValueError(
            f"expected a model for images of {channels} channels from {name!r}, got one for "
            f"{takes}: build another one, or set --channels={takes}"
        )
    return network


@functools.cache
def applications() -> dict[str, tuple[Callable[..., keras.Model], Callable[..., Any]]]:
    """List name -> (builder, scaling of levels) of the networks of tf_keras.applications.

    Without NASNet, whose cells fit each other only where it is built for one size of images.
    """
    found = inspect.getmembers(keras.applications, inspect.isfunction)
    builders = {name: builder for name, builder in found if not name.startswith("NASNet")}
    modules = {name: importlib.import_module(x.__module__) for name, x in builders.items()}
    return {name: (x, modules[name].preprocess_input) for name, x in builders.items()}


def _levels(mean: tuple[float, ...], stddev: tuple[float, ...]) -> tuple[Any, Any]:
    """Make (input of normalised images, their levels from 0 to 255)."""
    images = keras.Input([None, None, 3], name="images")
    scale, offset = [255 * s for s in stddev], [255 * m for m in mean]
    return images, keras.layers.Rescaling(scale, offset, name="levels")(images)


def _own_function(name: str) -> Callable[[], Any]:
    """Import the function of "module.path:function"."""
    module, colon, function = name.partition(":")
    try:
        if not colon or not function.isidentifier():
            raise ValueError("no name of this form")
        found = getattr(importlib.import_module(module), function)
    except (ImportError, ValueError, AttributeError) as error:
        raise ValueError(
            "expected --backbone to be resnet18, 34, 50, 101 or 152, applications:NAME, "
            "keras_cv:PRESET, ours:vit_tiny or module.path:function, got "
            f"{name!r} ({error}): name one of them"
        ) from error
    return found
