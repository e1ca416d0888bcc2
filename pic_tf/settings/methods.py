"""Declare the methods, their own settings, and the flags that belong to some of them only."""

import dataclasses
from typing import Any

from pic_tf.settings.belonging import check_belonging
from pic_tf.settings.setting import setting

METHODS = ("pic", "simclr", "mocov2", "instdisc", "diet")
ROWS = ("pic", "instdisc", "diet")  # have a row of weights for each image
ALL_IMAGES = ("instdisc", "diet")  # compare with all of them
TWO_VIEWS = ("simclr", "mocov2")  # compare two views of an image
# Published values, for ImageNet where there are several, of flags that are left open.
DEFAULTS = {
    "pic": {"temperature": 0.2, "label_smoothing": 0.0},
    "simclr": {"temperature": 0.1},
    "mocov2": {"temperature": 0.2},
    "instdisc": {"temperature": 0.07},
    "diet": {"temperature": 1.0, "label_smoothing": 0.8},
}
# What a method does not leave open.
_FIXED = {"diet": {"order": "epoch", "similarity": "dot"}, "instdisc": {"similarity": "cosine"}}
# To which methods a flag belongs, where not to all.
_BELONGS = {
    "num_negatives": ("pic", "mocov2", *ALL_IMAGES),
    "similarity": ROWS,
    "label_smoothing": ("pic", "diet"),
    "mixup_probability": ("pic", "diet"),
    "weight_correction": ("pic",),
    "min_row_norm": ("pic",),
    "forget_after": ("pic",),
    "instance_store": ("pic",),
    "rows_dir": ("pic",),
    "small_crops_move_rows": ("pic", "diet"),
    "encoder_momentum": ("mocov2",),
    "batch_groups": ("mocov2",),
    "bank_momentum": ("instdisc",),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """Method, and what belongs to one of the others than pic."""

    method: str = setting(
        "pic",
        "Method of learning: pic; or, to compare with, simclr or mocov2, whose step takes two "
        "views of each image, or instdisc or diet, which compare with all images.",
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
    bank_momentum: float = setting(
        0.5,
        "Share that a row in the memory bank of instdisc keeps of itself at a visit, 0 to 1; the "
        "rest is the embedding.",
        limit="0 <= x <= 1",
    )


def with_defaults(settings: Any) -> Any:
    """Fill in the order, and the flags left open of the method."""
    chosen = {"order": "sliding_window"} | DEFAULTS[settings.method]
    chosen |= {"similarity": "cosine"} if settings.method == "pic" else {}
    chosen |= _FIXED.get(settings.method, {})
    still_open = {name: x for name, x in chosen.items() if getattr(settings, name) is None}
    return dataclasses.replace(settings, **still_open)


def check_method(settings: Any) -> None:
    """Refuse flags that do not belong to the method, or contradict it.

    Args:
      settings: dataclass with a field `method`.

    Raises:
      ValueError: for a flag of another method with another value than its default.
    """
    for name, value in _FIXED.get(settings.method, {}).items():
        if getattr(settings, name) not in (None, value):
            raise ValueError(
                f"expected --{name}={value} with --method={settings.method}, got "
                f"{getattr(settings, name)}: leave it out"
            )
    check_belonging(settings, "method", settings.method, _BELONGS)
