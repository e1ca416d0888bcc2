"""Every limit of every setting and of every combination, and what is chosen where nothing is asked for."""

import dataclasses
import importlib
import re
import warnings
from typing import Any

from pic_tf.config import Config, kind_of
from pic_tf.data.crops import Crop, total
from pic_tf.data.order import SlidingWindow, default_shards, default_stride, default_window
from pic_tf.instances.classifier import default_floor
from pic_tf.instances.pages import Pages

_LARGEST_VIEW, _MOST_VIEWS = 8192, 64  # pixels, views of an image in a step
_LIMITS = (
    (
        "x >= 1",
        lambda x: x >= 1,
        "epochs batch_size window_size window_stride width hidden_dim embedding_dim image_size knn_k knn_images "
        "checkpoint_every keep_checkpoints max_skipped_steps steps_per_execution eval_every",
    ),
    (
        "x >= 0",
        lambda x: x >= 0,
        "seed num_instances virtual_shards num_negatives knn_every keep_checkpoint_every intra_op_threads replicas "
        "probe_batch_size",
    ),
    (
        "0 <= x <= 1",
        lambda x: 0 <= x <= 1,
        "flip_probability jitter_probability grayscale_probability blur_probability max_broken",
    ),
    ("0 <= x < 1", lambda x: 0 <= x < 1, "momentum"),
    ("0 < x <= 1", lambda x: 0 < x <= 1, "eval_crop label_fraction layer_decay"),
    # What is worked out from these has to fit into float32.
    ("0 <= x <= 1e6", lambda x: 0 <= x <= 1e6, "min_row_norm final_learning_rate weight_decay backbone_rate"),
    (
        "0 < x <= 1e6",
        lambda x: 0 < x <= 1e6,
        "learning_rate lars_trust_coefficient lamb_learning_rate probe_learning_rate",
    ),
    ("1e-4 <= x <= 1e6", lambda x: 1e-4 <= x <= 1e6, "temperature knn_temperature"),
    # Beyond any use; TensorFlow would look for room for very long, or the process be killed.
    ("x <= 1e6", lambda x: x <= 1e6, "epochs"),
    ("x <= 65536", lambda x: x <= 65536, "width hidden_dim embedding_dim"),
    ("x <= 8192", lambda x: x <= _LARGEST_VIEW, "image_size"),
    ("x <= 1024", lambda x: x <= 1024, "intra_op_threads"),
)
# What a flag file would not give back (a line break would even begin another flag), or no terminal should be sent:
# control characters, separators of lines, bytes that are not UTF-8; blanks at the end.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\\s$")
_LARGEST = 2**32 - 1  # of any whole number: NumPy takes no larger seed


def resolve(config: Config, num_instances: int, num_replicas: int = 1) -> Config:
    """Fill in what depends on the data set, and check every setting.

    Args:
      config: the configuration.
      num_instances: N, number of training images found, or expected where there are none to look at.
      num_replicas: R.

    Returns:
      The configuration without any None.

    Raises:
      ValueError: for a setting out of its range or one that does not fit the others.
    """
    check(config)
    config = dataclasses.replace(config, **dataclasses.asdict(config.preset()))
    if config.num_instances not in (0, num_instances):
        raise ValueError(
            f"expected {config.num_instances} training images (--num_instances), got {num_instances}: check --dataset"
        )
    n, b, r = num_instances, config.batch_size, num_replicas
    if b > n:
        raise ValueError(f"expected --batch_size to be at most the number of training images ({n}), got {b}")
    if b % r:
        raise ValueError(f"expected --batch_size to be a multiple of the {r} replicas, got {b}: use {_nearest(b, r)}")
    if config.jit_compile and r > 1:
        raise ValueError(
            f"expected --jit_compile=false with {r} replicas, got true: XLA does not compile what crosses between them"
        )
    window, stride = (n, n) if config.order == "epoch" else default_window(n, b)
    if config.order == "epoch" and (config.window_size, config.window_stride) not in ((None, None), (n, n)):
        got = " and ".join(f"--{x}" for x in ("window_size", "window_stride") if getattr(config, x) is not None)
        raise ValueError(f"expected no --window_size or --window_stride with --order=epoch, got {got}: leave it out")
    if config.window_size is not None:
        window, stride = config.window_size, default_stride(config.window_size)
    if stride != n:
        stride = max(stride // r, 1) * r
    if config.window_stride is not None:
        stride = config.window_stride
    shards = config.virtual_shards
    if shards is None:
        shards = default_shards(n, window, stride, r)
    order = SlidingWindow(n, b, window, stride, 0, r - 1, r, shards)  # raises where they do not fit
    negatives = config.num_negatives
    if negatives is None:
        # Half a window, as in the paper (65536 of 131072); everything where the order has no window.
        negatives = min(n, 65536) if window == n else min(65536, max(window // 2, b))
        negatives = n if negatives == n else negatives // r * r
    negatives = negatives or n
    if not b <= negatives <= n:
        raise ValueError(
            f"expected --num_negatives between --batch_size ({b}) and the number of training images ({n}), got "
            f"{negatives}: 0 stands for all"
        )
    if negatives < 2:
        raise ValueError("expected at least 2 images in the soft-max (--num_negatives), got 1: its loss is always 0")
    if negatives % r and negatives != n:
        raise ValueError(
            f"expected --num_negatives to be a multiple of the {r} replicas, got {negatives}: use "
            f"{_nearest(negatives, r)}, or 0 for all"
        )
    _check_store(config, order, negatives)  # the last replica has the fewest rows
    dim = config.embedding_dim
    if config.head == "none":
        dim = config.width * (32 if config.depth >= 50 else 8)
    floor = default_floor(dim, config.similarity) if config.min_row_norm is None else config.min_row_norm
    warmup = config.epochs / 40 if config.warmup_epochs is None else config.warmup_epochs
    return dataclasses.replace(
        config,
        num_instances=n,
        window_size=window,
        window_stride=stride,
        virtual_shards=shards,
        num_negatives=negatives,
        embedding_dim=dim,
        min_row_norm=floor,
        warmup_epochs=warmup,
    )


def _check_store(config: Config, fewest: SlidingWindow, negatives: int) -> None:
    if config.instance_store == "device":
        return
    if negatives == fewest.num_instances:
        raise ValueError(
            f"expected --instance_store=device with all images in the soft-max (--num_negatives), where no row rests, "
            f"got {config.instance_store}"
        )
    Pages(fewest, negatives)  # raises where the window needs all of them
    if config.steps_per_execution > fewest.steps_per_window:
        raise ValueError(
            f"expected --steps_per_execution of at most the {fewest.steps_per_window} steps of a window with "
            f"--instance_store={config.instance_store}, got {config.steps_per_execution}"
        )
    if config.instance_store == "disk" and config.keep_checkpoint_every:
        raise ValueError(
            f"expected --keep_checkpoint_every=0 with --instance_store=disk, got {config.keep_checkpoint_every}: rows "
            "on disk are kept for the newest checkpoints only"
        )


def _nearest(value: int, divisor: int) -> str:
    """The multiples of `divisor` on both sides of `value`."""
    return " or ".join(str(x) for x in (value // divisor * divisor, (value // divisor + 1) * divisor) if x)


def check_ranges(settings: Any) -> None:
    """Check what holds for each setting by itself.

    Args:
      settings: dataclass whose fields were made by `pic_tf.config.setting`.

    Raises:
      ValueError: for a setting out of its range.
    """
    for limit, holds, names in _LIMITS:
        for name in names.split():
            value = getattr(settings, name, None)
            if value is not None and not holds(value):
                raise ValueError(f"expected {limit.replace('x', f'--{name}', 1)}, got {value}")
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        choices = field.metadata["choices"]
        if choices and value not in choices:
            raise ValueError(f"expected --{field.name} to be one of {', '.join(choices)}, got {value!r}")
        if kind_of(field) is int and value is not None and value > _LARGEST:
            raise ValueError(f"expected --{field.name} <= {_LARGEST}, got {value}")
        if kind_of(field) is str and _UNSAFE.search(value):
            raise ValueError(
                f"expected --{field.name} in one line of text that ends in no space, got {value!r}: rename the folder"
            )


def check_crop_scale(scale: tuple[float, ...]) -> None:
    """Raise ValueError unless `scale` is (least, largest) area of a crop."""
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"expected --crop_scale=LEAST,LARGEST with 0 < LEAST <= LARGEST <= 1, got {scale}")


def check(config: Config) -> None:
    """Check every setting that can be checked without the data.

    Args:
      config: the configuration.

    Raises:
      ValueError: for a setting out of its range.
    """
    check_ranges(config)
    for name in ("dataset", "output_dir"):
        if not getattr(config, name):
            raise ValueError(f"expected a folder in --{name}, got '': a variable of the shell may be unset")
    if config.replicas > config.batch_size:
        raise ValueError(f"expected --replicas of at most --batch_size ({config.batch_size}), got {config.replicas}")
    if not 0 <= (config.warmup_epochs or 0) < config.epochs:
        raise ValueError(f"expected 0 <= --warmup_epochs < --epochs ({config.epochs}), got {config.warmup_epochs}")
    if config.keep_checkpoint_every % config.checkpoint_every:
        raise ValueError(
            f"expected --keep_checkpoint_every to be a multiple of --checkpoint_every ({config.checkpoint_every}), got "
            f"{config.keep_checkpoint_every}"
        )
    if config.optimizer == "lamb" and config.precision == "float16":
        raise ValueError("expected --precision=bfloat16 or float32 with --optimizer=lamb, got float16")
    if config.optimizer == "lamb":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it announces the end of its maintenance
                importlib.import_module("tensorflow_addons")
        except ImportError as error:
            raise ValueError(
                f"expected tensorflow-addons for --optimizer=lamb, got none installed that loads ({error}): pip "
                "install 'pic_tf[addons]' (Python 3.10 or 3.11; it pins TensorFlow 2.15.1), or use lars"
            ) from error
    _check_views(config)


def _check_views(config: Config) -> None:
    preset = config.preset()
    scale, sigma, jitter, rand_augment = preset.crop_scale, preset.blur_sigma, preset.jitter, preset.rand_augment
    check_crop_scale(scale)
    try:
        views = config.views() if config.crops else (Crop(config.image_size),)
    except ValueError as error:
        raise ValueError(f"{error} in --crops") from None
    if total(views) > _MOST_VIEWS or max(crop.size for crop in views) > _LARGEST_VIEW:
        raise ValueError(
            f"expected at most {_MOST_VIEWS} views of at most {_LARGEST_VIEW} pixels in --crops, got {config.crops}"
        )
    size = min(crop.size for crop in views)
    if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1] <= size:
        raise ValueError(
            f"expected --blur_sigma=LEAST,LARGEST with 0 < LEAST <= LARGEST <= the side of a view ({size}), got {sigma}"
        )
    if len(jitter) != 4 or not all(0 <= x <= most for x, most in zip(jitter, (1, 1, 1, 0.5))):
        raise ValueError(f"expected --jitter=BRIGHTNESS,CONTRAST,SATURATION,HUE from 0 to 1, hue to 0.5, got {jitter}")
    if len(rand_augment) != 2 or rand_augment[0] not in range(5) or not 0 <= rand_augment[1] <= 1:
        raise ValueError(
            "expected --rand_augment=OPERATIONS,MAGNITUDE, OPERATIONS 0 to 4 and 0 <= MAGNITUDE <= 1, got "
            f"{rand_augment}"
        )
    if rand_augment[0] and (preset.jitter_probability or preset.grayscale_probability or preset.blur_probability):
        raise ValueError(
            "expected --jitter_probability, --grayscale_probability and --blur_probability 0 with --rand_augment, got "
            f"{preset.jitter_probability}, {preset.grayscale_probability} and {preset.blur_probability}: use "
            "--augmentation=randaugment"
        )
    if rand_augment[0] and config.jit_compile and config.augment_on == "device":
        raise ValueError("expected --augment_on=host with --rand_augment and --jit_compile, got device")
