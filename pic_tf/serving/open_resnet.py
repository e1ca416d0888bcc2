"""Open a ResNet as a Keras model, whatever it was saved as."""

import json
import os
import pathlib
from typing import NamedTuple

import tf_keras as keras

from pic_tf.models.torch_weights import backbone_of, state_of
from pic_tf.runs.run_folder import EXPORT
from pic_tf.serving import convert
from pic_tf.serving.model_card import JSON_FILE
from pic_tf.serving.saved_classifier import KIND, open_classifier
from pic_tf.serving.weights_files import check_scaling

_GRAPH = "saved_model.pb"
_VIEWS = {"image_size": 224, "eval_crop": 0.875}  # of files of weights alone: ImageNet's usual ones


class Resnet(NamedTuple):
    """A ResNet of pic_tf and the views that it is judged by.

    Attributes:
      name: the name in titles.
      model: normalised images [B, H, W, 3] -> features [B, C], see `pic_tf.models.resnet`.
      image_size: side of a view in pixels.
      eval_crop: side of the central crop, share of the short side.
    """

    name: str
    model: keras.Model
    image_size: int
    eval_crop: float


def open_resnet(path: str | os.PathLike) -> Resnet:
    """Open a ResNet with all its layers.

    Args:
      path: folder of an export, of a finished run, or of a classifier that `pic_tf.evaluate`
        saved; or a file of weights as of `pic_tf.serving.convert.read`.

    Raises:
      ValueError: where there is none, or another network.
    """
    folder = pathlib.Path(path)
    if not (folder / _GRAPH).is_file() and (folder / EXPORT / _GRAPH).is_file():
        folder = folder / EXPORT
    card = _card(folder)
    if card.get("kind") == KIND:
        check_scaling(folder)
        classifier, card = open_classifier(folder)
        state = state_of(classifier.network.variables)
    else:
        state = convert.read(folder).backbone
    views = {name: card.get(name) or usual for name, usual in _VIEWS.items()}
    named = folder.absolute().parent if folder.name == EXPORT else folder
    return Resnet(named.name, backbone_of(state), **views)


def feature_maps(backbone: keras.Model) -> keras.Model:
    """Give the last feature map in place of its average (conv5 of the published networks).

    Args:
      backbone: as of `pic_tf.models.resnet`, images [B, H, W, 3] -> features [B, C].

    Returns:
      Images [B, H, W, 3] -> maps [B, h, w, C], of the same weights.
    """
    return keras.Model(backbone.input, backbone.get_layer("features").input)


def _card(folder: pathlib.Path) -> dict:
    try:
        return json.loads((folder / JSON_FILE).read_text())
    except (OSError, ValueError):
        return {}
