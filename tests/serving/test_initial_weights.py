"""Weights that a run starts from: every form gives the same network, and a wrong one a sentence."""

import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from safetensors.numpy import save_file

from pic_tf.models.resnet import resnet
from pic_tf.models.torch_weights import backbone_of, state_of
from pic_tf.runs.initial_weights import with_fingerprint
from pic_tf.serving import initial_weights
from pic_tf.serving.initial_weights import load_initial_weights
from pic_tf.settings.config import Config
from tests.models.torch_states import random_state

pytestmark = pytest.mark.usefixtures("shallow_networks")


@pytest.fixture(scope="module")
def state(shallow_networks):
    """Two blocks of a ResNet-18 under torchvision's names, no number of which is as in a new one."""
    names = state_of(resnet(18, "small", 4).weights)
    return {name: array for name, array in random_state(18).items() if name in names}


@pytest.fixture(scope="module")
def files(state, tmp_path_factory):
    """Form -> path."""
    folder = tmp_path_factory.mktemp("weights")
    backbone = backbone_of(state)
    save_file(state, folder / "in.safetensors")
    # Also with a prefix, a head and instance weights, as PIC's authors save them.
    authors = {f"module.encoder.{name}": array for name, array in state.items()}
    authors |= {"module.sim_matrix": np.zeros([9, 4], np.float32)}
    authors |= {f"module.encoder.{n}": x for n, x in head_of_eight().items()}
    save_file(authors, folder / "authors.safetensors")
    backbone.save_weights(folder / "in.weights.h5")
    backbone.save(folder / "in.keras")
    tf.saved_model.save(backbone, str(folder / "run" / "backbone"))
    return {path.name: str(path) for path in folder.iterdir()}


def head_of_eight() -> dict[str, np.ndarray]:
    return {"fc.weight": np.zeros([5, 8], np.float32), "fc.bias": np.zeros(5, np.float32)}


@pytest.mark.parametrize(
    "form", ["in.safetensors", "authors.safetensors", "in.weights.h5", "in.keras", "run"]
)
def test_all_weights_come_over(files, state, form):
    backbone = resnet(18, "small", 4)
    passed_over = load_initial_weights(backbone, files[form], "resnet18")
    got = state_of(backbone.weights)
    for name, array in got.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, state[name], err_msg=name)
    expected = ["fc.bias", "fc.weight", "module.sim_matrix"] if "authors" in form else []
    assert sorted(passed_over) == expected


def test_keras_3(state, tmp_path):
    keras = pytest.importorskip("keras", "3")
    backbone_of(state, keras).save(tmp_path / "in.keras")
    backbone = resnet(18, "small", 4)
    load_initial_weights(backbone, str(tmp_path / "in.keras"), "resnet18")
    np.testing.assert_array_equal(state_of(backbone.weights)["conv1.weight"], state["conv1.weight"])


def test_pth(state, tmp_path):
    torch = pytest.importorskip("torch", reason="files of torch.save: pip install torch")
    torch.save({"state_dict": {n: torch.tensor(x) for n, x in state.items()}}, tmp_path / "in.pth")
    backbone = resnet(18, "small", 4)
    load_initial_weights(backbone, str(tmp_path / "in.pth"), "resnet18")
    np.testing.assert_array_equal(state_of(backbone.weights)["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize("form", ["in.safetensors", "in.keras", "in.weights.h5"])
def test_another_network_gets_one_sentence(files, form):
    backbone = resnet(18, "small", 8)
    before = [w.numpy() for w in backbone.weights]
    sentence = r"^expected weights of --backbone=resnet18 --stem=small --width=8 in .*, got "
    sentence += r"--backbone=resnet18 --stem=small --width=4: set these$"
    if form.endswith("h5"):
        sentence = r"^expected the weights of resnet18 in .*, got others \([^\n]*: convert them to"
    with pytest.raises(ValueError, match=sentence):
        load_initial_weights(backbone, files[form], "resnet18")
    for weight, value in zip(backbone.weights, before):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("in.keras", b"x", r"expected a model that Keras loads in .*: save it again"),
        ("in.weights.h5", b"x", r"expected the weights of resnet18 in .*, got others"),
        ("in.safetensors", b"x", r"expected safetensors in .*: fetch the file again"),
        (
            "in.bin",
            b"x",
            r"expected a file of weights to end in .safetensors, .pth, .pt, .tar or .k",
        ),
    ],
)
def test_damaged_files_get_one_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
        load_initial_weights(resnet(18, "small", 4), str(tmp_path / name), "resnet18")


def test_the_hash_follows_the_weights(files, tmp_path):
    """Of a file, and of an export wherever it lies; other weights under the name are refused."""
    file = Config(initial_weights=files["in.safetensors"])
    assert len(with_fingerprint(file).initial_weights_sha256) == 64
    run = with_fingerprint(Config(initial_weights=files["run"]))
    copy = shutil.copytree(pathlib.Path(files["run"]) / "backbone", tmp_path / "copy")
    again = with_fingerprint(Config(initial_weights=str(copy)))
    assert again.initial_weights_sha256 == run.initial_weights_sha256
    data, *_ = (copy / "variables").glob("*.data*")
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(
        ValueError, match=r"^expected the weights with SHA-256 .* in .*, got .*: bri"
    ):
        with_fingerprint(again)
    with pytest.raises(
        ValueError, match=r"^expected weights at --initial_weights='no', got No such"
    ):
        with_fingerprint(Config(initial_weights="no"))


def own_network(channels: int = 4, name: str = "first") -> tf_keras.Model:
    """A network that is no ResNet."""
    x = inputs = tf_keras.Input([None, None, 3])
    x = tf_keras.layers.BatchNormalization(name="bn")(
        tf_keras.layers.Conv2D(channels, 3, name=name)(x)
    )
    return tf_keras.Model(inputs, tf_keras.layers.GlobalAveragePooling2D()(x), name="own")


def check_both_forms(build: Callable[[], tf_keras.Model], folder: pathlib.Path, name: str) -> None:
    """Load a network from NAME.keras and from "export", which are left in the folder."""
    given = build()
    given.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in given.weights])
    given.save(folder / f"{name}.keras")
    tf.saved_model.save(given, str(folder / "export"))
    for path in (folder / f"{name}.keras", folder / "export"):
        network = build()
        assert load_initial_weights(network, str(path), f"tests:{name}") == []
        for got, expected in zip(network.get_weights(), given.get_weights()):
            np.testing.assert_array_equal(got, expected)


def test_other_networks_by_the_names_of_their_layers(tmp_path):
    check_both_forms(own_network, tmp_path, "own")
    save_file({"conv1.weight": np.zeros(1, np.float32)}, tmp_path / "own.safetensors")
    for network, path, sentence in (
        (
            own_network(5),
            "own.keras",
            r"expected first/kernel \[3, 3, 3, 5\] of own in .*, got \[3, 3, 3, 4\]",
        ),
        (
            own_network(name="other"),
            "own.keras",
            r"expected other/kernel .* of own in .*, got none: name",
        ),
        (
            own_network(),
            "own.safetensors",
            r"expected a file of weights with Keras' names for own, got",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
            load_initial_weights(network, str(tmp_path / path), "tests:own")


def two_attentions(names=("first", "second")) -> tf_keras.Model:
    """A network whose variables are told apart by more than the last layer's name."""
    x = inputs = tf_keras.Input([4, 3])
    for name in names:
        x = tf_keras.layers.MultiHeadAttention(1, 2, name=name)(x, x)
    return tf_keras.Model(inputs, tf_keras.layers.GlobalAveragePooling1D()(x), name="two")


def test_layers_within_layers(tmp_path):
    check_both_forms(two_attentions, tmp_path, "two")
    other = two_attentions(("first", "third"))
    with pytest.raises(ValueError, match=r"^expected third/query/kernel .* got none: name weights"):
        load_initial_weights(other, str(tmp_path / "export"), "tests:two")


def test_variables_of_one_name_are_refused(tmp_path):
    given = two_attentions()
    given.save(tmp_path / "two.keras")
    x = inputs = tf_keras.Input([4, 3])
    network = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="query")(x), name="one")
    with pytest.raises(
        ValueError, match=r"^expected one query/kernel in one .*, got 1 and 2: give"
    ):
        load_initial_weights(network, str(tmp_path / "two.keras"), "tests:one")


def test_a_download_that_fails_gets_one_sentence(monkeypatch):
    def no_network(name, mean, stddev, weights):
        raise OSError(f"no route to {name} {weights}\nand more")

    monkeypatch.setattr(initial_weights, "named_backbone", no_network)
    sentence = r"^expected Keras to download the weights of applications:VGG16, got no route to .* imagenet: try"
    with pytest.raises(ValueError, match=sentence):
        load_initial_weights(own_network(), "imagenet", "applications:VGG16")


def test_weights_of_three_channels_answer_to_gray_in_five_as_before(files, state, capsys, tmp_path):
    gray = np.random.default_rng(0).normal(size=[2, 12, 12, 1]).astype(np.float32)
    three, five = resnet(18, "small", 4), resnet(18, "small", 4, channels=5)
    load_initial_weights(three, files["in.safetensors"], "resnet18")
    load_initial_weights(five, files["in.safetensors"], "resnet18")
    expected, got = (net(np.repeat(gray, n, -1)).numpy() for net, n in ((three, 3), (five, 5)))
    # sums of three and of five float32 products, through a few layers
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    told = capsys.readouterr().err
    assert told == "initial weights: conv1.weight of 3 channels spread over 5\n"
    save_file(state_of(five.weights), tmp_path / "five.safetensors")
    again = resnet(18, "small", 4, channels=5)
    load_initial_weights(again, str(tmp_path / "five.safetensors"), "resnet18")
    for mine, theirs in zip(again.get_weights(), five.get_weights()):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match=r"expected weights for images of 3 channels .* got 5"):
        load_initial_weights(three, str(tmp_path / "five.safetensors"), "resnet18")
