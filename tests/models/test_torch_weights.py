"""Converted weights against a forward pass in NumPy: names, axes, numbers."""

import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pic_tf.models import torch_checkpoints, torch_weights
from pic_tf.models.torch_weights import architecture_of, backbone_of, state_of, torch_name
from tests.models.torch_states import BLOCKS, assert_same_features, numpy_features, random_state


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("stem_conv/kernel:0", "conv1.weight"),
        ("stem_bn/gamma:0", "bn1.weight"),
        ("stem_bn/moving_variance", "bn1.running_var"),
        ("stage1_block1_1_conv/kernel:0", "layer1.0.conv1.weight"),
        ("stage3_block23_3_bn/beta:0", "layer3.22.bn3.bias"),
        ("stage4_block2_2_bn/moving_mean:0", "layer4.1.bn2.running_mean"),
        ("stage2_block1_shortcut_conv/kernel:0", "layer2.0.downsample.0.weight"),
        ("resnet50/stage2_block1_shortcut_bn/gamma", "layer2.0.downsample.1.weight"),
    ],
)
def test_names(ours, theirs):
    assert torch_name(ours) == theirs


@pytest.mark.parametrize(
    ("depth", "stem", "width"), [(18, "small", 4), (34, "imagenet", 2), (50, "imagenet", 2)]
)
def test_features_are_those_of_the_definition(depth, stem, width):
    state = random_state(depth, stem, width)
    images = (
        np.random.default_rng(1).normal(size=(2, 3, 33, 40)).astype(np.float32)
    )  # odd and not square
    got = backbone_of(state)(images.transpose(0, 2, 3, 1), training=False)
    assert_same_features(got, numpy_features(state, images))


def test_order_of_axes():
    state = random_state(18)
    kernel = backbone_of(state).get_layer("stage2_block1_1_conv").kernel.numpy()
    assert kernel.shape == (3, 3, 4, 8)
    assert kernel[0, 2, 1, 5] == state["layer2.0.conv1.weight"][5, 1, 0, 2]


@pytest.mark.parametrize(("depth", "stem"), [(18, "imagenet"), (50, "small")])
def test_there_and_back_through_a_file(tmp_path, depth, stem):
    state = random_state(depth, stem, 2)
    save_file(state_of(backbone_of(state).weights), tmp_path / "file.safetensors")
    back = load_file(tmp_path / "file.safetensors")
    assert back.keys() == state.keys()
    for name, array in back.items():
        if name.endswith("num_batches_tracked"):
            assert array.dtype == np.int64 and array.shape == () and array == 0
        else:
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, state[name], err_msg=name)


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize(("stem", "width"), [("imagenet", 1), ("small", 3)])
def test_architecture(depth, stem, width):
    assert architecture_of(random_state(depth, stem, width)) == (depth, stem, width)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions(dtype):
    state = {
        name: array.astype(dtype) if array.dtype == np.float32 else array
        for name, array in random_state(18).items()
    }
    back = state_of(backbone_of(state).weights)
    for name, array in back.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, state[name].astype(np.float32))


def test_keras_3_builds_the_same_network():
    import keras

    assert int(keras.__version__.split(".")[0]) >= 3
    state = random_state(50, "imagenet", 2)
    one, other = backbone_of(state), backbone_of(state, keras)
    assert not isinstance(other, type(one))
    assert [layer.name for layer in other.layers] == [layer.name for layer in one.layers]
    assert [w.path for w in other.weights] == [w.name.removesuffix(":0") for w in one.weights]
    for mine, theirs in zip(state_of(one.weights).items(), state_of(other.weights).items()):
        assert mine[0] == theirs[0]
        np.testing.assert_array_equal(mine[1], theirs[1])
    images = np.random.default_rng(1).normal(size=(2, 40, 33, 3)).astype(np.float32)
    assert_same_features(
        other(images, training=False), numpy_features(state, images.transpose(0, 3, 1, 2))
    )


@pytest.mark.parametrize("module", [torch_checkpoints, torch_weights])
def test_needs_no_torch(module):
    lines = pathlib.Path(module.__file__).read_text().splitlines()
    imported = [line.split()[1] for line in lines if line.split()[:1] in (["import"], ["from"])]
    assert "numpy" in imported and not any(name.startswith("torch") for name in imported)
