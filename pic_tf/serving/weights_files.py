"""Read the weights of a ResNet from files: exports, safetensors, PyTorch checkpoints, Keras."""

import argparse
import json
import pathlib
import zipfile
from types import ModuleType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf
import tf_keras

from pic_tf.data.normalisation import IMAGENET, MEAN
from pic_tf.files import saved_models
from pic_tf.models.torch_checkpoints import Parts, parts_of, unnested
from pic_tf.models.torch_weights import state_of
from pic_tf.serving.model_card import JSON_FILE

TORCH = (".pth", ".pt", ".tar")  # endings of files of torch.save; .pth.tar is common
TORCH_NAMES = (".safetensors", *TORCH)


def read(path: pathlib.Path, prefix: str | None = None, any_scaling: bool = False) -> Parts:
    """Read a checkpoint or an export.

    Args:
      path: FILE.safetensors, a file of torch.save, FILE.keras, or the folder of an export.
      prefix: as of `parts_of`.
      any_scaling: whether an export may normalise images otherwise than by ImageNet's figures.

    Raises:
      ValueError: for anything that cannot be read, or is no ResNet.
    """
    if (path / "saved_model.pb").is_file():
        if not any_scaling:
            check_scaling(path)
        return Parts(state_of(saved_model_weights(path)), {}, ())
    if not path.is_file():
        raise ValueError(
            f"expected a file of weights or the folder of an export at {str(path)!r}, "
            "got none: check it"
        )
    if path.suffix in TORCH_NAMES:
        state = torch_state(path)
    elif path.suffix == ".keras":
        state = state_of(keras_weights(path))
    else:
        raise ValueError(
            "expected a file of weights to end in .safetensors, .pth, .pt, .tar or .keras, "
            f"got {str(path)!r}: rename it"
        )
    return parts_of(state, prefix)


def torch_state(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read all arrays of FILE.safetensors or of a file of torch.save.

    Raises:
      ValueError: for a file that cannot be read.
    """
    if path.suffix in TORCH:
        return _read_torch(path)
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        # KeyError: numbers that NumPy does not have.
        raise ValueError(
            f"expected safetensors in {str(path)!r}, got {error}: fetch the file again"
        ) from error


def check_scaling(path: pathlib.Path) -> None:
    """Refuse an export that scales images otherwise than the converted network will.

    Args:
      path: folder of an export, or of a classifier on one.

    Raises:
      ValueError: for other figures than ImageNet's.
    """
    try:
        card = json.loads((path / JSON_FILE).read_text())
        scaling = card.get("preprocessing") or card["backbone"]["preprocessing"]
        found = scaling["mean"], scaling["stddev"]
    # A SavedModel of others has no card.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    others = None in found or len(found[0]) != len(MEAN)
    if others or not np.allclose(found, IMAGENET, atol=1e-3):
        raise ValueError(
            f"expected an export in {str(path)!r} that normalises images by ImageNet's channel "
            f"means, got mean and deviation {found[0]} and {found[1]}: its weights alone would "
            "see other images"
        )


def saved_model_weights(path: pathlib.Path) -> list[tf.Variable]:
    """List the variables of a SavedModel."""
    try:
        return list(getattr(saved_models.load(path), "variables", ()))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"expected a SavedModel in {str(path)!r}, got {error}: export it again"
        ) from error


def keras_weights(path: pathlib.Path) -> list[Any]:
    """List the variables of a model in a .keras file, of tf_keras or of Keras 3."""
    try:
        with zipfile.ZipFile(path) as file:
            version = json.loads(file.read("metadata.json"))["keras_version"]
        if version.startswith("2."):
            return tf_keras.saving.load_model(path, compile=False).weights
        import keras

        return keras.saving.load_model(path, compile=False).weights
    except Exception as error:  # of many types: what is in a model may be anything
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected a model that Keras loads in {str(path)!r}, got {reason}: save it again"
        ) from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    torch = torch_module()
    try:
        # Many trainings, PIC's among them, keep their settings beside the weights in a Namespace:
        # attributes and nothing else.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, some of them of modules that load code
        raise ValueError(
            f"expected tensors in {str(path)!r}, got a file that torch.load refuses "
            f"({str(error).splitlines()[0]}): where it was made, save the state_dict alone"
        ) from error
    arrays = {}
    for name, tensor in unnested(checkpoint).items():
        tensor = tensor.detach()
        arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return arrays


def torch_module() -> ModuleType:
    """Import PyTorch, or raise ValueError where it is not installed."""
    try:
        import torch
    except ImportError:
        raise ValueError(
            "expected PyTorch for files of torch.save, got none: pip install torch"
        ) from None
    return torch
