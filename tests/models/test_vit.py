"""Vision transformers against their definition in NumPy, under timm's names."""

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file
from scipy.special import erf

from pic_tf.models.vit import SIZES, parse_vit, vit
from pic_tf.models.vit_weights import torch_name
from pic_tf.serving.initial_weights import load_initial_weights

DIM, HEADS, PATCH, DEPTH, GRID = 12, 3, 4, 2, 3


def random_state(rng) -> dict[str, np.ndarray]:
    """All arrays of a plain transformer under timm's names, with a classifier."""
    shapes = {"cls_token": [1, 1, DIM], "pos_embed": [1, 1 + GRID**2, DIM]}
    shapes |= {"patch_embed.proj.weight": [DIM, 3, PATCH, PATCH], "patch_embed.proj.bias": [DIM]}
    for i in range(DEPTH):
        dense = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
        dense |= {"mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}
        for name, shape in dense.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.{part}": [DIM] for part in ("weight", "bias")}
    shapes |= {f"norm.{part}": [DIM] for part in ("weight", "bias")}
    shapes |= {"head.weight": [5, DIM], "head.bias": [5]}
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def numpy_features(state, images) -> np.ndarray:
    """float64 [B, C] of images [B, 12, 12, 3]: the forward pass as timm has it."""
    state = {name: array.astype(np.float64) for name, array in state.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def dense(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    kernel = state["patch_embed.proj.weight"]
    patches = [
        np.einsum("bhwc,dchw->bd", images[:, y : y + PATCH, x : x + PATCH], kernel)
        for y in range(0, 12, PATCH)
        for x in range(0, 12, PATCH)
    ]
    tokens = np.stack(patches, 1) + state["patch_embed.proj.bias"]
    first = np.repeat(state["cls_token"], len(images), 0)
    tokens = np.concatenate([first, tokens], 1) + state["pos_embed"]
    for i in range(DEPTH):
        name = f"blocks.{i}"
        qkv = np.split(dense(norm(tokens, f"{name}.norm1"), f"{name}.attn.qkv"), 3, axis=-1)
        mixed = []
        for q, k, v in zip(*(np.split(x, HEADS, axis=-1) for x in qkv)):
            logits = q @ k.transpose(0, 2, 1) / np.sqrt(DIM / HEADS)
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ v)
        tokens = tokens + dense(np.concatenate(mixed, -1), f"{name}.attn.proj")
        x = dense(norm(tokens, f"{name}.norm2"), f"{name}.mlp.fc1")
        tokens = tokens + dense(x * 0.5 * (1 + erf(x / np.sqrt(2))), f"{name}.mlp.fc2")
    return norm(tokens, "norm")[:, 0]


@pytest.fixture(scope="module")
def network():
    return vit(DIM, HEADS, PATCH, DEPTH, GRID)


def test_features_and_weights_of_timm(network, tmp_path):
    rng = np.random.default_rng(0)
    state = random_state(rng)
    save_file(state, tmp_path / "vit.safetensors")
    assert {torch_name(v.name) for v in network.weights} == state.keys() - {
        "head.bias",
        "head.weight",
    }
    passed_over = load_initial_weights(network, str(tmp_path / "vit.safetensors"), "ours:vit_tiny")
    assert passed_over == ["head.bias", "head.weight"]
    images = rng.normal(size=[4, 12, 12, 3])
    expected = numpy_features(state, images)
    # Float32 through two blocks.
    np.testing.assert_allclose(network(images.astype(np.float32)), expected, rtol=2e-4, atol=2e-5)


def test_images_of_other_sizes(network):
    """Positions are interpolated: those that are all the same stay as they are."""
    positions = next(w for w in network.weights if "pos_embed" in w.name)
    before = positions.numpy()
    positions.assign(np.broadcast_to(before[:, :1], before.shape))
    image = np.full([1, 20, 8, 3], 0.3, np.float32)  # 5 x 2 patches, all alike
    square = np.full([1, 12, 12, 3], 0.3, np.float32)
    # Attention over equal tokens does not depend on their number, but for the class token's share.
    large, small = (network(x).numpy() for x in (image, square))
    assert large.shape == small.shape == (1, DIM) and np.isfinite(large).all()
    tokens = network.get_layer("tokens")
    patches = tf.zeros([1, 5, 2, DIM])
    np.testing.assert_allclose(tokens(patches)[:, 1:], np.repeat(before[:, :1], 10, 1), atol=1e-5)
    positions.assign(before)


def test_wrong_weights_get_one_sentence(network, tmp_path):
    state = random_state(np.random.default_rng(0))
    before = network.get_weights()
    for changed, sentence in (
        (
            {"norm.bias": np.zeros(3, np.float32)},
            r"expected norm.bias for a variable \[12\] in .*got \[3\]",
        ),
        ({"norm.bias": None}, r"expected norm.bias for a variable \[12\] in .*, got none"),
        (
            {"pos_embed": np.zeros([1, 17, DIM], np.float32)},
            r"expected pos_embed .*\[1, 10, 12\] \(9 positions and the class\) in .*got \[1, 17, 12\]",
        ),
        (
            {"blocks.0.ls1.gamma": np.zeros(DIM, np.float32)},
            "expected the blocks of .* alone in .*, got blocks.0.ls1.gamma",
        ),
        (
            {"norm.bias": np.full(DIM, np.nan, np.float32)},
            "expected finite numbers in norm.bias of",
        ),
    ):
        wrong = {name: x for name, x in (state | changed).items() if x is not None}
        save_file(wrong, tmp_path / "vit.safetensors")
        with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
            load_initial_weights(network, str(tmp_path / "vit.safetensors"), "ours:vit_tiny")
    for weight, value in zip(network.get_weights(), before):
        np.testing.assert_array_equal(weight, value)


def test_names():
    assert {name: parse_vit(name) for name in SIZES} == {
        "vit_tiny": (192, 3, 16),
        "vit_small": (384, 6, 16),
        "vit_base": (768, 12, 16),
    }
    assert parse_vit("vit_tiny_patch4") == (192, 3, 4)
    for wrong in ("vit_huge", "vit_tiny_patch0", "vit_tiny_4", "vit"):
        with pytest.raises(
            ValueError, match=r"^expected vit_tiny, vit_small, vit_base or such a na"
        ):
            parse_vit(wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, parameters",
    [("vit_tiny", 5_524_416), ("vit_small", 21_665_664), ("vit_base", 85_798_656)],
)
def test_parameters_are_those_of_timm(name, parameters):
    """timm 1.0 without the classifier, images of 224 pixels."""
    assert vit(*parse_vit(name)).count_params() == parameters
