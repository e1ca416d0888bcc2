"""Write the graph of an export as one file, for LiteRT (TFLite) or ONNX."""

import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.normalisation import unit_range
from pic_tf.data.pipeline import evaluation_batches, naming_unreadable
from pic_tf.data.sources.named import open_dataset
from pic_tf.files import saved_models
from pic_tf.files.replaced import replaced
from pic_tf.serving.exported import Exported

TFLITE, ONNX = ".tflite", ".onnx"
GRAPHS = (TFLITE, ONNX)
_REPRESENTATIVE = 200  # images whose activations tell the ranges of 8-bit numbers


def check_graph(output: pathlib.Path, int8_images: str) -> None:
    """Raise ValueError for a file that cannot be written here.

    Args:
      output: FILE.tflite or FILE.onnx.
      int8_images: as of `write_graph`.
    """
    if int8_images and output.suffix != TFLITE:
        raise ValueError(
            f"expected --representative_images with a {TFLITE} file, got {str(output)!r}: leave it "
            "out"
        )
    if output.suffix == ONNX and importlib.util.find_spec("tf2onnx") is None:
        raise ValueError(f"expected tf2onnx for a {ONNX} file, got none: pip install '.[onnx]'")


def write_graph(
    exported: Exported,
    path: pathlib.Path,
    image_size: int | None = None,
    int8_images: str = "",
) -> str:
    """Write the inference of an export: images float32 [b, H, W, n] in [0, 1] to features [b, C].

    Args:
      exported: the export.
      path: FILE.tflite or FILE.onnx to write; its ending decides.
      image_size: side in pixels of the only images that the file takes; None for those of the
        export, which are mostly of any size.
      int8_images: images, as `open_dataset` names them, whose central views tell the ranges of
        weights and activations in 8 bits; "" for float32. Operations without such a form, and both
        ends, stay float32.

    Returns:
      The kind of numbers in it, in a few words.

    Raises:
      ValueError: for another size than the export takes, images that cannot be used, or a network
        that the converter refuses.
      OSError: where the file cannot be written.
    """
    size = exported.card.get("input_size") or image_size
    if image_size not in (None, size):
        raise ValueError(
            f"expected --image_size={size}, the only one that {exported.path!r} takes, got "
            f"{image_size}: leave it out"
        )
    views = _views(exported, int8_images, size) if int8_images else None
    model = saved_models.load(exported.path)
    serve = model.signatures["serving_default"]
    shape = [None, size, size, exported.pixels.channels]
    images = tf.TensorSpec(shape, tf.float32, name="images")

    def inference(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": serve(images=images)["features"]}

    function = tf.function(inference, [images], autograph=False)
    try:
        if path.suffix == ONNX:
            content = _onnx(function, images)
        else:
            content = _tflite(function, model, views)
    except Exception as error:  # the converters have none of their own
        reason, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected a network that can be written to {path.suffix}, got {reason}: keep to the "
            "SavedModel"
        ) from error
    with replaced(path, "wb") as file:
        file.write(content)
    return "float32" if views is None else f"8-bit numbers by {len(views):,} images"


def _tflite(
    function: tf.types.experimental.GenericFunction, model: Any, views: np.ndarray | None
) -> bytes:
    traced = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], model)

    def representative() -> Iterator[list[np.ndarray]]:
        for view in views:
            yield [unit_range(view[None]).numpy()]

    if views is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
    return converter.convert()


def _onnx(function: tf.types.experimental.GenericFunction, images: tf.TensorSpec) -> bytes:
    import onnx
    import tf2onnx

    handlers = {"Erfc": (_erfc, [])}
    found, _ = tf2onnx.convert.from_function(function, [images], custom_op_handlers=handlers)
    # tf2onnx writes operations that ONNX does not have all the same.
    onnx.checker.check_model(found)
    return found.SerializeToString()


def _erfc(graph: Any, node: Any, *_) -> None:
    """Write 1 - erf(x), in the GELU of transformers: tf2onnx knows erf alone."""
    node.type = "Erf"
    one = graph.make_const(f"{node.name}_one", np.array(1, np.float32)).output[0]
    graph.insert_new_node_on_output("Sub", node.output[0], inputs=[one, node.output[0]])


def _views(exported: Exported, images: str, size: int | None) -> np.ndarray:
    """Central views of some images, always the same ones: levels [n, size, size, C]."""
    size = size or exported.card["image_size"]
    if size is None:
        raise ValueError(
            f"expected --image_size with --representative_images, got none, and the card of "
            f"{exported.path!r} has none: name the side of the images that it will see"
        )
    source, _ = open_dataset(images, pixels=exported.pixels)
    count = min(_REPRESENTATIVE, len(source))
    ids = np.sort(np.random.default_rng(0).choice(len(source), count, replace=False))
    broken, crop = BrokenImages(source), exported.card["eval_crop"]
    batches = evaluation_batches(
        source, ids, image_size=size, crop_fraction=crop, batch_size=50, broken=broken
    )
    with naming_unreadable(source, ids):
        views = np.concatenate(list(batches.as_numpy_iterator()))[broken.decodable(ids)]
    if not len(views):
        raise ValueError(
            f"expected images in --representative_images, got {count:,} broken ones: look at "
            f"{images!r}"
        )
    return views
