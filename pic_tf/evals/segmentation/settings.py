"""Declare the settings of --protocol=segmentation: flags, defaults and limits."""

import dataclasses
from typing import Any

from pic_tf.settings.setting import setting

# In place of None: MoCo's for Cityscapes (https://arxiv.org/abs/1911.05722, Appendix A.4).
DEFAULTS = {
    "batch_size": 16,
    "learning_rate": 0.01,
    "steps": 90_000,
    "decay_steps": (63_000, 81_000),
    "warmup_steps": 0,
}


@dataclasses.dataclass(frozen=True)
class SegmentationFlags:
    """Segmentation into classes (--protocol=segmentation)."""

    crop_size: int = setting(
        769,
        "Side of a crop in the training of a segmenter, and of a window at test, in pixels, >= 16.",
        limit="x >= 16",
    )
    scale_range: tuple[float, ...] = setting(
        (0.5, 2.0),
        "Least and largest factor by which an image is enlarged before a segmenter is trained on a "
        "crop of it, LEAST,LARGEST.",
    )
    test_stride: int = setting(
        513,
        "Pixels from one window to the next where a segmenter is judged, at least 1 and at most "
        "--crop_size.",
        limit="x >= 1",
    )
    head_channels: int = setting(
        256, "Channels of the two convolutions in the head of a segmenter, >= 1.", limit="x >= 1"
    )
    head_dilation: int = setting(
        6,
        "Dilation of the two convolutions in the head of a segmenter, in pixels of its maps, >= 1.",
        limit="x >= 1",
    )


def check_segmentation(settings: Any) -> None:
    """Raise ValueError unless scales are a range, and windows leave no gap."""
    scales = settings.scale_range
    if len(scales) != 2 or not 0 < scales[0] <= scales[1]:
        raise ValueError(
            f"expected --scale_range=LEAST,LARGEST with 0 < LEAST <= LARGEST, got {scales}"
        )
    if settings.test_stride > settings.crop_size:
        raise ValueError(
            f"expected --test_stride of at most --crop_size ({settings.crop_size}), got "
            f"{settings.test_stride}: lower it, or windows leave pixels out"
        )
