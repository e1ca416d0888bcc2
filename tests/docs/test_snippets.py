"""Every Python snippet of README and docs runs, with a tiny network on tiny images."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from PIL import Image

import pic_tf
from pic_tf.data.augment import normalise
from pic_tf.feature_files.compute import embed
from pic_tf.feature_files.settings import EmbedSettings
from tests.docs.documents import PAGES, ROOT, fences

NOT_RUN = {  # a word in the snippet -> why not, and what stands in for it
    "torchvision": "tests/models/test_against_torch.py loads the same weights under torchvision's names",
}
SMALLER = {  # longer texts first
    "len(source), 256, 8192, 1024": "len(source), 8, 8, 8",
    "256, 256, 3": "64, 64, 3",
    "// 256": "// 8",
    "batch(256": "batch(8",
    "N, 512, 131072, 16384": "N, 8, 8, 8",
    "pic_tf.resnet(50)": "tiny()",
    "Crop(224": "Crop(16",
    "200": "1",
}
TINY_RUN = {  # settings beside those of a snippet that trains
    **{"backbone": "resnet18", "stem": "small", "width": 4, "hidden_dim": 8, "embedding_dim": 8},
    **{"image_size": 16, "knn_every": 0, "batch_size": 4, "tensorboard": False},
}


def snippets():
    found = {text: page for page in reversed(PAGES) for text in fences(page, "python")}
    for text, page in sorted(found.items(), key=lambda item: PAGES.index(item[1])):
        # A process with Keras 3 makes the file; tests/serving/test_convert.py reads one like it. What
        # trains has a sibling in tests/test_calls.py, or in tests/serving/test_pyramid.py.
        slow = any(word in text for word in ("backbone.keras", "pic_tf.pretrain(", "detector.fit"))
        marks = [pytest.mark.slow] if slow else []
        yield pytest.param(text, marks=marks, id=f"{page.stem}: {text.splitlines()[-1][:40]}")


def tiny() -> tf_keras.Model:
    """A backbone: images [B, 16, 16, 3] -> features [B, 8]."""
    layers = [
        tf_keras.layers.Conv2D(8, 3, activation="relu"),
        tf_keras.layers.GlobalAveragePooling2D(),
    ]
    return tf_keras.Sequential([tf_keras.Input([16, 16, 3]), *layers])


def assumed() -> dict:
    """What the snippets take for granted."""
    images = np.random.default_rng(0).uniform(size=[16, 16, 16, 3]).astype(np.float32)
    ids = tf.range(16, dtype=tf.int64)
    dataset = tf.data.Dataset.from_tensor_slices((normalise(images), ids)).batch(8)
    model = pic_tf.PIC(tiny(), 16)
    model.compile(pic_tf.LazySGD(0.03, max_updates=10))
    return {
        **{
            "tf": tf,
            "tiny": tiny,
            "keras": tf_keras,
            "np": np,
            "pic_tf": pic_tf,
            "images": images,
            "model": model,
            "dataset": dataset,
        },
        **{
            "classes": 2,
            "labels": np.arange(16) % 2,
            "num_images": 16,
            "N": 16,
            "steps": 2,
            "your_augmentation": lambda image: image,
            "load": lambda ids: tf.gather(images, ids),
        },
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with FOLDER, HELD_OUT, image.jpg and RUN/backbone."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("world"))
    os.makedirs("FOLDER/zero")
    os.makedirs("FOLDER/one")
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, [20, 20, 3]).astype(np.uint8)
        Image.fromarray(pixels).save(f"FOLDER/{('zero', 'one')[number % 2]}/{number}.jpg")
    shutil.copytree("FOLDER", "HELD_OUT")
    shutil.copy("FOLDER/zero/0.jpg", "image.jpg")
    pic_tf.export_backbone(pic_tf.resnet(18, width=8), "RUN/backbone", trained_size=32)
    yield
    os.chdir(before)


def served(request: urllib.request.Request) -> io.BytesIO:
    """TensorFlow Serving's answer to columns of files, by the signature itself."""
    asked = json.loads(request.data)
    files = {
        name: tf.constant([base64.b64decode(x["b64"], validate=True) for x in column])
        for name, column in asked["inputs"].items()
    }
    found = tf.saved_model.load("RUN/backbone").signatures[asked["signature_name"]](**files)
    outputs = {name: x.numpy().tolist() for name, x in found.items()}
    return io.BytesIO(json.dumps({"outputs": outputs}).encode())


@pytest.mark.parametrize("snippet", snippets())
def test_snippet_runs(world, snippet, monkeypatch):
    compile(snippet, "snippet", "exec")
    monkeypatch.setattr(urllib.request, "urlopen", served)
    if any(word in snippet for word in NOT_RUN):
        return
    for large, small in SMALLER.items():
        snippet = snippet.replace(large, small)
    if "backbone.keras" in snippet and not os.path.exists("backbone.keras"):
        pytest.importorskip("keras", "3")
        tool = [
            sys.executable,
            ROOT / "tools/convert_weights.py",
            "--input=RUN/backbone",
            "--output=backbone.keras",
        ]
        subprocess.run(tool, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    for module in ("mlflow", "wandb"):
        if f"import {module}" in snippet:
            pytest.importorskip(module, reason=f"the recipe of {module}: pip install {module}")
    pretrain = pic_tf.pretrain
    smaller = lambda **given: pretrain(**(given | TINY_RUN))  # noqa: E731
    monkeypatch.setattr(pic_tf, "pretrain", smaller, raising=False)
    if "features.parquet" in snippet:
        embed(EmbedSettings("pixels", "FOLDER", output="features.parquet"))
    exec(compile(snippet, "snippet", "exec"), assumed())


def test_what_is_not_run_is_there():
    texts = [text for page in PAGES for text in fences(page, "python")]
    for word in NOT_RUN:
        assert any(word in text for text in texts), word
