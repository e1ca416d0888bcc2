"""Describe a run before it starts."""

import math
import sys
from collections.abc import Sequence

import tf_keras as keras

from pic_tf.data.crops import total
from pic_tf.data.presets import PRESETS, without_colours
from pic_tf.data.sources.pixel_format import RGB
from pic_tf.instances.norm_floor import default_floor
from pic_tf.settings.config import Config
from pic_tf.settings.quantities import (
    ACTIVATIONS,
    _row_size,
    checkpoint_size,
    memory,
    number_of_views,
    peak_learning_rate,
    resting_steps,
    rows_off_device,
    rows_on_disk,
    shrinking,
    steps_per_epoch,
    total_steps,
)

_SMALL_VIEW = 64  # pixels; up to there a stem that keeps all positions is usual
_MUCH_MEMORY = 8e9  # bytes; how much a device has TensorFlow does not tell


def describe(
    config: Config,
    backbone: keras.Model,
    head: keras.Model,
    devices: str,
    num_replicas: int,
    images: Sequence[str] = (),
) -> str:
    """Write the plan.

    Args:
      config: resolved configuration.
      backbone: the network.
      head: the projection head.
      devices: what it runs on.
      num_replicas: R.
      images: lines about the images that were found.

    Returns:
      Lines to print.
    """
    sections = {
        "method": [] if config.method == "pic" else [config.method],
        "images": [f"{config.num_instances:,} from {config.dataset}", *images],
        "views": _views(config),
        "length": [_length(config)],
        "order": _order(config),
        "negatives K": [_negatives(config)],
        "backbone": _backbone(config, backbone),
        "head": [f"{config.head} to D = {config.embedding_dim}: {_trainable(head)}"],
        "learning rate": _learning_rate(config),
        "devices": [f"{devices}, {config.precision}{', compiled by XLA' * config.jit_compile}"],
        "norm floor": _norm_floor(config),
        "memory": _memory(config, memory(config, backbone, head, num_replicas), num_replicas),
        "rows": _resting_rows(config),
        "output": [
            config.output_dir,
            _checkpoints(config, checkpoint_size(config, backbone, head, num_replicas)),
        ],
    }
    return "\n".join(
        f"{name if i == 0 else '':<14} {line}"
        for name, lines in sections.items()
        for i, line in enumerate(lines)
    )


def _length(config: Config) -> str:
    """Describe the length of a run."""
    steps, per_epoch = total_steps(config), steps_per_epoch(config)
    batch = f"{config.batch_size:,} images"
    length = f"{config.epochs:,} epochs x {per_epoch:,} steps of {batch} = {steps:,} steps"
    if total(config.views()) > 1:
        length += f", {number_of_views(config):,} views"
    return length


def _order(config: Config) -> list[str]:
    """Describe the order of visits, and the visits of an image."""
    n, w, s = config.num_instances, config.window_size, config.window_stride
    if w == n and s == n:
        return ["epochs", f"every image comes once in {n:,} views"]
    order = f"sliding window, W {w:,}, S {s:,} (majority ratio {1 - s / w:.1%})"
    if config.virtual_shards:
        order += f", {config.virtual_shards} virtual shards"
    times, rest = f"{w / s:.3g} times, {w:,} views apart", f"about {(n - w + s) / s * w:,.0f} views"
    return [order, f"an image comes {times}, then rests for {rest}"]


def _backbone(config: Config, backbone: keras.Model) -> list[str]:
    """Describe the network, and a stem that is too coarse for the views."""
    own = f", {config.stem} stem, width {config.width}" if config.depth else ""
    lines = [f"{config.backbone}{own}: {_trainable(backbone)}"]
    if config.initial_weights:
        lines.append(f"starts from {config.initial_weights}")
    if frozen := config.freeze_backbone_epochs:
        lines.append(f"frozen for {frozen} epoch{'s' * (frozen > 1)}: head and rows move alone")
    size = max(crop.size for crop in config.views())
    if config.depth and config.stem == "imagenet" and size <= _SMALL_VIEW:
        side = -(-size // 4)  # it halves twice
        lines.append(
            f"its stem leaves {side} x {side} positions of views of {size} px; made for such ones "
            "is --stem=small"
        )
    return lines


def _negatives(config: Config) -> str:
    """Describe the denominator of the soft-max."""
    k, tau = config.num_negatives, f"temperature {config.temperature:g}"
    if config.method == "simclr":
        return f"{2 * config.batch_size - 2:,} views of other images in the batch; {tau}"
    if config.method == "mocov2":
        keys = f"{k:,} keys in the queue; {tau}, momentum of their encoder"
        return f"{keys} {config.encoder_momentum:g}, {config.batch_groups} groups a batch"
    negatives = "all (full soft-max)" if k == config.num_instances else f"{k:,} most recent"
    if config.label_smoothing:
        tau += f", label smoothing {config.label_smoothing:g}"
    if config.mixup_probability:
        tau += f", views mixed with probability {config.mixup_probability:g}"
    return f"{negatives}; {tau}, {config.similarity}"


def _learning_rate(config: Config) -> list[str]:
    """Describe the learning rate, and an optimizer for the backbone alone."""
    warmup = f"{config.warmup_epochs:g} epochs of warm-up"
    schedule = f"{peak_learning_rate(config):g} after {warmup}"
    schedule += f", cosine to {config.final_learning_rate:g}"
    sgd = f"momentum {config.momentum:g}, weight decay {config.weight_decay:g}"
    return [f"{schedule}; {sgd}", *([_of_backbone(config)] if config.optimizer != "sgd" else [])]


def _memory(config: Config, parts: dict[str, int], num_replicas: int) -> list[str]:
    """Describe the memory of a device."""
    where = " on each replica" if num_replicas > 1 else ""
    lines = [f"{as_text(size):>9}  {part}" for part, size in parts.items()]
    total = sum(parts.values())
    lines.append(f"{as_text(total):>9}  in all{where}")
    if total > _MUCH_MEMORY and 2 * parts[ACTIVATIONS] > total:
        halved = ", halve them by --precision=bfloat16" if config.precision == "float32" else ""
        lines.append(
            "more than many devices have, and most of it activations: "
            f"lower --batch_size{halved}, or take more replicas"
        )
    return lines


def _checkpoints(config: Config, size: int) -> str:
    """Describe the checkpoints of a run, each of `size` bytes."""
    kept = f"{config.keep_checkpoints:,} newest"
    if config.keep_checkpoint_every:
        kept += f" and {config.epochs // config.keep_checkpoint_every:,} more"
    return f"{kept} checkpoints of {as_text(size)}"


def _resting_rows(config: Config) -> list[str]:
    """Describe the rows off the device, and their traffic."""
    if config.instance_store == "device":
        return []
    steps = config.window_size // config.batch_size
    block = config.window_stride * _row_size(config)
    everything = rows_off_device(config)
    return [
        f"at most {as_text(rows_on_disk(config))} on disk, {as_text(everything)} for all of them",
        f"every {steps:,} steps {as_text(block)} go there and as much comes back, "
        f"{as_text(block / steps)} a step",
    ]


def _views(config: Config) -> list[str]:
    """Describe the views of an image and their augmentation."""
    lines = [
        f"{crop.count} of {crop.size} px, {crop.scale[0]:.0%} to {crop.scale[1]:.0%} of the image"
        + ("" if i == 0 or config.small_crops_move_rows else "; they do not move the rows")
        for i, crop in enumerate(config.views())
    ]
    if config.pixels != RGB:
        lines.append(_pixels(config))
    published, colours = PRESETS[config.augmentation](), ""
    if config.channels != 3:
        published, colours = without_colours(published), " without colours"
    changed = "" if config.preset() == published else ", changed"
    lines.append(
        f"augmentation {config.augmentation}{colours}{changed}, on the {config.augment_on}"
    )
    return lines


def _pixels(config: Config) -> str:
    """Describe the pixels, and their normalisation."""
    if config.channel_mean is None:
        return f"{config.pixels}, normalised by the images' own mean and deviation, to be measured"
    mean, stddev = (", ".join(f"{x:.3g}" for x in numbers) for numbers in config.normalisation)
    return f"{config.pixels}, normalised by mean {mean} and deviation {stddev}"


def _of_backbone(config: Config) -> str:
    if config.optimizer == "lars":
        return f"backbone by LARS, trust coefficient {config.lars_trust_coefficient:g}"
    return f"backbone by LAMB, peak learning rate {config.lamb_learning_rate:g}"


def _norm_floor(config: Config) -> list[str]:
    """Describe the norm floor, the shrinking of resting rows, and the rows that the floor lifts."""
    if config.method != "pic":
        return []
    floor, rest = config.min_row_norm, resting_steps(config)
    setting = f"{floor:.4g}" if floor and rest else "off"
    if not (
        rest and config.weight_correction and config.weight_decay
    ):  # none rests, or they return as they left
        return [setting]
    if rest > total_steps(config):
        return [f"{setting}; a row rests for about {rest:,.0f} steps, more than the run has"]
    least, mean = shrinking(config)
    lines = [
        f"{setting}; a rest of about {rest:,.0f} steps leaves a row {least:.3g} of its norm at the "
        f"peak rate, {mean:.3g} on average"
    ]
    if floor:
        new = default_floor(config.embedding_dim, "cosine")
        lines.append(
            f"it lifts rows that left with less than {_ratio(floor, least)} at the peak rate, "
            f"{_ratio(floor, mean)} on average; a new row has {new:.4g}"
        )
    return lines


def _ratio(floor: float, share: float) -> str:
    return f"{floor / max(share, sys.float_info.min):.3g}"  # a share that float64 cannot hold is 0


def _trainable(model: keras.Model) -> str:
    return f"{sum(math.prod(v.shape) for v in model.trainable_variables):,} trainable parameters"


def as_text(size: float) -> str:
    """Write bytes for people, e.g. 1.28 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
