"""Declare the settings of --protocol=voc_detection: flags, defaults and limits."""

import dataclasses
import itertools

from pic_tf.settings.setting import setting

# In place of None: MoCo's for VOC (https://arxiv.org/abs/1911.05722, Section 4.2).
DEFAULTS = {"batch_size": 16, "learning_rate": 0.02}


@dataclasses.dataclass(frozen=True)
class DetectionFlags:
    """Detection of objects (--protocol=voc_detection)."""

    steps: int = setting(
        24_000, "Length of the training of a detector in steps, >= 1.", limit="x >= 1"
    )
    decay_steps: tuple[float, ...] = setting(
        (18_000, 22_000),
        "Steps after which the learning rate of a detector falls to a tenth, separated by commas.",
    )
    warmup_steps: int = setting(
        100,
        "Steps of the linear warm-up of a detector, from a thousandth of the rate on, >= 0.",
        limit="x >= 0",
    )
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
    save_every: int = setting(
        1000,
        "Steps of a detector's training from one saved state to the next, >= 1.",
        limit="x >= 1",
    )


def check_detection(settings: DetectionFlags) -> None:
    """Raise ValueError unless steps, sides and anchors are lists of rising positive numbers."""
    for name in ("decay_steps", "short_sides", "anchor_sizes"):
        numbers = getattr(settings, name)
        rising = all(a < b for a, b in itertools.pairwise(numbers))
        if (
            not numbers
            or not rising
            or numbers[0] < 1
            or (name != "anchor_sizes" and any(x != int(x) for x in numbers))
        ):
            raise ValueError(
                f"expected --{name} to be rising numbers of at least 1, separated by commas, got "
                f"{','.join(f'{x:g}' for x in numbers) or 'none'}"
            )
