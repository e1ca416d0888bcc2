"""The exported backbone in the hands of its users."""

import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras as keras
from PIL import Image

from pic_tf.data.augment import normalise
from pic_tf.models.resnet import resnet
from pic_tf.serving.saved_model import export_backbone

pytestmark = pytest.mark.usefixtures("shallow_networks")


@pytest.fixture(scope="module")
def exported(shallow_networks, tmp_path_factory):
    """A backbone whose batch statistics are not the initial ones, and its export."""
    keras.utils.set_random_seed(1)
    backbone = resnet(18, "small", 4)
    for _ in range(3):
        backbone(tf.random.normal([8, 16, 16, 3]), training=True)
    path = tmp_path_factory.mktemp("export") / "backbone"
    export_backbone(backbone, path)
    return backbone, str(path)


def test_signature_takes_plain_images(exported):
    backbone, path = exported
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), dtype=np.uint8)
    signature = tf.saved_model.load(path).signatures["serving_default"]
    features = signature(images=tf.constant(images / 255, tf.float32))["features"]
    expected = backbone(normalise(tf.constant(images)), training=False)
    # The same network in float32, normalised by x / s - m / s here and (x - m) / s there.
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_loads_as_keras_model_with_the_same_weights(exported):
    backbone, path = exported
    again = keras.models.load_model(path, compile=False)
    for one, other in zip(again.get_weights(), backbone.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_layers_that_keras_cannot_make_again_come_with_their_functions(tmp_path):
    """A function of the user's as an activation is in no configuration."""
    images = keras.Input([8, 8, 3])
    maps = keras.layers.Conv2D(4, 3, activation=lambda x: x * x)(images)
    maps = keras.layers.BatchNormalization()(maps)
    backbone = keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps))
    export_backbone(backbone, tmp_path / "backbone", backbone_input="unit")
    again = keras.models.load_model(tmp_path / "backbone", compile=False)
    views = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    # The same network in float32, in another graph.
    np.testing.assert_allclose(again(views), backbone(views), rtol=1e-5, atol=1e-6)


def test_hub_fine_tunes_it(exported):
    _, path = exported
    layer = hub.KerasLayer(path, trainable=True)
    model = keras.Sequential([keras.Input([16, 16, 3]), layer, keras.layers.Dense(2)])
    images = np.random.default_rng(0).uniform(size=(32, 16, 16, 3)).astype(np.float32)
    labels = np.arange(32) % 2
    images[labels == 1] *= 0.5
    model.compile(
        keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    trainable = {v.name: v.numpy() for v in layer.trainable_variables}
    statistics = {v.name: v.numpy() for v in layer.non_trainable_variables}
    # Of two blocks: 6 kernels, 6 times gamma, beta, mean, variance.
    assert len(trainable) == 18 and len(statistics) == 12
    history = model.fit(images, labels, batch_size=16, epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    for variables, before in (
        (layer.trainable_variables, trainable),
        (layer.non_trainable_variables, statistics),
    ):
        moved = [not np.array_equal(v.numpy(), before[v.name]) for v in variables]
        assert all(moved)


def test_hub_without_training_leaves_it_alone(exported):
    _, path = exported
    layer = hub.KerasLayer(path, trainable=False)
    before = [v.numpy() for v in layer.variables]
    images = tf.random.uniform([4, 16, 16, 3])
    np.testing.assert_array_equal(layer(images, training=True), layer(images, training=False))
    for value, variable in zip(before, layer.variables):
        np.testing.assert_array_equal(variable, value)


# Another process with Keras 3 alone; the labels say which pictures are darker.
USE_TFSM_LAYER = """
import sys
import numpy as np
import keras

path, arrays, *optimizers = sys.argv[1:]
images = np.random.default_rng(0).uniform(size=(32, 16, 16, 3)).astype(np.float32)
layer = keras.layers.TFSMLayer(path, "serving_default", "training")
np.save(arrays, layer(images)["features"])
labels = np.arange(32) % 2
images[labels == 1] *= 0.5
for optimizer in optimizers:
    layer = keras.layers.TFSMLayer(path, "serving_default", "training")
    classifier = keras.Sequential([layer, keras.layers.Lambda(lambda x: x["features"]), keras.layers.Dense(2, "softmax")])
    options = {"learning_rate": 0.05, "momentum": 0.9} if optimizer == "SGD" else {"learning_rate": 0.005}
    classifier.compile(getattr(keras.optimizers, optimizer)(**options), "sparse_categorical_crossentropy")
    classifier.build([None, 16, 16, 3])
    classifier.optimizer.build(classifier.trainable_variables)
    before = [np.array(w) for w in layer.weights]
    print(*classifier.fit(images, labels, batch_size=16, epochs=6, verbose=0).history["loss"])
    print(sum(not np.array_equal(a, w) for a, w in zip(before, layer.weights)), len(before))
assert not any(name.split(".")[0] in ("pic_tf", "tf_keras") for name in sys.modules)
"""


@pytest.mark.parametrize(
    "optimizers", [["Adam"], pytest.param(["SGD", "AdamW"], marks=pytest.mark.slow)], ids=str
)
def test_keras_3_fine_tunes_it(exported, tmp_path, optimizers):
    backbone, path = exported
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TF_USE", "PYTHONPATH"))
    }
    ended = subprocess.run(
        [sys.executable, "-c", USE_TFSM_LAYER, path, tmp_path / "features.npy", *optimizers],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    images = np.random.default_rng(0).uniform(size=(32, 16, 16, 3)).astype(np.float32)
    expected = backbone(normalise(tf.constant(images * 255)), training=False)
    # Float32 on both sides, normalised by x / s - m / s there and (x - m) / s here.
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), expected, rtol=1e-4, atol=1e-5)
    lines = ended.stdout.splitlines()[-2 * len(optimizers) :]
    for losses, moved in zip(lines[::2], lines[1::2]):
        losses = [float(loss) for loss in losses.split()]
        assert losses[-1] < 0.7 * losses[0]
        assert moved == "30 30"  # 18 weights and 12 batch statistics


def test_serves_encoded_images(tmp_path):
    """A JPEG, a PNG and a gray JPEG of different sizes against PIL and the float signature."""
    keras.utils.set_random_seed(0)
    export_backbone(resnet(18, "small", 4), tmp_path / "backbone", trained_size=16, eval_crop=0.875)
    generator, encoded, views = np.random.default_rng(0), [], []
    for kind, mode, (height, width) in (
        ("JPEG", "RGB", (40, 64)),
        ("PNG", "RGB", (17, 16)),
        ("JPEG", "L", (50, 30)),
    ):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 4, 3), dtype=np.uint8)).convert(
            mode
        )
        buffer = io.BytesIO()
        coarse.resize((width, height), Image.BICUBIC).save(
            buffer, kind, **({"quality": 90} if kind == "JPEG" else {})
        )
        encoded.append(buffer.getvalue())
        side = round(min(height, width) * 0.875)
        top, left = (height - side) // 2, (width - side) // 2
        decoded = Image.open(buffer).convert("RGB").crop((left, top, left + side, top + side))
        views.append(np.asarray(decoded.resize((16, 16), Image.BILINEAR)))
    signatures = tf.saved_model.load(str(tmp_path / "backbone")).signatures
    served = signatures["encoded"](encoded=tf.constant(encoded))
    features = served["features"]
    assert served["decoded"].numpy().all()
    # Images that cannot be decoded spoil no other one.
    some = signatures["encoded"](encoded=tf.constant([b"text", *encoded, b"", encoded[0][:99]]))
    assert some["decoded"].numpy().tolist() == [False, True, True, True, False, False]
    np.testing.assert_allclose(some["features"][1:4], features, rtol=1e-5, atol=1e-6)
    assert not np.any(some["features"].numpy()[[0, 4, 5]])
    expected = signatures["serving_default"](images=tf.constant(np.stack(views) / 255, tf.float32))[
        "features"
    ]
    # PIL resizes with 8-bit arithmetic: some pixels differ by one level of 255, which the features
    # follow.
    np.testing.assert_allclose(features, expected, atol=0.02 * np.abs(expected).max())
    # Other images are further off, so that the tolerance tells something.
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * np.abs(expected).max()


def test_encoded_images_need_a_size(exported):
    _, path = exported
    assert set(tf.saved_model.load(path).signatures) == {"serving_default", "training"}


def test_replaces_an_older_export_as_a_whole(exported, tmp_path):
    backbone, _ = exported
    path = tmp_path / "backbone"
    path.mkdir()
    (path / "stale").write_text("old")
    (path / "saved_model.pb").write_text("old")
    (path / "model_card.json").write_text('{"format_version": 0}')
    export_backbone(backbone, path, image_size=16)
    assert not (path / "stale").exists() and (path / "saved_model.pb").exists()
    assert [p.name for p in pathlib.Path(tmp_path).iterdir()] == ["backbone"]
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert signature.structured_input_signature[1]["images"].shape.as_list() == [None, 16, 16, 3]


def test_refuses_to_replace_anything_else(exported, tmp_path):
    backbone, _ = exported
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    for name, card in (
        ("another", None),
        ("classifier", {"format_version": 1, "kind": "classifier"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_text("of somebody")
        if card:
            (tmp_path / name / "model_card.json").write_text(json.dumps(card))
    for path in (tmp_path / name for name in ("run", "file", "another", "classifier")):
        with pytest.raises(ValueError, match="expected a new folder or an older export at"):
            export_backbone(backbone, path)
    assert (tmp_path / "run" / "checkpoints").is_dir() and (tmp_path / "file").read_text() == "mine"


def test_feature_maps_are_averaged(tmp_path):
    maps = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.Conv2D(4, 3)])
    export_backbone(maps, tmp_path / "maps", image_size=8)
    features = tf.saved_model.load(str(tmp_path / "maps")).signatures["serving_default"](
        images=tf.zeros([2, 8, 8, 3])
    )
    assert features["features"].shape == (2, 4)
