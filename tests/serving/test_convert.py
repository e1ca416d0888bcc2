"""The conversion of files: through every format and back, in processes without this package, and
wrong input.
"""

import argparse
import os
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from pic_tf.serving.convert import convert
from tests.models.torch_states import (
    MEAN,
    STDDEV,
    assert_same_features,
    checkpoint,
    heads,
    numpy_features,
    random_state,
)
from tests.processes import commands_that_fork


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="files of torch.save: pip install torch")


@pytest.fixture(scope="module")
def state():
    return random_state(18)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(4, 24, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def features(state, images):
    return numpy_features(state, ((images - MEAN) / STDDEV).transpose(0, 3, 1, 2))


@pytest.fixture
def source(tmp_path, state):
    save_file(state, tmp_path / "in.safetensors")
    return tmp_path / "in.safetensors"


def detectron2_name(name):
    """The name of a layer of torchvision in detectron2, part by part."""
    parts = name.split(".")
    block, parts = (parts[:2], parts[2:]) if parts[0].startswith("layer") else ([], parts)
    if parts[0] == "downsample":
        parts = ["shortcut", *(["norm"] if parts[1] == "1" else []), *parts[2:]]
    elif parts[0].startswith("bn"):
        parts = [f"conv{parts[0][2]}", "norm", *parts[1:]]
    return ".".join([f"res{int(block[0][5]) + 1}", block[1], *parts] if block else ["stem", *parts])


def test_detectron2(tmp_path):
    state = random_state(50)
    save_file(state, tmp_path / "in.safetensors")
    convert(tmp_path / "in.safetensors", tmp_path / "backbone.pkl")
    found = pickle.loads((tmp_path / "backbone.pkl").read_bytes())
    assert found["matching_heuristics"] is True and found["__author__"] == "pic_tf"
    expected = {
        detectron2_name(name): array
        for name, array in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert expected.keys() >= {  # names of its model zoo, by hand
        "stem.conv1.weight",
        "stem.conv1.norm.running_var",
        "res2.0.conv1.norm.bias",
        "res2.0.shortcut.weight",
        "res4.5.conv2.weight",
        "res5.0.shortcut.norm.running_mean",
        "res5.2.conv3.norm.weight",
    }
    assert_same_state(found["model"], expected)


def assert_same_state(got, expected):
    assert got.keys() == expected.keys()
    for name, array in got.items():
        assert array.dtype == expected[name].dtype
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_saved_model_there_and_back(tmp_path, source, state, images, features):
    convert(source, tmp_path / "backbone", image_size=None)
    served = tf.saved_model.load(str(tmp_path / "backbone")).signatures["serving_default"]
    assert_same_features(served(images=tf.constant(images))["features"], features)
    lines = convert(tmp_path, tmp_path / "out.safetensors")  # as the folder of a run
    assert_same_state(load_file(tmp_path / "out.safetensors"), state)
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.safetensors",
        "backbone",
        "out.safetensors",
    }
    count = sum(array.size for name, array in state.items() if "num_batches" not in name)
    assert f"resnet18, {count:,} parameters, 32 features" in lines[0]


# Another process with Keras 3 alone: the features, then a classifier on top that learns which
# pictures are darker.
USE_KERAS_3 = """
import sys
import numpy as np
import keras

path, arrays = sys.argv[1:]
images = np.load(arrays)
model = keras.saving.load_model(path)
np.save(arrays, model(images))
classifier = keras.Sequential([model, keras.layers.Dense(2, "softmax")])
classifier.compile(keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy")
before = [np.array(w) for w in model.weights]
pictures, labels = np.concatenate([images, images / 4]), np.repeat([0, 1], len(images))
losses = [float(classifier.train_on_batch(pictures, labels)) for _ in range(6)]
print(*losses)
print(sum(not np.array_equal(a, w) for a, w in zip(before, model.weights)), len(before))
assert not any(name.split(".")[0] in ("pic_tf", "tf_keras") for name in sys.modules)
"""


def test_keras_3_without_this_package(tmp_path, source, images, features):
    convert(source, tmp_path / "out.keras", image_size=None)
    assert not (tmp_path / "out.partial.keras").exists()
    arrays = tmp_path / "arrays.npy"
    np.save(arrays, images)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TF_USE", "PYTHONPATH"))
    }
    ended = subprocess.run(
        [sys.executable, "-c", USE_KERAS_3, tmp_path / "out.keras", arrays],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert_same_features(np.load(arrays), features)
    *_, losses, moved = ended.stdout.splitlines()
    losses = [float(loss) for loss in losses.split()]
    assert losses[-1] < 0.8 * losses[0]
    assert moved.split()[0] == moved.split()[1]  # weights and batch statistics


def test_head(tmp_path, state):
    head, _ = heads(True)
    rows = {"module.sim_matrix": np.ones([10, 5], np.float32)}
    save_file(checkpoint("module.encoder.", state | head, **rows), tmp_path / "pic.safetensors")
    lines = convert(
        tmp_path / "pic.safetensors",
        tmp_path / "out.safetensors",
        head_output=tmp_path / "head.safetensors",
    )
    assert_same_state(load_file(tmp_path / "out.safetensors"), state)
    assert_same_state(load_file(tmp_path / "head.safetensors"), head)
    assert lines[-1] == "passed over: module.sim_matrix"
    said = convert(tmp_path / "pic.safetensors", tmp_path / "out.safetensors")[-1]
    assert said == "passed over: module.sim_matrix, fc1.weight, fc1.bias, fc2.weight, fc2.bias"


# ---------------------------------------------------------------- files of torch.save


@pytest.mark.parametrize(
    "zipped", [True, False]
)  # as PyTorch 1.4 wrote, which the authors used, there is no zip
def test_checkpoint_of_the_authors(tmp_path, torch, state, zipped):
    head, _ = heads(True)
    arrays = checkpoint(
        "module.encoder.", state | head, **{"module.sim_matrix": np.ones([10, 5], np.float32)}
    )
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    settings = argparse.Namespace(model="PIC", mlp_head=True, amp_opt_level="O0")
    whole = {
        "opt": settings,
        "model": tensors,
        "optimizer": {"state": {}},
        "scheduler": {},
        "epoch": 200,
    }
    whole["sampler"] = {"start_index": 0}
    torch.save(whole, tmp_path / "current.pth", _use_new_zipfile_serialization=zipped)
    convert(
        tmp_path / "current.pth", tmp_path / "out.pth", head_output=tmp_path / "head.safetensors"
    )
    back = torch.load(tmp_path / "out.pth", weights_only=True)
    assert_same_state({name: tensor.numpy() for name, tensor in back.items()}, state)
    assert_same_state(load_file(tmp_path / "head.safetensors"), head)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(tmp_path, torch, state, dtype):
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    halves = {
        n: t.to(getattr(torch, dtype)) if t.is_floating_point() else t for n, t in tensors.items()
    }
    torch.save({"state_dict": halves}, tmp_path / "in.pth.tar")
    convert(tmp_path / "in.pth.tar", tmp_path / "out.safetensors")
    back = load_file(tmp_path / "out.safetensors")
    for name, half in halves.items():
        if half.is_floating_point():
            np.testing.assert_array_equal(back[name], half.float().numpy())


class Attack:
    """An object that runs a command where pickle loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_runs(tmp_path, torch):
    torch.save({"model": {}, "opt": Attack(tmp_path / "attacked")}, tmp_path / "in.pth")
    with pytest.raises(
        ValueError,
        match=r"that torch\.load refuses .*: where it was made, save the state_dict alone",
    ):
        convert(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_without_pytorch(tmp_path, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "in.pth").write_bytes(b"")
    for names in (("in.pth", "out.safetensors"), (source.name, "out.pth")):
        with pytest.raises(
            ValueError,
            match=r"expected PyTorch for files of torch\.save, got none: pip install torch",
        ):
            convert(*(tmp_path / name for name in names))
    assert {path.name for path in tmp_path.iterdir()} == {"in.safetensors", "in.pth"}


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("source", "output", "more", "sentence"),
    [
        ("none.safetensors", "out", {}, "expected a file of weights or the folder of an export at .*none.safetensors"),
        (".", "out", {}, "expected a file of weights or the folder of an export"),
        ("notes.txt", "out", {}, "expected a file of weights to end in .safetensors, .pth, .pt, .tar or .keras, got .*notes.txt"),
        ("damaged.safetensors", "out", {}, "expected safetensors in .*damaged.safetensors'"),
        ("foreign", "out", {}, "expected the variables of a ResNet of pic_tf, got 'dense/kernel:0'"),
        ("bare", "out", {}, "expected conv1.weight, got none: only plain ResNets"),
        ("broken", "out", {}, "expected a SavedModel in .*broken'"),
        ("in.safetensors", "out.h5", {}, "expected --output to end in .safetensors, .pth, .pkl, .keras, .tflite or .onnx, or a folder"),
        ("in.safetensors", "full", {}, "expected a new folder or an older export"),
        ("in.safetensors", "full.keras", {}, "expected a file as --output, got the folder .*full.keras"),
        ("in.safetensors", "out.safetensors", {"image_size": 32}, "expected --image_size with a .keras, .tflite or .onnx file"),
        ("in.safetensors", "out", {"head_output": "head.safetensors"}, "expected a head in .*in.safetensors'"),
        ("in.safetensors", "out", {"head_output": "head.pth"}, "expected --head_output to end in .safetensors"),
        ("in.safetensors", "a.safetensors", {"head_output": "a.safetensors"}, "expected two files as --output and"),
        ("in.safetensors", "out", {"prefix": "module."}, "expected a prefix that names one ResNet, '', got 'module.'"),
    ],
)  # fmt: skip
def test_wrong_input(tmp_path, source, output, more, sentence, state):
    save_file(state, tmp_path / "in.safetensors")
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    for folder in ("full", "full.keras"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"broken")
    module = tf.train.Checkpoint()
    if source == "foreign":
        module.variables = [tf.Variable([1.0], name="dense/kernel")]
    if source in ("foreign", "bare"):
        tf.saved_model.save(module, str(tmp_path / source))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    if "head_output" in more:
        more = {"head_output": tmp_path / more["head_output"]}
    with pytest.raises(ValueError, match=sentence):
        convert(tmp_path / source, tmp_path / output, **more)
    assert {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()
    } == before


def test_command(tmp_path, source):
    """An output that is there already is replaced only by a whole one."""
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"older")

    def run(*arguments):
        with commands_that_fork() as fork:
            return fork("tools.convert_weights", [*map(str, arguments)], environment, 120)

    ended = run(f"--input={source}", f"--output={tmp_path / 'none' / 'out.safetensors'}")
    assert ended.code == 1 and ended.stdout == ""
    assert re.fullmatch(
        r"error: expected to write to '.*', got .*none.*: make room.*\n", ended.stderr
    )
    ended = run(f"--input={tmp_path / 'none.pth'}", f"--output={out}")
    assert ended.code == 1 and re.fullmatch(r"error: expected a file of weights .*\n", ended.stderr)
    assert out.read_bytes() == b"older"
    ended = run(f"--input={source}", f"--output={out}")
    assert ended.code == 0 and "resnet18" in ended.stdout and ended.stderr == ""
    assert_same_state(load_file(out), load_file(source))
