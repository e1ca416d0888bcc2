"""Export a backbone as a SavedModel."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import tensorflow as tf
import tf_keras as keras

from pic_tf.data.decode.bands import decodes
from pic_tf.data.normalisation import IMAGENET, Normalisation, unit_range
from pic_tf.data.sources.pixel_format import PixelFormat
from pic_tf.data.views import central_views
from pic_tf.files.replaced import aside, remove_partial
from pic_tf.models.input_scaling import channels_of, input_scaling
from pic_tf.serving.model_card import JSON_FILE, model_card, write_card


def normalisation_layer(
    keras: ModuleType = keras, normalisation: Normalisation = IMAGENET
) -> keras.layers.Layer:
    """Make the layer from images in [0, 1] to a backbone's input: (x - mean) / deviation.

    Args:
      keras: the Keras of the model.
      normalisation: mean and deviation of each channel.
    """
    scale = [1 / s for s in normalisation.stddev]
    return keras.layers.Rescaling(scale, [-m / s for m, s in zip(*normalisation)], name="normalise")


def _scaled(images: tf.Tensor, takes: str, normalisation: Normalisation) -> tf.Tensor:
    """Bring images in [0, 1] to what a backbone takes, one of `INPUTS`."""
    if takes == "normalised":
        return normalisation_layer(normalisation=normalisation)(images)
    return images if takes == "unit" else keras.layers.Rescaling(255.0, name="levels")(images)


def _is_made_again(layer: keras.layers.Layer) -> bool:
    """Whether Keras alone makes a layer again from its configuration."""
    of_keras = type(layer).__module__.startswith("tf_keras.src.")
    if not of_keras or isinstance(layer, keras.layers.Lambda):
        return False
    if isinstance(layer, keras.Model):
        return all(map(_is_made_again, layer.layers))
    try:
        type(layer).from_config(layer.get_config())
    except (TypeError, ValueError):  # such as an activation that is a function of the user's
        return False
    return True


@contextlib.contextmanager
def _without_functions_of_layers(model: keras.Model) -> Iterator[None]:
    """Save the layers of Keras by their configuration alone.

    What computes are the functions of the model; those of each layer, traced four times, took half
    of the time and a third of the file.
    """
    layers = [x for x in model.submodules if isinstance(x, keras.layers.Layer)]
    layers = [x for x in layers if not x._must_restore_from_config and _is_made_again(x)]
    for layer in layers:
        layer._must_restore_from_config = True
    try:
        yield
    finally:
        for layer in layers:
            del layer._must_restore_from_config


def _is_export(path: str) -> bool:
    """Tell by its model card whether a folder is an export of a backbone, which may be replaced."""
    try:
        card = json.loads(pathlib.Path(path, JSON_FILE).read_text())
        return "format_version" in card and card.get("kind") is None
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def export_backbone(
    backbone: keras.Model,
    path: str | os.PathLike,
    image_size: int | None = None,
    *,
    backbone_input: str | None = None,
    trained_size: int | None = None,
    eval_crop: float = 1.0,
    training: dict[str, Any] | None = None,
    normalisation: Normalisation = IMAGENET,
    bit_depth: int = 8,
) -> None:
    """Write the backbone as a SavedModel for plain images in [0, 1].

    The scaling to the images that it was trained on is inside. The signature `serving_default` maps
    `images` to `features`; the signature `encoded`, there where a size is known, maps `encoded`,
    the bytes of image files, to `features` of their central views, as evaluations see them, and
    `decoded`, False for an image that cannot be decoded, whose features are 0. Files of more than
    four channels are TIFFs, which TensorFlow does not decode: that signature is not there.
    As a reusable SavedModel, `hub.KerasLayer(path, trainable=True)` fine-tunes it: variables,
    trainable variables and the training flag are there, and batch normalisation updates its
    statistics. In Keras 3 it is `keras.layers.TFSMLayer(path, "serving_default", "training")`; the
    signature `training` is that mode of it. A model card lies in it (model_card.json,
    model_card.md).

    Args:
      backbone: Keras model, images -> features [B, C] or maps [B, h, w, C], which are averaged.
      path: folder to write; one that is there already is replaced once the new one is complete.
      image_size: side in pixels that the signature asks for; None for any.
      backbone_input: images that it was trained on, "normalised" by `normalisation`, "unit" for
        [0, 1] or "levels" for [0, 255]; None to find out from its first layers, see
        `input_scaling`.
      trained_size: side in pixels of the views it was trained on, to which encoded images are
        brought; None for `image_size`.
      eval_crop: side of the central crop of encoded images and in evaluations, share of the short
        side.
      training: facts of the training for the model card; anything JSON can hold.
      normalisation: (mean, deviation) of each channel, of images in [0, 1].
      bit_depth: bits of a level of the images that it was trained on, 8 or 16.

    Raises:
      ValueError: where something else than an export is at `path`, what the backbone takes cannot
        be told, or `normalisation` is of other channels.

    Source: https://www.tensorflow.org/hub/reusable_saved_models.
    """
    path = os.path.normpath(os.fspath(path))
    empty = os.path.isdir(path) and not os.listdir(path)
    if os.path.exists(path) and not empty and not _is_export(path):
        raise ValueError(
            f"expected a new folder or an older export at {path!r}, "
            "got something else: name another"
        )
    pixels = PixelFormat(channels_of(backbone), bit_depth)
    shape, view_size = [image_size, image_size, pixels.channels], image_size or trained_size
    images = keras.Input(shape, name="images")
    scaling = input_scaling(backbone, backbone_input)
    normalisation = Normalisation(*normalisation)
    if scaling.takes == "normalised" and len(normalisation.mean) != pixels.channels:
        raise ValueError(
            f"expected normalisation=(mean, deviation) of the {pixels.channels} channels of "
            f"{backbone.name}, got {len(normalisation.mean)}: name one number a channel"
        )
    # A flat model: its variables and names are the backbone's own.
    features = backbone(_scaled(images, scaling.takes, normalisation))
    if features.shape.rank == 4:
        features = keras.layers.GlobalAveragePooling2D(name="features")(features)
    # Whatever precision it was trained in.
    features = keras.layers.Activation("linear", dtype="float32", name="float32")(features)
    model = keras.Model(images, features, name="pic_backbone")

    def of_images(training: bool) -> tf.types.experimental.GenericFunction:
        signature = [tf.TensorSpec([None, *shape], tf.float32, name="images")]
        return tf.function(lambda images: {"features": model(images, training=training)}, signature)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="encoded")])
    def serve_encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        views, decoded = central_views(encoded, eval_crop, view_size, pixels)
        features = model(unit_range(views), training=False)
        return {"features": tf.where(decoded[:, None], features, 0.0), "decoded": decoded}

    signatures = {"serving_default": of_images(False), "training": of_images(True)}
    signatures |= {"encoded": serve_encoded} if view_size and decodes(pixels) else {}
    size, place = trained_size or image_size, pathlib.Path(path)
    facts = training, image_size, scaling, normalisation, pixels
    card = model_card(backbone, features.shape[-1], size, eval_crop, *facts)
    remove_partial(place.parent)
    with aside(place) as own, _without_functions_of_layers(model):
        model.save(own, save_format="tf", include_optimizer=False, signatures=signatures)
        write_card(own, card)
