"""Start a network from given weights."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tf_keras as keras

from pic_tf.data.normalisation import IMAGENET
from pic_tf.models.input_scaling import channels_of
from pic_tf.models.named import OURS, PUBLISHED, named_backbone
from pic_tf.models.torch_weights import architecture_of, load_state, state_of
from pic_tf.models.vit_weights import load_vit
from pic_tf.runs.initial_weights import place_of
from pic_tf.serving.weights_files import (
    TORCH_NAMES,
    keras_weights,
    read,
    saved_model_weights,
    torch_state,
)

_FIRST_OF_RESNET, _FIRST_OF_VIT = "conv1.weight", "patch_embed.proj.weight"
_KERAS_WEIGHTS = ".weights.h5"


def load_initial_weights(
    backbone: keras.Model, path: str, name: str, own_scaling: bool = False
) -> list[str]:
    """Load the weights of a backbone: all of them, or none where one does not fit.

    For images of n channels, other than 3, a first kernel of 3 channels is made into one of n that
    answers to gray images alike: w_c = (w_R + w_G + w_B) / n.

    Args:
      backbone: the network, which may be spread over replicas.
      path: folder of an export or of a finished run, FILE.safetensors, a file of torch.save,
        FILE.keras or FILE.weights.h5; or a key of `PUBLISHED`.
      name: value of --backbone.
      own_scaling: whether images are normalised otherwise than by ImageNet's figures; an export may
        be so as well.

    Returns:
      Names of the arrays in the file that are no part of the backbone, passed over.

    Raises:
      ValueError: for a file that cannot be read, or weights of another network.
    """
    if path in PUBLISHED:
        _copy(_downloaded(name, path), backbone)
        return []
    if path.endswith(_KERAS_WEIGHTS):
        _load_keras_weights(backbone, path)
        return []
    if name.startswith(OURS) and place_of(path).suffix in TORCH_NAMES:
        state = _spread(torch_state(place_of(path)), _FIRST_OF_VIT, channels_of(backbone), path)
        return load_vit(backbone, state, path)
    if not name.startswith("resnet"):
        return _load_by_name(backbone, path)
    parts, channels = read(place_of(path), any_scaling=own_scaling), channels_of(backbone)
    given = _spread(parts.backbone, _FIRST_OF_RESNET, channels, path)
    own = architecture_of(state_of(backbone.weights), channels)
    theirs = architecture_of(given, None)
    if own != theirs:
        expected, got = (
            f"--backbone=resnet{depth} --stem={stem} --width={width}"
            for depth, stem, width in (own, theirs)
        )
        raise ValueError(f"expected weights of {expected} in {path!r}, got {got}: set these")
    load_state(backbone.weights, given)
    return [*parts.head, *parts.passed_over]


def _spread(
    state: Mapping[str, np.ndarray], first: str, channels: int, path: str
) -> Mapping[str, np.ndarray]:
    """Spread a first kernel [O, 3, h, w] over other channels."""
    kernel = state.get(first)
    found = kernel.shape[1] if kernel is not None and np.ndim(kernel) == 4 else channels
    if found == channels:
        return state
    if found != 3:
        raise ValueError(
            f"expected weights for images of {channels} channels in {path!r}, got {found}: name "
            "those, or some for 3 channels"
        )
    print(f"initial weights: {first} of 3 channels spread over {channels}", file=sys.stderr)
    mean = np.asarray(kernel, np.float32).sum(axis=1, keepdims=True) / channels
    return {**state, first: np.repeat(mean, channels, axis=1)}


def _downloaded(name: str, weights: str) -> keras.Model:
    try:
        return named_backbone(name, *IMAGENET, weights)
    except Exception as error:  # of many types: no network, a server that is down
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected Keras to download the weights of {name}, got "
            f"{reason}: try again where there is a network, or name a file of weights"
        ) from error


def _copy(source: keras.Model, backbone: keras.Model) -> None:
    backbone.set_weights(source.get_weights())


def _load_keras_weights(backbone: keras.Model, path: str) -> None:
    # Into a copy: a file that breaks off leaves nothing behind.
    copy = keras.models.clone_model(backbone)
    try:
        copy.load_weights(path)
    except Exception as error:  # of many types
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected the weights of {backbone.name} in {path!r}, as save_weights of such a model "
            f"writes them, got others ({reason}): convert them to .safetensors"
        ) from error
    _copy(copy, backbone)


def _load_by_name(backbone: keras.Model, path: str) -> list[str]:
    """Load an export or a .keras file of a network that is no ResNet of ours."""
    place = place_of(path)
    if place.suffix in TORCH_NAMES:
        raise ValueError(
            f"expected a file of weights with Keras' names for {backbone.name}, got {path!r}: "
            "PyTorch's names are known for ResNets and ours:vit_... alone"
        )
    read = keras_weights if place.suffix == ".keras" else saved_model_weights
    depth = _telling_parts(backbone.weights)
    given, wanted = _by_name(read(place), depth), _by_name(backbone.weights, depth)
    _check_fit(given, wanted, backbone.name, path)
    for name, [variable] in wanted.items():
        variable.assign(given[name][0].numpy())
    return sorted(given.keys() - wanted.keys())


def _check_fit(
    given: Mapping[str, list], wanted: Mapping[str, list], network: str, path: str
) -> None:
    for name, variables in wanted.items():
        found = given.get(name, [])
        if max(len(variables), len(found)) > 1:
            raise ValueError(
                f"expected one {name} in {network} and one in {path!r}, got {len(variables)} and "
                f"{len(found)}: give their layers names of their own, or name a file of "
                f"save_weights (FILE{_KERAS_WEIGHTS})"
            )
        shapes = [list(variable.shape) for variable in (*variables, *found)]
        if shapes[1:] != shapes[:1]:
            raise ValueError(
                f"expected {name} {shapes[0]} of {network} in {path!r}, got "
                f"{shapes[1] if found else 'none'}: name weights of this network"
            )


def _telling_parts(variables: Sequence[Any]) -> int:
    """Count the parts at the end of names that tell variables apart: 2 or more, as few as do."""
    names = [_parts(variable) for variable in variables]
    most = max(map(len, names), default=2)
    told = (n for n in range(2, most) if len({name[-n:] for name in names}) == len(names))
    return next(told, most)


def _by_name(variables: Iterable[Any], depth: int) -> dict[str, list]:
    """Group variables by the last parts of their names."""
    found = {}
    for variable in variables:
        found.setdefault("/".join(_parts(variable)[-depth:]), []).append(variable)
    return found


def _parts(variable: Any) -> tuple[str, ...]:
    """Parts of a variable's name, such as (block1_conv1, kernel), in either Keras."""
    return tuple(getattr(variable, "path", variable.name).removesuffix(":0").split("/"))
