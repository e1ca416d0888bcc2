"""TFLite and ONNX files against the SavedModel that they were made of."""

import pathlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from pic_tf.data.sources.named import open_dataset
from pic_tf.serving import graph_files
from pic_tf.serving.convert import convert
from pic_tf.serving.saved_model import export_backbone

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(3, 20, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network that is no ResNet, with batch statistics that are not the initial ones."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input([None, None, 3]),
            layers.Conv2D(16, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, strides=2),
            layers.Conv2D(32, 1, activation="gelu"),
            layers.GlobalAveragePooling2D(),
        ],
        "small",
    )
    network(tf.random.normal([8, 16, 16, 3]), training=True)
    folder = tmp_path_factory.mktemp("graphs")
    export_backbone(network, folder / "backbone", backbone_input="normalised")
    for i, picture in enumerate(RNG.integers(0, 256, (12, 20, 24, 3), np.uint8)):
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / "images" / f"{i}.png")
    (folder / "images" / "half.png").write_bytes((folder / "images/0.png").read_bytes()[:99])
    (folder / "broken").mkdir()
    return folder


@pytest.fixture(scope="module")
def features(exported):
    model = tf.saved_model.load(str(exported / "backbone"))
    return model.signatures["serving_default"](images=tf.constant(IMAGES))["features"].numpy()


def of_tflite(path: pathlib.Path, images: np.ndarray) -> tuple[np.ndarray, set]:
    """Features, and the kinds of numbers of the tensors."""
    interpreter = tf.lite.Interpreter(str(path))
    [signature] = interpreter.get_signature_list().values()
    assert signature == {"inputs": ["images"], "outputs": ["features"]}
    [given], [found] = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == found["dtype"] == np.float32
    interpreter.resize_tensor_input(given["index"], images.shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    kinds = {np.dtype(x["dtype"]).name for x in interpreter.get_tensor_details()}
    return interpreter.get_tensor(found["index"]), kinds


def test_tflite_in_float32_takes_any_size(exported, features):
    [line] = convert(exported / "backbone", exported / "any.tflite")
    assert line == f"small, 32 features, float32: {exported / 'any.tflite'}"
    got, kinds = of_tflite(exported / "any.tflite", IMAGES)
    # Sums of 480 places and 27 products in another order: some steps of float32.
    np.testing.assert_allclose(got, features, rtol=1e-5, atol=1e-6)
    assert "int8" not in kinds
    assert got.std(0).max() > 1e-3, "images that differ have features that differ"


def test_tflite_in_8_bits_points_the_same_way(exported, features):
    path = exported / "int8.tflite"
    [line] = convert(
        exported / "backbone", path, image_size=20, int8_images=str(exported / "images")
    )
    assert "8-bit numbers by 12 images" in line, "the broken one is left out"
    images = IMAGES[:, :, 2:22]
    model = tf.saved_model.load(str(exported / "backbone"))
    expected = model.signatures["serving_default"](images=tf.constant(images))["features"].numpy()
    got, kinds = of_tflite(path, images)
    assert "int8" in kinds
    cosine = (
        (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    )
    # Each number within half of a 255th of its range: some 0.2 % of the largest, in three layers.
    assert cosine.min() > 0.999
    assert np.abs(got - expected).max() > 1e-4, "8 bits are not float32"
    with pytest.raises(RuntimeError, match="resize dimension 2 of tensor 0 with value 20 to 24"):
        of_tflite(path, IMAGES)


def test_onnx_takes_any_size(exported, features):
    runtime = pytest.importorskip("onnxruntime", reason="pip install '.[onnx]' onnxruntime")
    pytest.importorskip("tf2onnx", reason="pip install '.[onnx]' onnxruntime")
    convert(exported / "backbone", exported / "any.onnx")
    session = runtime.InferenceSession(str(exported / "any.onnx"))
    assert [x.name for x in session.get_inputs()] == ["images"]
    [got] = session.run(["features"], {"images": IMAGES})
    np.testing.assert_allclose(got, features, rtol=1e-5, atol=1e-6)  # as above


@pytest.mark.parametrize(
    "output, more, message",
    [
        ("a.onnx", {}, r"expected tf2onnx for a .onnx file, got none: pip install '\.\[onnx\]'"),
        (
            "a.onnx",
            {"int8_images": "images"},
            "expected --representative_images with a .tflite file, got",
        ),
        (
            "a.safetensors",
            {"int8_images": "images"},
            "expected --representative_images with a .tflite file, got",
        ),
        (
            "a.tflite",
            {"int8_images": "images"},
            "expected --image_size with --representative_images, got non",
        ),
        (
            "a.tflite",
            {"int8_images": "broken", "image_size": 8},
            "expected images in --representative_images, got 2 broken ones",
        ),
        ("a.tflite", {"head_output": pathlib.Path("h.safetensors")}, "expected --head_output with"),
    ],
)
def test_wrong_input(exported, monkeypatch, output, more, message):
    monkeypatch.chdir(exported)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # as if it were not installed
    for name in ("0.png", "1.png"):
        (exported / "broken" / name).write_bytes((exported / "images/half.png").read_bytes())
    with pytest.raises(ValueError, match=message):
        convert(exported / "backbone", pathlib.Path(output), **more)
    assert not pathlib.Path(output).exists()


def test_an_image_that_goes_meanwhile_gets_one_sentence(exported, tmp_path, monkeypatch):
    images, opened = shutil.copytree(exported / "images", tmp_path / "images"), open_dataset

    def then_gone(*names, **options):
        found = opened(*names, **options)
        (images / "1.png").unlink()
        return found

    monkeypatch.setattr(graph_files, "open_dataset", then_gone)
    with pytest.raises(ValueError, match=r"^expected an image in '.*1.png', got one that cannot"):
        convert(exported / "backbone", tmp_path / "a.tflite", image_size=8, int8_images=str(images))
