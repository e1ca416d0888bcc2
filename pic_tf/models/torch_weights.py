"""Weights of ResNets under the names and in the shapes of torchvision and timm, in NumPy alone.

    parts = torch_checkpoints.parts_of(torch_checkpoints.unnested(checkpoint))
    backbone = backbone_of(parts.backbone)

The networks agree to the letter where `resnet` says v1.5: stride in the 3 x 3 convolution, batch
normalisation with epsilon 1e-5, ReLU, images normalised by ImageNet's channel means. The weights do
not tell, so a network that differs in one of these is converted without a word: take torchvision's,
or those of timm called resnet18, resnet34 and so on.
"""

import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import tf_keras

from pic_tf.models.projection import projection_head
from pic_tf.models.resnet import STAGES, resnet

_VARIABLE = re.compile(
    r"(?:.*/)?(?:stem|stage(?P<stage>\d)_block(?P<block>\d+)_(?P<layer>\d|shortcut))"
    r"_(?P<kind>conv|bn)/(?P<part>\w+?)(?::0)?"
)
_PART = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
_PART |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
COUNTER = "num_batches_tracked"  # of PyTorch alone, which reads it only where momentum is None
ADVICE = "only plain ResNets of depth 18 to 152 can be converted"


def architecture_of(
    state: Mapping[str, np.ndarray], channels: int | None = 3
) -> tuple[int, str, int]:
    """Read depth, stem and width, as of `resnet`, off names and shapes.

    Args:
      state: torchvision's names -> arrays.
      channels: of its images; None for any number.

    Raises:
      ValueError: where they are not those of a ResNet.
    """
    if "conv1.weight" not in state:
        raise ValueError(f"expected conv1.weight, got none: {ADVICE}")
    shape = list(state["conv1.weight"].shape)
    n = shape[1] if channels is None and len(shape) == 4 else channels
    if shape[1:] not in ([n, 7, 7], [n, 3, 3]):
        raise ValueError(
            f"expected conv1.weight [C, {n}, 7, 7] or [C, {n}, 3, 3], got {shape}: {ADVICE}"
        )
    blocks = {match[0] for name in state if (match := re.match(r"layer(\d+)\.\d+\.", name))}
    layers = [f"layer{stage}." for stage in range(1, 5)]
    counts = tuple(sum(block.startswith(layer) for block in blocks) for layer in layers)
    bottleneck = "layer1.0.conv3.weight" in state
    there = tuple(count for count in counts if count)
    for depth, stages in STAGES.items():
        if stages == (there, bottleneck):
            return depth, "imagenet" if shape[2] == 7 else "small", shape[0]
    kind = "bottleneck" if bottleneck else "basic"
    raise ValueError(
        f"expected the blocks of one of the depths {', '.join(map(str, STAGES))}, got "
        f"{'-'.join(map(str, counts))} {kind} blocks in layer1 to layer4: {ADVICE}"
    )


def torch_name(variable: str) -> str:
    """Translate a variable's name into torchvision's.

    `stage2_block1_shortcut_bn/gamma:0` -> `layer2.0.downsample.1.weight`.

    Raises:
      ValueError: for a variable that no ResNet of this package has.
    """
    match = _VARIABLE.fullmatch(variable)
    if not match:
        raise ValueError(
            f"expected the variables of a ResNet of pic_tf, got {variable!r}: {ADVICE}"
        )
    stage, layer, kind = match["stage"], match["layer"], match["kind"]
    if stage is None:
        return f"{kind}1.{_PART[match['part']]}"
    module = f"{kind}{layer}"
    if layer == "shortcut":
        module = "downsample.0" if kind == "conv" else "downsample.1"
    return f"layer{stage}.{int(match['block']) - 1}.{module}.{_PART[match['part']]}"


def state_of(variables: Iterable[Any]) -> dict[str, np.ndarray]:
    """Name and lay out weights as torchvision does.

    Args:
      variables: `model.weights` of either Keras, or `tf.saved_model.load(path).variables` of an
        export.

    Returns:
      Name -> float32 array, convolutions [O, I, H, W], and int64 counters of 0 for each batch
      normalisation.

    Raises:
      ValueError: for a variable that no ResNet of this package has.
    """
    state = {}
    for variable in variables:
        array = np.asarray(variable.numpy(), np.float32)
        if array.ndim == 4:
            array = np.ascontiguousarray(array.transpose(3, 2, 0, 1))
        state[torch_name(_name(variable))] = array
    of_norms = [name for name in state if name.endswith("running_var")]
    counters = [name.removesuffix("running_var") + COUNTER for name in of_norms]
    return state | dict.fromkeys(counters, np.zeros((), np.int64))


def detectron2_state(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name weights as the ResNets of detectron2 do; counters are left out.

    `layer2.0.downsample.1.weight` -> `res3.0.shortcut.norm.weight`.

    Args:
      state: torchvision's names -> arrays.

    Source: detectron2's `BasicStem` and `BottleneckBlock` (detectron2/modeling/backbone/resnet.py).
    """
    renamed = {}
    for name, array in state.items():
        if name.endswith(f".{COUNTER}"):
            continue
        name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
        name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        renamed[name if name.startswith("res") else f"stem.{name}"] = array
    return renamed


def load_state(variables: Iterable[Any], state: Mapping[str, np.ndarray]) -> None:
    """Load the weights of a state into a ResNet: all of them, or none where one does not fit.

    Args:
      variables: `model.weights` of either Keras.
      state: torchvision's names -> arrays of floats.

    Raises:
      ValueError: for an array that is missing, unexpected, wrongly shaped, or not of finite floats.
    """
    wanted = {torch_name(_name(variable)): variable for variable in variables}
    if missing := sorted(wanted.keys() - state.keys()):
        raise ValueError(f"expected {missing[0]}, got none{_more(missing)}: {ADVICE}")
    names = {name for name in state if not name.endswith(f".{COUNTER}")}
    if unexpected := sorted(names - wanted.keys()):
        raise ValueError(
            f"expected a ResNet's arrays only, got {unexpected[0]}{_more(unexpected)}: {ADVICE}"
        )
    arrays = [_checked(name, state[name], variable.shape) for name, variable in wanted.items()]
    for variable, array in zip(wanted.values(), arrays):
        variable.assign(array)


def backbone_of(state: Mapping[str, np.ndarray], keras: ModuleType = tf_keras) -> tf_keras.Model:
    """Build the ResNet of a state.

    Args:
      state: torchvision's names -> arrays.
      keras: as of `resnet`.

    Raises:
      ValueError: as of `architecture_of` and `load_state`.
    """
    model = resnet(*architecture_of(state), keras=keras)
    load_state(model.weights, state)
    return model


def head_of(head: Mapping[str, np.ndarray]) -> tf_keras.Model:
    """Build the projection head of a checkpoint.

        pic.projection.set_weights(head_of(head).get_weights())  # to train on with it

    Args:
      head: as of `pic_tf.models.torch_checkpoints.Parts`.

    Raises:
      ValueError: for other names, or arrays whose shapes do not fit together.
    """
    modules = ["fc1", "fc2"] if "fc1.weight" in head else ["fc"]
    expected = {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    if head.keys() != expected:
        got = ", ".join(sorted(head)) or "none"
        raise ValueError(f"expected a head of {', '.join(sorted(expected))}, got {got}")
    kernels = [head[f"{module}.weight"] for module in modules]
    biases = [head[f"{module}.bias"] for module in modules]
    if any(kernel.ndim != 2 for kernel in kernels):
        raise ValueError(
            f"expected {modules[0]}.weight [H, C], got {list(kernels[0].shape)}: leave the head out"
        )
    kind, hidden = ("mlp", kernels[0].shape[0]) if len(modules) == 2 else ("linear", 0)
    model = projection_head(kind, kernels[0].shape[1], hidden, kernels[-1].shape[0])
    dense = [layer for layer in model.layers if layer.weights]
    for module, layer, kernel, bias in zip(modules, dense, kernels, biases):
        shape = (layer.kernel.shape[1], layer.kernel.shape[0])
        layer.kernel.assign(_checked(f"{module}.weight", kernel, shape).T)
        layer.bias.assign(_checked(f"{module}.bias", bias, layer.bias.shape))
    return model


def _name(variable: Any) -> str:
    # Keras 3 has the layer's name in the path alone.
    return getattr(variable, "path", variable.name)


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more like it)" if names[1:] else ""


def _checked(name: str, array: np.ndarray, shape: Iterable[int]) -> np.ndarray:
    """Give an array in float32 and TensorFlow's order of axes; `shape` is the variable's own."""
    shape = tuple(shape)
    theirs = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
    if tuple(array.shape) != theirs:
        raise ValueError(f"expected {name} {list(theirs)}, got {list(array.shape)}: {ADVICE}")
    if array.dtype.kind in "biuOSU":
        raise ValueError(
            f"expected {name} of floats, got {array.dtype}: quantised weights cannot be converted"
        )
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(
            f"expected finite numbers in {name}, got NaN or infinity: the checkpoint is damaged"
        )
    return array.transpose(2, 3, 1, 0) if len(shape) == 4 else array
