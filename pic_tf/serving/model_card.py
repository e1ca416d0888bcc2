"""Describe an export: model_card.json for programs, model_card.md for people."""

import json
import pathlib
from typing import Any

import tensorflow as tf
import tf_keras as keras

from pic_tf import __version__
from pic_tf.data.normalisation import IMAGENET, Normalisation
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.models.input_scaling import InputScaling

FORMAT_VERSION, JSON_FILE, TEXT_FILE = 1, "model_card.json", "model_card.md"


def model_card(
    backbone: keras.Model,
    feature_dim: int,
    image_size: int | None = None,
    eval_crop: float = 1.0,
    training: dict[str, Any] | None = None,
    input_size: int | None = None,
    scaling: InputScaling | None = None,
    normalisation: Normalisation = IMAGENET,
    pixels: PixelFormat = RGB,
) -> dict[str, Any]:
    """Make the card of a backbone, without times: equal runs have equal cards.

    Args:
      backbone: the network.
      feature_dim: C.
      image_size: side in pixels of the views it was trained on; None where that is not known.
      eval_crop: side of the central crop that its evaluation took, share of the short side.
      training: facts of the training, anything JSON can hold, `step` 0 for a backbone at its
        random initialisation; None where they are not known.
      input_size: side in pixels of the only images that it takes; None for any.
      scaling: the images that the network takes, and its own scaling; None for normalised ones,
        and none of its own.
      normalisation: mean and deviation of each channel of normalised images.
      pixels: channels and bits of the images that it was trained on.

    Returns:
      The card, as JSON can hold it.
    """
    scaling = scaling or InputScaling()
    return {
        "format_version": FORMAT_VERSION,
        "pic_tf_version": __version__,
        "tensorflow_version": tf.__version__,
        "backbone": {"name": backbone.name, "parameters": backbone.count_params()},
        "feature_dim": feature_dim,
        "channels": pixels.channels,
        "bit_depth": pixels.bit_depth,
        "image_size": image_size,
        "input_size": input_size,
        "eval_crop": eval_crop,
        "preprocessing": {
            "range": [0.0, 1.0],
            **_of_unit_images(scaling, normalisation),
            "inside": True,
            "backbone_input": scaling.takes,
        },
        "training": training,
    }


def _of_unit_images(
    scaling: InputScaling, normalisation: Normalisation
) -> dict[str, list[float] | None]:
    """Mean and deviation by channel of the scaling of images in [0, 1], by export and backbone."""
    if scaling.mean is None:
        return {"mean": None, "stddev": None}
    mean, stddev = scaling.mean, scaling.stddev
    if scaling.takes == "normalised":
        mean = [a + s * b for a, s, b in zip(*normalisation, mean)]
        stddev = [s * t for s, t in zip(normalisation.stddev, stddev)]
    return {"mean": list(mean), "stddev": list(stddev)}


def write_card(folder: pathlib.Path, card: dict[str, Any]) -> None:
    """Write both files into the folder of an unfinished export."""
    (folder / JSON_FILE).write_text(json.dumps(card, indent=1) + "\n")
    # The name of a folder of images need not be UTF-8.
    (folder / TEXT_FILE).write_text(_as_text(card), encoding="utf-8", errors="replace")


def title(card: dict[str, Any]) -> str:
    """The name of a backbone in tables and titles."""
    name, training = card["backbone"]["name"], card["training"]
    return f"{name}, random initialisation" if training and training.get("step") == 0 else name


def hub_metadata(task: str) -> list[str]:
    """Lines of YAML before a card, by which the hub of Hugging Face files a model.

    Args:
      task: its name of what the model does.

    Source: https://huggingface.co/docs/hub/model-cards.
    """
    tags = ("tensorflow", "self-supervised-learning", "pic_tf")
    lines = ["library_name: tf-keras", f"pipeline_tag: {task}", "tags:", *(f"- {x}" for x in tags)]
    return ["---", *lines, "---", ""]


def _of_input(card: dict[str, Any]) -> str:
    channels, bit_depth = card["channels"], card["bit_depth"]
    kind = "RGB images" if channels == 3 else f"images of {channels} channel{'s' * (channels > 1)}"
    levels = "" if bit_depth == 8 else f", of {bit_depth} bits,"
    return f"{kind}{levels} float32 [b, H, W, {channels}]"


def _as_text(card: dict[str, Any]) -> str:
    network, training = card["backbone"], card["training"]
    size = f"{card['image_size']} pixels" if card["image_size"] else "not recorded"
    kind = ", pretrained without labels" if training and training.get("step") else ""
    lines = [
        *hub_metadata("image-feature-extraction"),
        f"# {title(card)}{kind}",
        "",
        f"Made by pic_tf {card['pic_tf_version']} with TensorFlow {card['tensorflow_version']}.",
        "",
        f"- parameters: {network['parameters']:,}; features: {card['feature_dim']}",
        f"- input: {_of_input(card)} in [0, 1]; their normalisation is inside",
        f"- side of a training view: {size}; "
        f"central crop in evaluation: {card['eval_crop']} of the short side",
    ]
    if training:
        lines += ["", "## Training", ""]
        nested = {name: values for name, values in training.items() if isinstance(values, dict)}
        lines += [f"- {name}: {x}" for name, x in training.items() if name not in nested]
        for name, values in nested.items():
            lines += ["", f"### {name}", "", *(f"- {key}: {x}" for key, x in values.items())]
    lines += ["", "## Use", "", "```python", "import tensorflow_hub as hub", ""]
    lines += ['hub.KerasLayer("THIS FOLDER", trainable=True)', "```", ""]
    return "\n".join(lines)
