"""Published augmentations, with their numbers and sources."""

import dataclasses

from pic_tf.data.augment import Augmentation
from pic_tf.data.normalisation import IMAGENET, Normalisation


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of a published augmentation: those of `Augmentation` and of the crop.

    Attributes:
      crop_scale: least and largest area of a crop, share of the image.
      flip_probability, jitter, jitter_probability, grayscale_probability, grayscale_first,
        blur_probability, blur_sigma: see `Augmentation`.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip_probability: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: float = 0.0
    grayscale_probability: float = 0.0
    grayscale_first: bool = False
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)


def simclr() -> Preset:
    """SimCLR's augmentation, which PIC uses: strong colours, grayscale and blur.

    Source: https://arxiv.org/abs/2002.05709, Appendix A (strength 1); PIC, Section 4.1. The range
    of sigma and the blur's probability are the same there.
    """
    return Preset(
        crop_scale=(0.08, 1.0),
        jitter=(0.8, 0.8, 0.8, 0.2),
        jitter_probability=0.8,
        grayscale_probability=0.2,
        blur_probability=0.5,
        blur_sigma=(0.1, 2.0),
    )


def mocov2() -> Preset:
    """MoCo v2's augmentation: larger crops and half the jitter of SimCLR's.

    Source: https://arxiv.org/abs/2003.04297, Section 3, and `aug_plus` of its published code.
    """
    return Preset(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_probability=0.8,
        grayscale_probability=0.2,
        blur_probability=0.5,
        blur_sigma=(0.1, 2.0),
    )


def instdisc() -> Preset:
    """Instance discrimination's augmentation, also that of MoCo v1.

    Grayscale, then jitter of every image; no blur.

    Source: https://arxiv.org/abs/1805.01978 and its published code;
    https://arxiv.org/abs/1911.05722, Section 3.3.
    """
    return Preset(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.4),
        jitter_probability=1.0,
        grayscale_probability=0.2,
        grayscale_first=True,
    )


def crop_flip() -> Preset:
    """Crops and flips alone: the weak augmentation of supervised training.

    Source: https://arxiv.org/abs/1409.4842, Section 6 (8 to 100 % of the area, aspect 3/4 to 4/3).
    """
    return Preset(crop_scale=(0.08, 1.0))


def without_colours(preset: Preset) -> Preset:
    """Leave out what only RGB has: saturation, hue and the loss of all colours."""
    return dataclasses.replace(
        preset, jitter=(*preset.jitter[:2], 0.0, 0.0), grayscale_probability=0.0
    )


PRESETS = {preset.__name__: preset for preset in (simclr, mocov2, instdisc, crop_flip)}


def augmentation_of(preset: Preset, normalisation: Normalisation = IMAGENET) -> Augmentation:
    """Make the changes of a view after its crop."""
    return Augmentation(
        preset.flip_probability,
        preset.jitter,
        preset.jitter_probability,
        preset.grayscale_probability,
        preset.blur_probability,
        preset.blur_sigma,
        preset.grayscale_first,
        normalisation=normalisation,
    )
