"""An exported SavedModel only computes: no op of it touches files or runs Python, no layer of it
holds code.
"""

import json
import pathlib

import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow.core.protobuf import saved_model_pb2
from tf_keras.protobuf import saved_metadata_pb2

from pic_tf.serving import of_run
from pic_tf.settings import defaults, networks
from tests.short_runs import SMALL

ALLOWED = {
    *(
        "AddV2",
        "Conv2D",
        "FusedBatchNormV3",
        "MaxPool",
        "Mean",
        "Mul",
        "Pack",
        "Pad",
        "Relu",
        "Select",
    ),
    *("Const", "Identity", "NoOp", "PartitionedCall", "Placeholder", "StatefulPartitionedCall"),
    *("AssignVariableOp", "DisableCopyOnRead", "ReadVariableOp", "VarHandleOp"),
    # Encoded images, one by one: what they are, decoding, shrinking, cutting.
    *(
        "DecodeImage",
        "DecodeJpeg",
        "ResizeBilinear",
        "ScaleAndTranslate",
        "StridedSlice",
        "Substr",
        "Unpack",
    ),
    *(
        "Any",
        "Cast",
        "EnsureShape",
        "Equal",
        "FloorDiv",
        "Greater",
        "Less",
        "LogicalAnd",
        "Maximum",
        "Minimum",
    ),
    *("RealDiv", "Round", "Shape", "StatelessIf", "StatelessWhile", "Sub"),
    *(
        "TensorListFromTensor",
        "TensorListGetItem",
        "TensorListReserve",
        "TensorListSetItem",
        "TensorListStack",
    ),
    # All at once, or one by one where an image is broken.
    *("ConcatenateDataset", "DatasetToSingleElement", "IgnoreErrorsDataset", "MapDataset"),
    *("TakeDataset", "TensorDataset"),
    # Screens and transparent colours of GIFs, palettes of BMPs, headers of WebPs, refusals.
    *("AddN", "All", "Assert", "BitwiseAnd", "DecodeBmp", "DecodePaddedRaw", "DecodePng"),
    *("DecodeRaw", "DecodeWebP", "Fill", "GatherV2", "GreaterEqual", "If", "LessEqual"),
    *("LogicalNot", "LogicalOr", "NotEqual", "Pow", "Prod", "Reshape", "RightShift", "SelectV2"),
    *("Size", "StringJoin", "StringLength", "While"),
}
OF_THE_SAVER = {
    "MergeV2Checkpoints",
    "RestoreV2",
    "SaveV2",
    "ShardedFilename",
    "StaticRegexFullMatch",
    "StringJoin",
}
LAYERS = {
    *(
        "Activation",
        "Add",
        "BatchNormalization",
        "Conv2D",
        "Functional",
        "GlobalAveragePooling2D",
        "InputLayer",
    ),
    *("MaxPooling2D", "ReLU", "Rescaling", "ZeroPadding2D"),
}
FILES = {
    "saved_model.pb",
    "keras_metadata.pb",
    "fingerprint.pb",
    "variables.index",
    "variables.data-00000-of-00001",
}
FILES |= {"model_card.json", "model_card.md"}  # text


def strange_parts(path: pathlib.Path) -> set[str]:
    """Ops, Keras layers and files that a plain network of ours does not need; only the saver may
    touch files.
    """
    model, metadata = saved_model_pb2.SavedModel(), saved_metadata_pb2.SavedMetadata()
    model.ParseFromString((path / "saved_model.pb").read_bytes())
    strange = {file.name for file in path.rglob("*") if file.is_file()} - FILES
    for graph in (meta.graph_def for meta in model.meta_graphs):
        strange |= {node.op for node in graph.node} - ALLOWED
        for function in graph.library.function:
            saver = function.signature.name.startswith(
                ("__inference__traced_save", "__inference__traced_restore")
            )
            strange |= (
                {node.op for node in function.node_def}
                - ALLOWED
                - (OF_THE_SAVER if saver else set())
            )
    if (path / "keras_metadata.pb").exists():
        metadata.ParseFromString((path / "keras_metadata.pb").read_bytes())
        strange |= {json.loads(node.metadata)["class_name"] for node in metadata.nodes} - LAYERS
    return strange


def test_an_export_only_computes(shallow_networks, tmp_path):
    config = defaults.resolve(SMALL, 1500)
    backbone, path = networks.plain_backbone(config), tmp_path / "backbone"
    of_run.export_trained(config, backbone, path, 0, tmp_path / "metrics.csv")
    assert strange_parts(path) == set()


def python(x):
    return tf.py_function(lambda y: y, [x], tf.float32)


def numpy(x):
    return tf.numpy_function(lambda y: y, [x], tf.float32)


def read(x):
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def write(x):
    with tf.control_dependencies([tf.io.write_file("file", "text")]):
        return tf.identity(x)


def restore(x):
    return (
        x
        + tf.raw_ops.RestoreV2(
            prefix="file", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
        )[0]
    )


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (python, "EagerPyFunc"),
        (numpy, "PyFunc"),
        (read, "ReadFile"),
        (write, "WriteFile"),
        (restore, "RestoreV2"),
        (lambda x: tf.map_fn(python, x), "EagerPyFunc"),  # in a function of a function
    ],
)
def test_the_check_of_exports_finds(tmp_path, function, op):
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(tmp_path))
    assert op in strange_parts(tmp_path)


def test_the_check_of_exports_finds_a_layer_with_code(tmp_path):
    layers = [keras.Input([2]), keras.layers.Lambda(lambda x: x * 2)]
    keras.Sequential(layers).save(tmp_path / "model", save_format="tf")
    assert "Lambda" in strange_parts(tmp_path / "model")
    (tmp_path / "model" / "assets" / "state.pkl").write_bytes(b"")
    assert "state.pkl" in strange_parts(tmp_path / "model")
