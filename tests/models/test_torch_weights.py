"""Converted weights against PyTorch itself, and against a forward pass in NumPy where PyTorch is not installed."""

import collections
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from safetensors.numpy import load_file, save_file

from pic_tf.models import torch_weights
from pic_tf.models.resnet import resnet
from pic_tf.models.torch_weights import (
    architecture_of,
    backbone_of,
    head_of,
    load_state,
    parts_of,
    state_of,
    torch_name,
    unnested,
)

# From torchvision's documentation: blocks in the four stages, convolutions in a block.
BLOCKS = {18: ((2, 2, 2, 2), 2), 34: ((3, 4, 6, 3), 2), 50: ((3, 4, 6, 3), 3), 101: ((3, 4, 23, 3), 3)}
BLOCKS |= {152: ((3, 8, 36, 3), 3)}
MEAN, STDDEV = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def random_state(depth, stem="small", width=4, seed=0):
    """All arrays of a torchvision ResNet without a classifier, none of them 0 or 1 as in a new network."""
    rng, state = np.random.default_rng(seed), {}

    def conv_norm(conv, norm, inputs, outputs, size):
        scale = (2 / (inputs * size * size)) ** 0.5
        state[f"{conv}.weight"] = rng.normal(scale=scale, size=(outputs, inputs, size, size)).astype(np.float32)
        for part, low, high in (("weight", 0.5, 1.2), ("bias", -0.5, 0.5), ("running_mean", -1, 1)):
            state[f"{norm}.{part}"] = rng.uniform(low, high, outputs).astype(np.float32)
        state[f"{norm}.running_var"] = rng.uniform(0.5, 2, outputs).astype(np.float32)
        state[f"{norm}.num_batches_tracked"] = np.array(7)

    stages, convs = BLOCKS[depth]
    conv_norm("conv1", "bn1", 3, width, 7 if stem == "imagenet" else 3)
    channels = width
    for stage, blocks in enumerate(stages):
        inner = width * 2**stage
        outer = inner * (4 if convs == 3 else 1)
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            sizes = [(channels, inner, 1), (inner, inner, 3), (inner, outer, 1)]
            if convs == 2:
                sizes = [(channels, inner, 3), (inner, inner, 3)]
            for j, (inputs, outputs, size) in enumerate(sizes, 1):
                conv_norm(f"{name}.conv{j}", f"{name}.bn{j}", inputs, outputs, size)
            if block == 0 and (stage > 0 or channels != outer):
                conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", channels, outer, 1)
            channels = outer
    return state


def numpy_features(state, images):
    """A ResNet v1.5 by its definition, float64, channels first: images [B, 3, H, W] -> [B, C]."""

    def conv(x, name, stride):
        weight = state[f"{name}.weight"].astype(np.float64)
        size = weight.shape[-1]
        x = np.pad(x, [(0, 0), (0, 0), (size // 2, size // 2), (size // 2, size // 2)])
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride]
        return np.einsum("bihwyx,oiyx->bohw", windows, weight, optimize=True)

    def norm(x, name):
        gamma, beta, mean, var = (
            state[f"{name}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta

    imagenet = state["conv1.weight"].shape[-1] == 7
    x = np.maximum(norm(conv(images, "conv1", 2 if imagenet else 1), "bn1"), 0)
    if imagenet:
        x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
        x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max((-2, -1))
    convs = 3 if "layer1.0.conv3.weight" in state else 2
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = x
            for j in range(1, convs + 1):
                # v1.5: the first 3 x 3 convolution strides.
                y = norm(conv(y, f"{name}.conv{j}", stride if j == convs - 1 else 1), f"{name}.bn{j}")
                y = np.maximum(y, 0) if j < convs else y
            if f"{name}.downsample.0.weight" in state:
                x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x, block = np.maximum(x + y, 0), block + 1
    return x.mean((2, 3))


def assert_same_features(got, expected):
    # 1e-4 of the largest feature; float32 and another order of sums differ by 1e-6 at most over 152 layers.
    assert np.abs(expected).max() > 0 and np.abs(expected).std() > 0.01 * np.abs(expected).max()
    assert np.abs(np.asarray(got) - expected).max() <= 1e-4 * np.abs(expected).max()


# ---------------------------------------------------------------- names and numbers


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


@pytest.mark.parametrize(("depth", "stem", "width"), [(18, "small", 4), (34, "imagenet", 2), (50, "imagenet", 2)])
def test_features_are_those_of_the_definition(depth, stem, width):
    state = random_state(depth, stem, width)
    images = np.random.default_rng(1).normal(size=(2, 3, 33, 40)).astype(np.float32)  # odd and not square
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
        name: array.astype(dtype) if array.dtype == np.float32 else array for name, array in random_state(18).items()
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
    assert_same_features(other(images, training=False), numpy_features(state, images.transpose(0, 3, 1, 2)))


# ---------------------------------------------------------------- checkpoints


def checkpoint(prefix, backbone, **beside):
    return {prefix + name: array for name, array in backbone.items()} | beside


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "module.encoder.", "backbone.", "model.backbone.body."])
def test_prefixes(prefix):
    state = random_state(18)
    fc = {f"{prefix}fc.weight": np.ones([5, 32], np.float32), f"{prefix}fc.bias": np.ones([5], np.float32)}
    parts = parts_of(checkpoint(prefix, state, **fc))
    assert same(parts.backbone, {n: a for n, a in state.items() if "num_batches" not in n})
    assert parts.head.keys() == {"fc.weight", "fc.bias"} and parts.passed_over == ()


@pytest.mark.parametrize("nest", [lambda x: x, lambda x: {"state_dict": x, "epoch": 3}, lambda x: {"model": x}])
def test_nesting(nest):
    state = random_state(18)
    assert unnested(nest(state)) is state


def heads(mlp):
    """A head as PIC's authors keep it, and its embedding of features h."""
    rng = np.random.default_rng(2)
    w1, b1, w2, b2 = (rng.normal(size=size).astype(np.float32) for size in ([6, 32], [6], [5, 6], [5]))
    if mlp:
        arrays = {"fc1.weight": w1, "fc1.bias": b1, "fc2.weight": w2, "fc2.bias": b2}
        return arrays, lambda h: np.maximum(h @ w1.T + b1, 0) @ w2.T + b2
    return {"fc.weight": w1, "fc.bias": b1}, lambda h: h @ w1.T + b1


@pytest.mark.parametrize("mlp", [True, False])
def test_checkpoint_of_the_authors(mlp):
    state, (head, embed) = random_state(18), heads(mlp)
    rows = np.ones([10, 5], np.float32)
    arrays = checkpoint("module.encoder.", state | head, **{"module.sim_matrix": rows})
    parts = parts_of(unnested({"opt": None, "model": arrays, "optimizer": {}, "scheduler": {}, "epoch": 200}))
    assert same(parts.backbone, {n: a for n, a in state.items() if "num_batches" not in n})
    assert same(parts.head, head)
    assert parts.passed_over == ("module.sim_matrix",)
    features = np.random.default_rng(3).normal(size=(4, 32)).astype(np.float32)
    # float32 sums of 32 products of numbers near 1.
    np.testing.assert_allclose(head_of(parts.head)(features), embed(features), rtol=1e-4, atol=1e-4)


def test_two_networks_need_a_prefix():
    one, other, (head, _) = random_state(18), random_state(18, seed=1), heads(True)
    names = {"fc1": "fc.0", "fc2": "fc.2"}  # MoCo v2
    head2 = {f"{names[name[:3]]}{name[3:]}": array for name, array in head.items()}
    arrays = checkpoint("module.encoder_q.", one | head2, **checkpoint("module.encoder_k.", other | head2))
    with pytest.raises(ValueError, match=r"'module\.encoder_k\.' or 'module\.encoder_q\.', got None: name one"):
        parts_of(arrays)
    with pytest.raises(ValueError, match=r"got 'module\.': name one"):
        parts_of(arrays, "module.")
    parts = parts_of(arrays, "module.encoder_q.")
    assert np.array_equal(parts.backbone["conv1.weight"], one["conv1.weight"])
    assert same(parts.head, head)
    assert set(parts.passed_over) == {name for name in arrays if name.startswith("module.encoder_k.")}


def test_head_of_other_layers_is_passed_over():
    norm = {"fc.0.weight": np.ones([6, 32], np.float32), "fc.1.weight": np.ones([6], np.float32)}
    parts = parts_of(random_state(18) | norm)
    assert parts.head == {} and set(parts.passed_over) == norm.keys()


# ---------------------------------------------------------------- what does not fit


def changed(**changes):
    """A ResNet-18 with arrays replaced, or taken out by None; __ in a name stands for a dot."""
    state = random_state(18) | {name.replace("__", "."): array for name, array in changes.items()}
    return {name: array for name, array in state.items() if array is not None}


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (changed(layer3__1__bn2__weight=None), "expected layer3.1.bn2.weight, got none: only plain ResNets"),
        (changed(layer1__0__bn1__bias=None, bn1__bias=None), r"expected bn1.bias, got none \(and 1 more like it\)"),
        (changed(layer1__0__se__fc1__weight=zeros(4)), "expected a ResNet's arrays only, got layer1.0.se.fc1.weight"),
        (changed(layer2__0__conv1__weight=zeros(8, 4, 1, 1)), r"layer2.0.conv1.weight \[8, 4, 3, 3\], got \[8, 4, 1, "),
        (changed(bn1__weight=zeros(5)), r"expected bn1.weight \[4\], got \[5\]"),
        (changed(bn1__weight=zeros(4, dtype=np.int8)), "expected bn1.weight of floats, got int8: quantised"),
        (changed(bn1__weight=np.float32([1, 1, np.nan, 1])), "expected finite numbers in bn1.weight, got NaN"),
        (changed(conv1__weight=None, conv1__0__weight=zeros(4, 3, 3, 3)), "expected conv1.weight, got none"),
        (changed(conv1__weight=zeros(4, 1, 7, 7)), r"expected conv1.weight \[C, 3, 7, 7\] or .* got \[4, 1, 7, 7\]"),
        (changed(layer2__2__conv1__weight=zeros(1)), "got 2-3-2-2 basic blocks in layer1 to layer4"),
        ({"patch_embed.weight": zeros(1)}, "expected the weights of a ResNet .* such as 'patch_embed.weight'"),
        ({}, "expected the weights of a ResNet .* got 0 arrays such as 'none'"),
    ],
)  # fmt: skip
def test_what_does_not_fit(state, sentence):
    with pytest.raises(ValueError, match=sentence):
        backbone_of(parts_of(state).backbone)


def test_a_state_that_does_not_fit_changes_nothing():
    model = resnet(18, "small", 4)
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(ValueError, match=r"expected layer4\.1\.bn2\.running_var"):
        load_state(model.weights, changed(layer4__1__bn2__running_var=zeros(3)))
    for one, other in zip(before, model.weights):
        np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: unnested([1]), "expected a checkpoint with arrays by name, got list"),
        (lambda: unnested({"epoch": 3}), "expected arrays by name, .* got 'epoch' of type int"),
        (lambda: unnested({"model": {"opt": None}}), "got 'opt' of type NoneType"),
        (lambda: state_of([tf.Variable(1.0, name="conv2d_7/kernel")]), "expected the variables of a ResNet of pic_tf"),
        (lambda: head_of({}), "expected a head of fc.bias, fc.weight, got none"),
        (lambda: head_of(heads(True)[0] | {"fc2.weight": zeros(5, 7)}), r"fc2.weight \[5, 6\], got \[5, 7\]"),
        (
            lambda: head_of(heads(False)[0] | {"fc.weight": zeros(5, 7, 1, 1)}),
            r"fc.weight \[H, C\], got \[5, 7, 1, 1\]",
        ),
    ],
)
def test_wrong_arguments(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_needs_no_torch():
    lines = pathlib.Path(torch_weights.__file__).read_text().splitlines()
    imported = [line.split()[1] for line in lines if line.split()[:1] in (["import"], ["from"])]
    assert "numpy" in imported and not any(name.startswith("torch") for name in imported)


# ---------------------------------------------------------------- PyTorch itself


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the comparison with PyTorch itself: pip install torch")


def torch_resnet(torch, depth):
    """The published network, names as in torchvision, with random batch statistics, gammas and betas."""
    nn = torch.nn
    stages, convs = BLOCKS[depth]

    class Block(nn.Module):
        def __init__(self, inputs, inner, outer, stride):
            super().__init__()
            sizes = [(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outer, 1, 1)]
            if convs == 2:
                sizes = [(inputs, inner, 3, stride), (inner, inner, 3, 1)]
            for j, (i, o, size, s) in enumerate(sizes, 1):
                setattr(self, f"conv{j}", nn.Conv2d(i, o, size, s, size // 2, bias=False))
                setattr(self, f"bn{j}", nn.BatchNorm2d(o))
            self.downsample = None
            if stride > 1 or inputs != outer:
                self.downsample = nn.Sequential(nn.Conv2d(inputs, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

        def forward(self, x):
            y = x
            for j in range(1, convs + 1):
                y = getattr(self, f"bn{j}")(getattr(self, f"conv{j}")(y))
                y = torch.relu(y) if j < convs else y
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    layers, channels = collections.OrderedDict(), 64
    layers["conv1"], layers["bn1"] = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
    layers["relu"], layers["maxpool"] = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    for stage, count in enumerate(stages):
        inner, blocks = 64 * 2**stage, []
        outer = inner * (4 if convs == 3 else 1)
        for block in range(count):
            blocks.append(Block(channels, inner, outer, 2 if stage and not block else 1))
            channels = outer
        layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    layers["avgpool"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network = nn.Sequential(layers).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in ((module.weight, 0.5, 1.2), (module.bias, -0.5, 0.5)):
                    tensor.uniform_(low, high)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture
def pictures(request):
    """Four photographs, or noise where there are none: [4, 80, 72, 3] in [0, 1]."""
    try:
        folder = request.getfixturevalue("real_photographs")
    except pytest.skip.Exception:
        return np.random.default_rng(0).uniform(size=(4, 80, 72, 3)).astype(np.float32)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())[:4]
    return np.stack([np.asarray(Image.open(p).convert("RGB").resize((72, 80)), np.float32) / 255 for p in paths])


@pytest.mark.parametrize("depth", [18, 50])
def test_pytorch_gives_the_same_features(torch, pictures, depth):
    torch.manual_seed(0)
    network = torch_resnet(torch, depth)
    images = (pictures - MEAN) / STDDEV
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    theirs = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    backbone = backbone_of(parts_of(theirs).backbone)
    assert_same_features(backbone(images, training=False), expected)
    back = {name: torch.from_numpy(np.array(array)) for name, array in state_of(backbone.weights).items()}
    assert {n: (a.shape, a.dtype) for n, a in back.items()} == {
        n: (a.shape, a.dtype) for n, a in network.state_dict().items()
    }
    other = torch_resnet(torch, depth)
    other.load_state_dict(back)  # strict
    for (name, one), two in zip(network.state_dict().items(), other.state_dict().values()):
        assert torch.equal(one, two), name
