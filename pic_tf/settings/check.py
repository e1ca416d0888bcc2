"""Check every setting that can be checked without the data."""

import dataclasses
import importlib
import re
import warnings
from typing import Any

from pic_tf.data.crops import Crop, total
from pic_tf.data.sources.pixel_format import BIT_DEPTHS
from pic_tf.models.named import APPLICATIONS, KERAS_CV, PUBLISHED, check_name
from pic_tf.models.resnet import DEPTHS
from pic_tf.settings.config import Config
from pic_tf.settings.methods import TWO_VIEWS, check_method
from pic_tf.settings.setting import kind_of, within

_LARGEST_VIEW, _MOST_VIEWS = 8192, 64  # pixels, views of an image in a step
# No flag file would give these characters back (a line break would even begin another flag), and no
# terminal should get them: control characters, separators of lines, bytes that are not UTF-8;
# blanks at the end.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\\s$")
_LARGEST = 2**32 - 1  # of any whole number: NumPy takes no larger seed


def check_ranges(settings: Any) -> None:
    """Check each setting by itself.

    Args:
      settings: dataclass of fields declared by `pic_tf.settings.setting.setting`.

    Raises:
      ValueError: for a setting out of its range.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        limit, choices = field.metadata["limit"], field.metadata["choices"]
        if value is not None and not within(limit, value):
            raise ValueError(
                "expected "
                f"{' '.join(f'--{field.name}' if x == 'x' else x for x in limit.split())}, got "
                f"{value}"
            )
        if choices and value is not None and value not in choices:
            raise ValueError(
                f"expected --{field.name} to be one of {', '.join(choices)}, got {value!r}"
            )
        if kind_of(field) is int and value is not None and value > _LARGEST:
            raise ValueError(f"expected --{field.name} <= {_LARGEST}, got {value}")
        if kind_of(field) is str and value is not None and _UNSAFE.search(value):
            raise ValueError(
                f"expected --{field.name} in one line of text that ends in no space, got "
                f"{value!r}: rename the folder"
            )


def check_crop_scale(scale: tuple[float, ...]) -> None:
    """Raise ValueError for anything but the least and largest area of a crop."""
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            f"expected --crop_scale=LEAST,LARGEST with 0 < LEAST <= LARGEST <= 1, got {scale}"
        )


def check(config: Config) -> None:
    """Check every setting that can be checked without the data.

    Args:
      config: the configuration.

    Raises:
      ValueError: for a setting out of its range.
    """
    check_ranges(config)
    check_method(config)
    for name in ("dataset", "output_dir"):
        if not getattr(config, name):
            raise ValueError(
                f"expected a folder in --{name}, got '': a variable of the shell may be unset"
            )
    _check_backbone(config)
    if config.replicas > config.batch_size:
        raise ValueError(
            f"expected --replicas of at most --batch_size ({config.batch_size}), got "
            f"{config.replicas}"
        )
    if not 0 <= (config.warmup_epochs or 0) < config.epochs:
        raise ValueError(
            f"expected 0 <= --warmup_epochs < --epochs ({config.epochs}), got "
            f"{config.warmup_epochs}"
        )
    if not config.freeze_backbone_epochs < config.epochs:
        raise ValueError(
            f"expected --freeze_backbone_epochs below --epochs ({config.epochs}), got "
            f"{config.freeze_backbone_epochs}"
        )
    if config.freeze_backbone_epochs and config.head == "none":
        raise ValueError(
            "expected a --head that learns while the backbone is frozen "
            "(--freeze_backbone_epochs), got none"
        )
    if config.keep_checkpoint_every % config.checkpoint_every:
        raise ValueError(
            "expected --keep_checkpoint_every to be a multiple of --checkpoint_every "
            f"({config.checkpoint_every}), got {config.keep_checkpoint_every}"
        )
    if not all(count >= 2 and count % 1 == 0 for count in config.label_curve):
        raise ValueError(
            "expected --label_curve=COUNT,COUNT,... of whole numbers from 2 on, got "
            f"{','.join(f'{count:g}' for count in config.label_curve)}"
        )
    if config.optimizer == "lamb" and config.precision == "float16":
        raise ValueError(
            "expected --precision=bfloat16 or float32 with --optimizer=lamb, got float16"
        )
    if config.optimizer == "lamb":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it announces the end of its maintenance
                importlib.import_module("tensorflow_addons")
        except ImportError as error:
            raise ValueError(
                "expected tensorflow-addons for --optimizer=lamb, got none installed that loads "
                f"({error}): pip install 'pic_tf[addons]' (Python 3.10 or 3.11; it pins TensorFlow "
                "2.15.1), or use lars"
            ) from error
    _check_pixels(config)
    _check_views(config)


def _check_pixels(config: Config) -> None:
    if config.bit_depth not in BIT_DEPTHS:
        raise ValueError(f"expected --bit_depth=8 or 16, got {config.bit_depth}")
    if config.channels != 3 and config.backbone.startswith((APPLICATIONS, KERAS_CV)):
        raise ValueError(
            f"expected --channels=3 with --backbone={config.backbone}, got {config.channels}: take "
            "a ResNet, ours:vit_... or a network of yours"
        )
    for name, other in (("channel_mean", "channel_stddev"), ("channel_stddev", "channel_mean")):
        numbers, least = getattr(config, name), 0 if name == "channel_mean" else 1e-6
        if numbers is not None and (
            len(numbers) != config.channels
            or not all(least <= x <= 1 for x in numbers)
            or getattr(config, other) is None
        ):
            raise ValueError(
                f"expected --{name}=NUMBER,NUMBER,... from {least:g} to 1 for each of the "
                f"{config.channels} channels, and --{other} with it, got {numbers} and "
                f"{getattr(config, other)}"
            )


def _check_backbone(config: Config) -> None:
    own = (config.stem, config.width) == ("imagenet", 64)
    if config.depth is None:
        check_name(config.backbone)
    elif config.depth not in DEPTHS:
        raise ValueError(
            f"expected --backbone=resnetN with N of {', '.join(map(str, DEPTHS))}, got "
            f"{config.backbone}"
        )
    if config.depth is None and not own:
        raise ValueError(
            f"expected --stem and --width with a ResNet alone, got them with {config.backbone}: "
            "leave them out"
        )
    if not config.backbone.startswith(prefix := PUBLISHED.get(config.initial_weights, "")):
        raise ValueError(
            f"expected --backbone={prefix}NAME with --initial_weights={config.initial_weights}, "
            f"got {config.backbone}: name a file of weights"
        )


def _check_views(config: Config) -> None:
    preset = config.preset()
    scale, sigma, jitter = preset.crop_scale, preset.blur_sigma, preset.jitter
    check_crop_scale(scale)
    try:
        views = config.views() if config.crops else (Crop(config.image_size),)
    except ValueError as error:
        raise ValueError(f"{error} in --crops") from None
    if total(views) > _MOST_VIEWS or max(crop.size for crop in views) > _LARGEST_VIEW:
        raise ValueError(
            f"expected at most {_MOST_VIEWS} views of at most {_LARGEST_VIEW} pixels in --crops, "
            f"got {config.crops}"
        )
    number = 2 if config.method in TWO_VIEWS else 1 if config.method == "instdisc" else None
    if number and config.crops and [crop.count for crop in views] != [number]:
        raise ValueError(
            f"expected {number} crops of one kind in --crops with --method={config.method}, such "
            f"as {number}x224@0.08-1.0, got {config.crops}"
        )
    size = min(crop.size for crop in views)
    if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1] <= size:
        raise ValueError(
            "expected --blur_sigma=LEAST,LARGEST with 0 < LEAST <= LARGEST <= the side of a view "
            f"({size}), got {sigma}"
        )
    if len(jitter) != 4 or not all(0 <= x <= most for x, most in zip(jitter, (1, 1, 1, 0.5))):
        raise ValueError(
            "expected --jitter=BRIGHTNESS,CONTRAST,SATURATION,HUE from 0 to 1, hue to 0.5, got "
            f"{jitter}"
        )
    if config.channels != 3 and (preset.grayscale_probability or any(jitter[2:])):
        raise ValueError(
            "expected no --grayscale_probability and no saturation or hue in --jitter with "
            f"--channels={config.channels}, which have no colours, got "
            f"{preset.grayscale_probability} and {jitter}: leave them out"
        )
