"""Weights of vision transformers under the names and in the shapes of timm."""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import tf_keras as keras

_PART = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
_BLOCK = re.compile(r"blocks_(\d+)_(?:(attn|mlp)_)?(\w+)")


def torch_name(variable: str) -> str:
    """Translate a variable's name into timm's.

    `blocks_3_attn_qkv/kernel:0` -> `blocks.3.attn.qkv.weight`.
    """
    layer, part = variable.removesuffix(":0").split("/")[-2:]
    if layer == "tokens":
        return part
    if block := _BLOCK.fullmatch(layer):
        layer = ".".join(["blocks", *filter(None, block.groups())])
    return f"{layer.replace('patch_embed_', 'patch_embed.')}.{_PART.get(part, part)}"


def load_vit(backbone: keras.Model, state: Mapping[str, np.ndarray], path: str) -> list[str]:
    """Load all weights of a transformer, or none where one does not fit.

    Args:
      backbone: as of `vit`.
      state: timm's names -> arrays.
      path: the file, for messages.

    Returns:
      Names of the arrays that are no part of the backbone.

    Raises:
      ValueError: for an array that is missing, of another shape, not finite, or in a block of
        another kind.
    """
    wanted = {torch_name(variable.name): variable for variable in backbone.weights}
    others = sorted(state.keys() - wanted.keys())
    if of_others := [name for name in others if name.startswith(("blocks.", "norm_pre."))]:
        _refuse(path, f"the blocks of {backbone.name} alone", of_others[0])
    arrays = {}
    for name, variable in wanted.items():
        found = _in_our_order(state[name]) if name in state else None
        shape = list(variable.shape)
        if found is None or list(found.shape) != shape:
            got = "none" if found is None else f"{list(found.shape)} in that order of axes"
            positions = f" ({shape[1] - 1} positions and the class)" if name == "pos_embed" else ""
            _refuse(path, f"{name} for a variable {shape}{positions}", got)
        if not np.isfinite(found).all():
            raise ValueError(
                f"expected finite numbers in {name} of {path!r}, got NaN or infinity: it is "
                "damaged, fetch it again"
            )
        arrays[name] = found
    for name, variable in wanted.items():
        variable.assign(arrays[name])
    return others


def _refuse(path: str, expected: str, got: str) -> NoReturn:
    raise ValueError(
        f"expected {expected} in {path!r}, got {got}: name weights of a plain ViT of this size, "
        "patch and number of positions, as timm has them"
    )


def _in_our_order(array: Any) -> np.ndarray:
    """Bring [O, I] to [I, O], and [O, I, h, w] to [h, w, I, O]."""
    array = np.asarray(array, np.float32)
    return array.transpose(*{2: (1, 0), 4: (2, 3, 1, 0)}.get(array.ndim, range(array.ndim)))
