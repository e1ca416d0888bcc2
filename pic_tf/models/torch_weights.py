"""Weights of ResNets under the names and in the shapes of torchvision and timm, in NumPy alone.

    parts = parts_of(unnested(checkpoint))
    backbone = backbone_of(parts.backbone)

The networks agree to the letter where `resnet` says v1.5: stride in the 3 x 3 convolution, batch
normalisation with epsilon 1e-5, ReLU, images normalised by ImageNet's channel means. The weights do
not tell, so a network that differs in one of these is converted without a word: take torchvision's,
or those of timm called resnet18, resnet34 and so on.
"""

import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import tf_keras

from pic_tf.models.projection import projection_head
from pic_tf.models.resnet import STAGES, resnet

_VARIABLE = re.compile(
    r"(?:.*/)?(?:stem|stage(\d)_block(\d+)_(\d|shortcut))_(conv|bn)/(\w+?)(?::0)?"
)
_PART = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
_PART |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
_COUNTER = "num_batches_tracked"  # PyTorch alone keeps it, and reads it only where momentum is None
_FIRST_BLOCK = re.compile(r"(|.*?\.)layer1\.0\.")
# What checkpoints keep beside the backbone under its prefix: heads, and weights or memories of
# instances.
_BESIDE = {
    "fc",
    "fc1",
    "fc2",
    "head",
    "classifier",
    "projector",
    "projection_head",
    "predictor",
    "prototypes",
}
_BESIDE |= {"sim_matrix", "memory", "queue", "queue_ptr"}
# Heads of fully connected layers alone, as PIC's authors, MoCo v2 and classifiers name them, and
# our names of them.
_HEADS = ({"fc1": "fc1", "fc2": "fc2"}, {"fc.0": "fc1", "fc.2": "fc2"}, {"fc": "fc"})
_ADVICE = "only plain ResNets of depth 18 to 152 can be converted"


class Parts(NamedTuple):
    """The arrays of a checkpoint, by purpose.

    Attributes:
      backbone: torchvision's names without any prefix -> arrays, counters left out.
      head: `fc1.weight` [H, C], `fc1.bias` [H], `fc2.weight` [D, H], `fc2.bias` [D]; or `fc.weight`
        [D, C], `fc.bias` [D], which may as well be a classifier; or nothing.
      passed_over: names of all other arrays, as in the checkpoint.
    """

    backbone: dict[str, np.ndarray]
    head: dict[str, np.ndarray]
    passed_over: tuple[str, ...]


def unnested(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the arrays out of a checkpoint that keeps them under `state_dict` or `model`, beside
    optimizer and settings.

    Raises:
      ValueError: where something else than arrays is in it.
    """
    state = checkpoint
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ValueError(
            f"expected a checkpoint with arrays by name, got {type(state).__name__}: save a "
            "state_dict"
        )
    for name, array in state.items():
        if not (isinstance(name, str) and hasattr(array, "shape")):
            raise ValueError(
                f"expected arrays by name, on top or under state_dict or model, got {name!r} of "
                f"type {type(array).__name__}: save the state_dict of the network alone"
            )
    return state


def parts_of(state: Mapping[str, np.ndarray], prefix: str | None = None) -> Parts:
    """Find the backbone in a state.

    The authors' checkpoints of PIC keep it under `module.encoder.`, its head as `fc1` and `fc2` (or
    a single `fc`) beside it, and the instance weights as `module.sim_matrix` [N, D]. The instance
    weights are passed over: row i belongs to the i-th image of that run, so they are of use only
    with the same images in the same order.

    Args:
      state: name -> array.
      prefix: what the backbone's names begin with, as `module.encoder_q.`; None to find it.

    Raises:
      ValueError: for a state without a ResNet, or with several of them and no prefix that says
        which.
    """
    found = sorted({match[1] for name in state if (match := _FIRST_BLOCK.match(name))})
    if not found:
        raise ValueError(
            "expected the weights of a ResNet (conv1.weight, layer1.0.conv1.weight and so on), got "
            f"{len(state):,} arrays such as {next(iter(state), 'none')!r}: {_ADVICE}"
        )
    if prefix not in found and (prefix is not None or len(found) > 1):
        names = " or ".join(map(repr, found))
        raise ValueError(
            f"expected a prefix that names one ResNet, {names}, got {prefix!r}: name one of them"
        )
    prefix = found[0] if prefix is None else prefix
    inner = {
        name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)
    }
    beside = {name: array for name, array in inner.items() if name.split(".")[0] in _BESIDE}
    counters = {name for name in inner if name.endswith(f".{_COUNTER}")}
    backbone = {
        name: array for name, array in inner.items() if name not in beside.keys() | counters
    }
    head = _head({name: array for name, array in beside.items() if name.startswith("fc")})
    of_head = {name for name in beside if head and name.startswith("fc")}
    used = {prefix + name for name in backbone.keys() | counters | of_head}
    return Parts(backbone, head, tuple(name for name in state if name not in used))


def _head(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The head under our names; nothing where it has other layers than those of ours."""
    for modules in _HEADS:
        parts = [
            (theirs, ours, part) for theirs, ours in modules.items() for part in ("weight", "bias")
        ]
        if arrays.keys() == {f"{theirs}.{part}" for theirs, _, part in parts}:
            return {f"{ours}.{part}": arrays[f"{theirs}.{part}"] for theirs, ours, part in parts}
    return {}


def architecture_of(state: Mapping[str, np.ndarray]) -> tuple[int, str, int]:
    """Read depth, stem and width, as of `resnet`, off names and shapes.

    Args:
      state: torchvision's names -> arrays.

    Raises:
      ValueError: where they are not those of a ResNet.
    """
    if "conv1.weight" not in state:
        raise ValueError(f"expected conv1.weight, got none: {_ADVICE}")
    shape = list(state["conv1.weight"].shape)
    if shape[1:] not in ([3, 7, 7], [3, 3, 3]):
        raise ValueError(
            f"expected conv1.weight [C, 3, 7, 7] or [C, 3, 3, 3], got {shape}: {_ADVICE}"
        )
    blocks = {match[0] for name in state if (match := re.match(r"layer(\d+)\.\d+\.", name))}
    counts = tuple(
        sum(block.startswith(f"layer{stage}.") for block in blocks) for stage in range(1, 5)
    )
    bottleneck = "layer1.0.conv3.weight" in state
    for depth, stages in STAGES.items():
        if stages == (counts, bottleneck):
            return depth, "imagenet" if shape[2] == 7 else "small", shape[0]
    raise ValueError(
        f"expected the blocks of one of the depths {', '.join(map(str, STAGES))}, got "
        f"{'-'.join(map(str, counts))} {'bottleneck' if bottleneck else 'basic'} blocks in layer1 "
        f"to layer4: {_ADVICE}"
    )


def torch_name(variable: str) -> str:
    """Translate a variable's name: `stage2_block1_shortcut_bn/gamma:0` ->
    `layer2.0.downsample.1.weight`.

    Raises:
      ValueError: for a variable that no ResNet of this package has.
    """
    match = _VARIABLE.fullmatch(variable)
    if not match:
        raise ValueError(
            f"expected the variables of a ResNet of pic_tf, got {variable!r}: {_ADVICE}"
        )
    stage, block, which, kind, part = match.groups()
    if stage is None:
        module = f"{kind}1"
    elif which == "shortcut":
        module = f"layer{stage}.{int(block) - 1}.downsample.{0 if kind == 'conv' else 1}"
    else:
        module = f"layer{stage}.{int(block) - 1}.{kind}{which}"
    return f"{module}.{_PART[part]}"


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
        name, array = torch_name(_name(variable)), np.asarray(variable.numpy(), np.float32)
        state[name] = (
            np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array
        )
    counters = [
        name.removesuffix("running_var") + _COUNTER
        for name in state
        if name.endswith("running_var")
    ]
    return state | dict.fromkeys(counters, np.zeros((), np.int64))


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
        raise ValueError(f"expected {missing[0]}, got none{_more(missing)}: {_ADVICE}")
    names = {name for name in state if not name.endswith(f".{_COUNTER}")}
    if unexpected := sorted(names - wanted.keys()):
        raise ValueError(
            f"expected a ResNet's arrays only, got {unexpected[0]}{_more(unexpected)}: {_ADVICE}"
        )
    arrays = {
        name: _checked(name, state[name], variable.shape) for name, variable in wanted.items()
    }
    for name, variable in wanted.items():
        variable.assign(arrays[name])


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
      head: as of `Parts`.

    Raises:
      ValueError: for other names, or arrays whose shapes do not fit together.
    """
    modules = ["fc1", "fc2"] if "fc1.weight" in head else ["fc"]
    expected = {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    if head.keys() != expected:
        raise ValueError(
            f"expected a head of {', '.join(sorted(expected))}, got "
            f"{', '.join(sorted(head)) or 'none'}"
        )
    kernels, biases = (
        [head[f"{module}.{part}"] for module in modules] for part in ("weight", "bias")
    )
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
    return getattr(
        variable, "path", variable.name
    )  # Keras 3 has the layer's name in the path alone


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more like it)" if names[1:] else ""


def _checked(name: str, array: np.ndarray, shape: Iterable[int]) -> np.ndarray:
    """The array in float32 and TensorFlow's order of axes; `shape` is the variable's own."""
    shape = tuple(shape)
    theirs = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
    if tuple(array.shape) != theirs:
        raise ValueError(f"expected {name} {list(theirs)}, got {list(array.shape)}: {_ADVICE}")
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
