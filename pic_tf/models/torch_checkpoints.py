"""Find backbone and head among the arrays of a PyTorch checkpoint, in NumPy alone."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pic_tf.models.torch_weights import ADVICE, COUNTER

_FIRST_BLOCK = re.compile(r"(|.*?\.)layer1\.0\.")
# Heads, and weights or memories of instances, beside the backbone under its prefix.
_BESIDE = {"fc", "fc1", "fc2", "head", "classifier", "projector", "projection_head"}
_BESIDE |= {"predictor", "prototypes", "sim_matrix", "memory", "queue", "queue_ptr"}
# Names of fully connected heads in checkpoints of PIC's authors, of MoCo v2 and of classifiers,
# with the names here.
_HEADS = ({"fc1": "fc1", "fc2": "fc2"}, {"fc.0": "fc1", "fc.2": "fc2"}, {"fc": "fc"})


class Parts(NamedTuple):
    """Arrays of a checkpoint, by purpose.

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
    """Take the arrays out of a checkpoint.

    They lie on top, or under `state_dict` or `model`, beside optimizer and settings.

    Raises:
      ValueError: where something else than arrays is in it.
    """
    state = checkpoint
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ValueError(
            "expected a checkpoint with arrays by name, got "
            f"{type(state).__name__}: save a state_dict"
        )
    for name, array in state.items():
        if not (isinstance(name, str) and hasattr(array, "shape")):
            raise ValueError(
                "expected arrays by name, on top or under state_dict or model, got "
                f"{name!r} of type {type(array).__name__}: save the state_dict of the network alone"
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
            f"{len(state):,} arrays such as {next(iter(state), 'none')!r}: {ADVICE}"
        )
    if prefix not in found and (prefix is not None or len(found) > 1):
        names = " or ".join(map(repr, found))
        raise ValueError(
            f"expected a prefix that names one ResNet, {names}, got {prefix!r}: name one of them"
        )
    prefix = found[0] if prefix is None else prefix
    inner = {n.removeprefix(prefix): array for n, array in state.items() if n.startswith(prefix)}
    beside = {name: array for name, array in inner.items() if name.split(".")[0] in _BESIDE}
    counters = {name for name in inner if name.endswith(f".{COUNTER}")}
    left_out = beside.keys() | counters
    backbone = {name: array for name, array in inner.items() if name not in left_out}
    head = _head({name: array for name, array in beside.items() if name.startswith("fc")})
    of_head = {name for name in beside if head and name.startswith("fc")}
    used = {prefix + name for name in backbone.keys() | counters | of_head}
    return Parts(backbone, head, tuple(name for name in state if name not in used))


def _head(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename a head of fully connected layers; give nothing for a head of other layers."""
    for modules in _HEADS:
        renamed = {
            f"{theirs}.{part}": f"{ours}.{part}"
            for theirs, ours in modules.items()
            for part in ("weight", "bias")
        }
        if arrays.keys() == renamed.keys():
            return {ours: arrays[theirs] for theirs, ours in renamed.items()}
    return {}
