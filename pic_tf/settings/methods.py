"""Declare the methods, their own settings, and the flags that belong to some of them only."""

import dataclasses
from typing import Any

from pic_tf.settings.setting import setting

METHODS = ("pic", "simclr", "mocov2")
ROWS = ("pic",)  # have a row of weights for each image
TWO_VIEWS = ("simclr", "mocov2")  # compare two views of an image
TEMPERATURES = {"pic": 0.2, "simclr": 0.1, "mocov2": 0.2}  # as published for ImageNet
# To which methods a flag belongs, where not to all.
_BELONGS = {
    "num_negatives": ("pic", "mocov2"),
    "similarity": ("pic",),
    "weight_correction": ("pic",),
    "min_row_norm": ("pic",),
    "forget_after": ("pic",),
    "instance_store": ("pic",),
    "rows_dir": ("pic",),
    "small_crops_move_rows": ("pic",),
    "encoder_momentum": ("mocov2",),
    "batch_groups": ("mocov2",),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """Method, and what belongs to one of the others than pic."""

    method: str = setting(
        "pic",
        "Method of learning: pic; or, to compare with, simclr or mocov2, whose step takes two "
        "views of each image.",
        choices=METHODS,
    )
    encoder_momentum: float = setting(
        0.999,
        "Share that the encoder of the keys of mocov2 keeps of itself in a step, 0 to 1; the rest "
        "comes from the encoder that learns.",
        limit="0 <= x <= 1",
    )
    batch_groups: int = setting(
        8,
        "Groups of a batch of mocov2 with batch statistics of their own, over all replicas, a "
        "multiple of their number. Keys are shuffled between the groups. The published code has 8.",
        limit="x >= 1",
    )


def check_belonging(settings: Any) -> None:
    """Refuse flags that do not belong to the method.

    Args:
      settings: dataclass with a field `method`.

    Raises:
      ValueError: for a flag of another method with another value than its default.
    """
    for field in dataclasses.fields(settings):
        methods, value = _BELONGS.get(field.name), getattr(settings, field.name)
        if methods and settings.method not in methods and value != field.default:
            raise ValueError(
                f"expected --{field.name} with --method={' or '.join(methods)} only, got it with "
                f"{settings.method}: leave it out"
            )
