"""Declare the settings of --protocol=voc_detection: flags, defaults and limits."""

import dataclasses

from pic_tf.evals.transfer.settings import check_rising
from pic_tf.settings.setting import setting

# In place of None: MoCo's for VOC (https://arxiv.org/abs/1911.05722, Section 4.2).
DEFAULTS = {
    "batch_size": 16,
    "learning_rate": 0.02,
    "steps": 24_000,
    "decay_steps": (18_000, 22_000),
    "warmup_steps": 100,
}


@dataclasses.dataclass(frozen=True)
class DetectionFlags:
    """Detection of objects (--protocol=voc_detection)."""

    short_sides: tuple[float, ...] = setting(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        "Short sides of the images in the training of a detector in pixels, separated by commas; "
        "each image gets one of them at random.",
    )
    test_side: int = setting(
        800,
        "Short side of the images that a detector is judged by in pixels, >= 16.",
        limit="x >= 16",
    )
    long_side: int = setting(
        1333, "Largest long side of an image of a detector in pixels, >= 16.", limit="x >= 16"
    )
    anchor_sizes: tuple[float, ...] = setting(
        (32, 64, 128, 256, 512),
        "Square roots of the areas of a detector's anchors in pixels, separated by commas.",
    )
    proposals: int = setting(
        1000,
        "Proposals of an image that a detector judges, >= 1. Training has twice as many to draw "
        "from.",
        limit="x >= 1",
    )
    proposals_learned: int = setting(
        512, "Proposals of an image that a detector learns from in a step, >= 4.", limit="x >= 4"
    )


def check_detection(settings: DetectionFlags) -> None:
    """Raise ValueError unless sides and anchors are lists of rising positive numbers."""
    check_rising(settings, "short_sides")
    check_rising(settings, "anchor_sizes", whole=False)
