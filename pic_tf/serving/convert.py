"""Convert the weights of a ResNet: PyTorch checkpoints in, PyTorch, Keras 3 and SavedModels out."""

import argparse
import json
import os
import pathlib
import pickle
import tempfile
from types import ModuleType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf
import tf_keras

from pic_tf.data.augment import MEAN, STDDEV
from pic_tf.files import saved_models
from pic_tf.files.replaced import PARTIAL, replaced
from pic_tf.models.torch_checkpoints import Parts, parts_of, unnested
from pic_tf.models.torch_weights import backbone_of, detectron2_state, head_of, state_of
from pic_tf.serving.model_card import JSON_FILE
from pic_tf.serving.saved_model import export_backbone, normalisation_layer

DETECTRON2 = ".pkl"  # ending of the files of its MODEL.WEIGHTS
TORCH = (".pth", ".pt", ".tar")  # endings of files of torch.save; .pth.tar is common


def read(path: pathlib.Path, prefix: str | None = None) -> Parts:
    """Read a checkpoint or an export.

    Args:
      path: FILE.safetensors, a file of torch.save, or the folder of an export.
      prefix: as of `parts_of`.

    Raises:
      ValueError: for anything that cannot be read, or is no ResNet.
    """
    if (path / "saved_model.pb").is_file():
        _check_scaling(path)
        return Parts(state_of(_variables(path)), {}, ())
    if not path.is_file():
        raise ValueError(
            f"expected a file of weights or the folder of an export at {str(path)!r}, "
            "got none: check it"
        )
    if path.suffix == ".safetensors":
        try:
            state = safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, OSError, KeyError) as error:
            # KeyError: numbers that NumPy does not have.
            raise ValueError(
                f"expected safetensors in {str(path)!r}, got {error}: fetch the file again"
            ) from error
    elif path.suffix in TORCH:
        state = _read_torch(path)
    else:
        raise ValueError(
            "expected --input to end in .safetensors, .pth, .pt or .tar, "
            f"got {str(path)!r}: rename it"
        )
    return parts_of(state, prefix)


def _check_scaling(path: pathlib.Path) -> None:
    """Refuse an export that scales images otherwise than the converted network will."""
    try:
        scaling = json.loads((path / JSON_FILE).read_text())["preprocessing"]
        found = scaling["mean"], scaling["stddev"]
    except (OSError, ValueError, KeyError, TypeError):  # a SavedModel of others has no card
        return
    if None in found or not np.allclose(found, (MEAN, STDDEV), atol=1e-3):
        raise ValueError(
            f"expected an export in {str(path)!r} that normalises images by ImageNet's channel "
            f"means, got mean and deviation {found[0]} and {found[1]}: its weights alone would "
            "see other images"
        )


def _variables(path: pathlib.Path) -> list[tf.Variable]:
    try:
        return list(getattr(saved_models.load(path), "variables", ()))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"expected a SavedModel in {str(path)!r}, got {error}: export it again"
        ) from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    torch = _torch()
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


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError:
        raise ValueError(
            "expected PyTorch for files of torch.save, got none: pip install torch"
        ) from None
    return torch


def write(backbone: tf_keras.Model, path: pathlib.Path, image_size: int | None = None) -> None:
    """Write a backbone beside `path` and rename it.

    Args:
      backbone: a network made by `resnet`.
      path: FILE.safetensors, FILE.pth, FILE.pkl, FILE.keras or a folder; its ending decides.
      image_size: as of `export_backbone`.

    Raises:
      ValueError: where something that is no export is in the place of a folder.
      OSError: where it cannot be written.
    """
    state = state_of(backbone.weights)
    if path.suffix == ".safetensors":
        _write_safetensors(state, path)
    elif path.suffix in TORCH:
        torch = _torch()
        tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
        with replaced(path, "wb") as file:
            torch.save(tensors, file)
    elif path.suffix == DETECTRON2:
        # Marked as MoCo's converter does, so that detectron2 finds its own longer names.
        content = {"__author__": "pic_tf", "matching_heuristics": True}
        content["model"] = detectron2_state(state)
        with replaced(path, "wb") as file:
            pickle.dump(content, file)
    elif path.suffix == ".keras":
        # In a folder of its own: Keras looks at the ending.
        with tempfile.TemporaryDirectory(PARTIAL, f"{path.name}.", path.parent) as folder:
            own = pathlib.Path(folder) / "backbone.keras"
            keras_model(state, image_size).save(own)
            os.replace(own, path)
    else:
        export_backbone(backbone, path, image_size)


def _write_safetensors(state: dict[str, np.ndarray], path: pathlib.Path) -> None:
    with replaced(path, "wb") as file:
        file.write(safetensors.numpy.save(state, {"format": "pt"}))  # PyTorch's readers ask for it


def keras_model(state: dict[str, np.ndarray], image_size: int | None = None) -> Any:
    """Build a model of Keras 3 that needs nothing of this package.

    Args:
      state: torchvision's names -> arrays.
      image_size: side in pixels that it asks for; None for any.

    Returns:
      Keras 3 model from images [B, H, W, 3] in [0, 1] to features [B, C]: a Rescaling layer and the
      ResNet.
    """
    keras = _keras3()
    images = keras.Input([image_size, image_size, 3], name="images")
    backbone = backbone_of(state, keras)
    return keras.Model(images, backbone(normalisation_layer(keras)(images)), name="pic_backbone")


def _keras3() -> ModuleType:
    import keras

    if int(keras.__version__.split(".")[0]) < 3:  # TensorFlow 2.15 brings 2.15
        raise ValueError(
            "expected Keras 3 for a .keras file, "
            f"got {keras.__version__}: pip install 'tensorflow>=2.16'"
        )
    return keras


def convert(
    source: pathlib.Path,
    output: pathlib.Path,
    prefix: str | None = None,
    image_size: int | None = None,
    head_output: pathlib.Path | None = None,
) -> list[str]:
    """Read weights and write them in another form.

    Args:
      source: file of weights, or folder of an export.
      output: FILE.safetensors, FILE.pth, FILE.pkl, FILE.keras or a folder to write; its ending
        decides.
      prefix: as of `parts_of`.
      image_size: as of `export_backbone`.
      head_output: FILE.safetensors for the projection head; None to pass a head over.

    Returns:
      Lines about the files written and the weights passed over.

    Raises:
      ValueError: for wrong input.
      OSError: where the output cannot be written.
    """
    _check_outputs(output, image_size, head_output)
    parts = read(source, prefix)
    backbone = backbone_of(parts.backbone)
    if head_output and not parts.head:
        raise ValueError(f"expected a head in {str(source)!r}, got none: leave --head_output out")
    head = head_of(parts.head) if head_output else None
    write(backbone, output, image_size)
    lines = [
        f"{backbone.name}, {backbone.count_params():,} parameters, {backbone.output_shape[-1]:,} "
        f"features: {output}"
    ]
    if head_output:
        arrays = {name: np.ascontiguousarray(array) for name, array in parts.head.items()}
        _write_safetensors(arrays, head_output)
        lines.append(
            f"head, {head.count_params():,} parameters, {head.output_shape[-1]:,} numbers: "
            f"{head_output}"
        )
    passed_over = [*parts.passed_over, *([] if head_output else parts.head)]
    if passed_over:
        lines.append(f"passed over: {', '.join(passed_over)}")
    return lines


def _check_outputs(
    output: pathlib.Path, image_size: int | None, head_output: pathlib.Path | None
) -> None:
    """Refuse outputs that cannot be, before anything is read."""
    if output.suffix in TORCH:
        _torch()
    elif output.suffix == ".keras":
        _keras3()
    elif output.suffix not in ("", ".safetensors", DETECTRON2):
        raise ValueError(
            "expected --output to end in .safetensors, .pth, .pkl or .keras, or a folder without "
            f"an ending, got {str(output)!r}: rename it"
        )
    if output.suffix and output.is_dir():
        raise ValueError(
            f"expected a file as --output, got the folder {str(output)!r}: name another"
        )
    if image_size and output.suffix not in ("", ".keras"):
        raise ValueError(
            "expected --image_size with a .keras file or a folder, "
            f"got {str(output)!r}: leave it out"
        )
    if head_output and head_output.suffix != ".safetensors":
        raise ValueError(
            f"expected --head_output to end in .safetensors, got {str(head_output)!r}: rename it"
        )
    if head_output == output:
        raise ValueError(
            "expected two files as --output and --head_output, "
            f"got {str(output)!r} twice: name another"
        )
