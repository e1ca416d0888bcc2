"""Save a classifier, the end of an evaluation, as a SavedModel with a card, and open it again."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pic_tf import __version__
from pic_tf.data.decode.bands import decodes
from pic_tf.data.normalisation import unit_range
from pic_tf.data.views import central_views
from pic_tf.files import saved_models
from pic_tf.files.replaced import aside, remove_partial
from pic_tf.serving.exported import Exported
from pic_tf.serving.model_card import FORMAT_VERSION, JSON_FILE, TEXT_FILE, hub_metadata, title

KIND = "classifier"  # entry of its card, which a backbone's has not
_GRAPH = "saved_model.pb"


@dataclasses.dataclass(frozen=True, eq=False)
class LinearClassifier:
    """A linear classifier on the features f of a network: probabilities softmax(f W + b).

    Attributes:
      network: float32 [b, H, W, n] in [0, 1], training: bool -> float32 [b, C]; it may be tracked.
      kernel: [C, classes], W.
      bias: [classes], b.
    """

    network: Callable[..., tf.Tensor]
    kernel: np.ndarray
    bias: np.ndarray


def save_classifier(
    classifier: LinearClassifier,
    path: pathlib.Path,
    *,
    exported: Exported,
    class_names: tuple[str, ...],
    image_size: int,
    eval_crop: float,
    figures: dict[str, Any],
) -> None:
    """Write a SavedModel; an older one in its place is replaced.

    Its signature `serving_default` maps `images`, float32 [b, H, W, n] in [0, 1], to
    `probabilities` [b, classes] and `class`, the name of the most likely one; `encoded` does so
    for the bytes of image files, of which it takes the central views, and returns `decoded` too:
    False for an image that cannot be decoded, whose probabilities are 0 and whose class is "".

    Args:
      classifier: network, kernel and bias, on one device.
      path: folder to write.
      exported: the backbone that it was made from.
      class_names: names of the classes.
      image_size: side in pixels of the views that it was judged by.
      eval_crop: side of their central crop, share of the short side.
      figures: facts of its evaluation for the card; anything JSON can hold.

    Raises:
      OSError: where it cannot be written.
    """
    module = tf.Module(name=KIND)
    module.network = classifier.network
    module.kernel = tf.Variable(classifier.kernel, dtype=tf.float32, name="kernel")
    module.bias = tf.Variable(classifier.bias, dtype=tf.float32, name="bias")
    names = [os.fsencode(name) for name in class_names]  # a folder's name need not be UTF-8
    module.class_names = tf.Variable(names, trainable=False, name="class_names")

    def answers(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.cast(module.network(images, training=False), tf.float32)
        probabilities = tf.nn.softmax(tf.matmul(features, module.kernel) + module.bias)
        likely = tf.gather(module.class_names, tf.argmax(probabilities, 1))
        return {"probabilities": probabilities, "class": likely}

    side = exported.card.get("input_size")
    pixels = exported.pixels
    spec = tf.TensorSpec([None, side, side, pixels.channels], tf.float32, name="images")
    module.of_images = tf.function(answers, [spec], autograph=False)

    signature = [tf.TensorSpec([None], tf.string, name="encoded")]

    @tf.function(input_signature=signature, autograph=False)
    def of_encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        views, decoded = central_views(encoded, eval_crop, image_size, pixels)
        found = answers(unit_range(views))
        return {
            "probabilities": tf.where(decoded[:, None], found["probabilities"], 0.0),
            "class": tf.where(decoded, found["class"], ""),
            "decoded": decoded,
        }

    signatures = {"serving_default": module.of_images}
    if decodes(pixels):
        module.of_encoded = signatures["encoded"] = of_encoded
    card = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "pic_tf_version": __version__,
        "tensorflow_version": tf.__version__,
        "class_names": list(class_names),
        "image_size": image_size,
        "eval_crop": eval_crop,
        "figures": figures,
        "backbone": exported.card,
    }
    remove_partial(path.parent)
    with aside(path) as own:
        tf.saved_model.save(module, os.fspath(own), signatures)
        (own / JSON_FILE).write_text(json.dumps(card, indent=1) + "\n")
        (own / TEXT_FILE).write_text(_as_text(card), encoding="utf-8", errors="replace")


def _as_text(card: dict[str, Any]) -> str:
    names = card["class_names"]
    shown = [*names[:20], *(["..."] if len(names) > 20 else [])]
    lines = [
        *hub_metadata("image-classification"),
        f"# Classifier of {len(names)} classes on {title(card['backbone'])}",
        "",
        f"Made by pic_tf {card['pic_tf_version']} with TensorFlow {card['tensorflow_version']}.",
        "",
        f"- classes: {', '.join(shown)}",
        f"- views: {card['image_size']} pixels; central crop: {card['eval_crop']} of the side",
        *(f"- {name}: {value}" for name, value in card["figures"].items()),
        "",
        "## Use",
        "",
        "```sh",
        "python -m pic_tf.predict --model=FOLDER_OF_THIS_CARD --dataset=IMAGES --output=FILE.csv",
        "```",
        "",
    ]
    return "\n".join(lines)


def open_classifier(path: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
    """Open a classifier that `save_classifier` wrote.

    Args:
      path: its folder.

    Returns:
      (the SavedModel, its card).

    Raises:
      ValueError: where there is none, or one that this version cannot use.
    """
    folder = pathlib.Path(path)
    if not (folder / _GRAPH).is_file():
        there = sorted(file.parent.name for file in folder.glob(f"*/{_GRAPH}"))
        advice = f"name one of those in it, {', '.join(there)}" if there else "check the path"
        raise ValueError(
            f"expected a classifier of pic_tf.evaluate at {str(path)!r}, got no {_GRAPH} there: "
            f"{advice}"
        )
    try:
        card = json.loads((folder / JSON_FILE).read_text())
        version, kind = card["format_version"], card.get("kind")
        entries = [card[name] for name in ("class_names", "image_size", "eval_crop")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        entries, version, kind = [], None, type(error).__name__
    if not entries or (version, kind) != (FORMAT_VERSION, KIND):
        raise ValueError(
            f"expected a classifier of this version in {str(path)!r}, got another SavedModel: "
            "make one with pic_tf.evaluate --protocol=linear or finetune"
        )
    try:
        return saved_models.load(folder), card
    except (OSError, ValueError, tf.errors.OpError) as error:
        first, *_ = str(error).splitlines()
        raise ValueError(
            f"expected a whole SavedModel in {str(path)!r}, got {first}: evaluate again"
        ) from error
