"""Convert a backbone: PyTorch checkpoints in, PyTorch, Keras 3, SavedModels and graphs out."""

import os
import pathlib
import tempfile
from pickle import dump  # detectron2's files; nothing here reads one
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.numpy
import tf_keras

from pic_tf.files.replaced import PARTIAL, replaced
from pic_tf.models.torch_weights import backbone_of, detectron2_state, head_of, state_of
from pic_tf.runs.initial_weights import place_of
from pic_tf.serving.exported import open_exported
from pic_tf.serving.graph_files import GRAPHS, check_graph, write_graph
from pic_tf.serving.saved_model import export_backbone, normalisation_layer
from pic_tf.serving.weights_files import TORCH, read, torch_module

DETECTRON2 = ".pkl"  # ending of the files of its MODEL.WEIGHTS


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
        torch = torch_module()
        tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
        with replaced(path, "wb") as file:
            torch.save(tensors, file)
    elif path.suffix == DETECTRON2:
        # Marked as MoCo's converter does, so that detectron2 finds its own longer names.
        content = {"__author__": "pic_tf", "matching_heuristics": True}
        content["model"] = detectron2_state(state)
        with replaced(path, "wb") as file:
            dump(content, file)
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
    int8_images: str = "",
) -> list[str]:
    """Read weights and write them in another form.

    Args:
      source: file of weights, or folder of an export or of a finished run.
      output: FILE.safetensors, FILE.pth, FILE.pkl, FILE.keras, FILE.tflite, FILE.onnx or a folder
        to write; its ending decides.
      prefix: as of `parts_of`.
      image_size: as of `export_backbone`.
      head_output: FILE.safetensors for the projection head; None to pass a head over.
      int8_images: as of `write_graph`.

    Returns:
      Lines about the files written and the weights passed over.

    Raises:
      ValueError: for wrong input.
      OSError: where the output cannot be written.
    """
    _check_outputs(output, image_size, head_output)
    if output.suffix in GRAPHS or int8_images:
        return [_graph(source, output, prefix, image_size, int8_images)]
    parts = read(place_of(source), prefix)
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


def _graph(
    source: pathlib.Path,
    output: pathlib.Path,
    prefix: str | None,
    image_size: int | None,
    int8_images: str,
) -> str:
    """Write the graph of an export, of any network, or of weights of a ResNet."""
    check_graph(output, int8_images)
    with tempfile.TemporaryDirectory() as folder:
        if not source.is_dir():
            write(backbone_of(read(source, prefix).backbone), pathlib.Path(folder, "backbone"))
            source = pathlib.Path(folder, "backbone")
        exported = open_exported(source)
        kind = write_graph(exported, output, image_size, int8_images)
    return f"{exported.name}, {exported.card['feature_dim']:,} features, {kind}: {output}"


def _check_outputs(
    output: pathlib.Path, image_size: int | None, head_output: pathlib.Path | None
) -> None:
    """Refuse outputs that cannot be, before anything is read."""
    if output.suffix in TORCH:
        torch_module()
    elif output.suffix == ".keras":
        _keras3()
    elif output.suffix not in ("", ".safetensors", DETECTRON2, *GRAPHS):
        raise ValueError(
            "expected --output to end in .safetensors, .pth, .pkl, .keras, .tflite or .onnx, or a "
            f"folder without an ending, got {str(output)!r}: rename it"
        )
    if output.suffix and output.is_dir():
        raise ValueError(
            f"expected a file as --output, got the folder {str(output)!r}: name another"
        )
    if image_size and output.suffix not in ("", ".keras", *GRAPHS):
        raise ValueError(
            "expected --image_size with a .keras, .tflite or .onnx file or a folder, "
            f"got {str(output)!r}: leave it out"
        )
    if head_output and output.suffix in GRAPHS:
        raise ValueError(
            f"expected --head_output with a file of weights, got {str(output)!r}: leave it out"
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
