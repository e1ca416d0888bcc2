"""Converted weights against PyTorch itself, where it is installed."""

import collections

import numpy as np
import pytest
import tf_keras as keras
from PIL import Image

from pic_tf.models.torch_checkpoints import parts_of
from pic_tf.models.torch_weights import backbone_of, state_of
from tests.models.torch_states import BLOCKS, MEAN, STDDEV, assert_same_features, random_state


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip(
        "torch", reason="the comparison with PyTorch itself: pip install torch"
    )


def torch_resnet(torch, depth):
    """The published network, names as in torchvision, with random batch statistics, gammas and
    betas.
    """
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
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
                )

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
    return np.stack(
        [np.asarray(Image.open(p).convert("RGB").resize((72, 80)), np.float32) / 255 for p in paths]
    )


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
    back = {
        name: torch.from_numpy(np.array(array))
        for name, array in state_of(backbone.weights).items()
    }
    assert {n: (a.shape, a.dtype) for n, a in back.items()} == {
        n: (a.shape, a.dtype) for n, a in network.state_dict().items()
    }
    other = torch_resnet(torch, depth)
    other.load_state_dict(back)  # strict
    for (name, one), two in zip(network.state_dict().items(), other.state_dict().values()):
        assert torch.equal(one, two), name


def test_the_detector_of_pytorch_has_the_same_features(torch, pictures):
    """The body of torchvision's Faster R-CNN takes converted weights, and gives the same maps."""
    detection = pytest.importorskip(
        "torchvision.models.detection", reason="the detector itself: pip install torchvision"
    )
    backbone = backbone_of(random_state(50, "imagenet", 64))
    detector = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    body = detector.backbone.body
    state = state_of(backbone.weights)
    body.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in state.items()})  # strict
    images = (pictures[:1] - MEAN) / STDDEV
    with torch.no_grad():
        expected = body(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    last = {layer.name.split("_")[0]: layer.output for layer in backbone.layers}  # of each stage
    stages = [last[f"stage{i + 1}"] for i in range(4)]
    for ours, theirs in zip(keras.Model(backbone.input, stages)(images), expected.values()):
        assert_same_features(ours, theirs.numpy().transpose(0, 2, 3, 1))
