"""The published numbers, written down once more."""

import pytest

from pic_tf.data.augment import Augmentation
from pic_tf.data.presets import PRESETS, Preset, augmentation_of
from pic_tf.settings.config import Config

OFF = (0.0, 0.0, 0.0, 0.0)
# crop, (brightness, contrast, saturation, hue), its probability, grayscale, before the jitter?,
# blur
PUBLISHED = {
    # SimCLR, Appendix A: strength 1 is 0.8, 0.8, 0.8, 0.2; applied with 0.8; drop 0.2; blur 0.5,
    # sigma in [0.1, 2.0]
    "simclr": ((0.08, 1.0), (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, False, 0.5),
    # MoCo v2's main_moco.py --aug-plus: RandomResizedCrop(scale=(0.2, 1.)), ColorJitter(0.4, 0.4,
    # 0.4, 0.1) p=0.8
    "mocov2": ((0.2, 1.0), (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, False, 0.5),
    # the same file without it, "MoCo v1's aug: the same as InstDisc": gray 0.2, then
    # ColorJitter(0.4, 0.4, 0.4, 0.4)
    "instdisc": ((0.2, 1.0), (0.4, 0.4, 0.4, 0.4), 1.0, 0.2, True, 0.0),
    # torchvision's RandomResizedCrop and RandomHorizontalFlip as they are by default
    "crop_flip": ((0.08, 1.0), OFF, 0.0, 0.0, False, 0.0),
}


@pytest.mark.parametrize("name", PRESETS)
def test_numbers(name):
    p = PRESETS[name]()
    got = (
        p.crop_scale,
        p.jitter,
        p.jitter_probability,
        p.grayscale_probability,
        p.grayscale_first,
        p.blur_probability,
    )
    assert got == PUBLISHED[name]
    assert p.flip_probability == 0.5 and p.blur_sigma == (0.1, 2.0)


def test_every_preset_is_published():
    assert PRESETS.keys() == PUBLISHED.keys()


def test_the_default_is_the_papers():
    assert (
        Config().preset() == PRESETS["simclr"]()
        and augmentation_of(Config().preset()) == Augmentation()
    )


def test_augmentation_of_other_numbers():
    preset = Preset((0.3, 0.9), 0.1, (0.1, 0.2, 0.3, 0.4), 0.6, 0.7, True, 0.8, (0.5, 1.5))
    expected = Augmentation(
        flip_probability=0.1,
        jitter=(0.1, 0.2, 0.3, 0.4),
        jitter_probability=0.6,
        grayscale_probability=0.7,
        blur_probability=0.8,
        blur_sigma=(0.5, 1.5),
        grayscale_first=True,
    )
    assert augmentation_of(preset) == expected
