"""Describe a run before it starts."""

import math
import sys

import tf_keras as keras

from pic_tf.data.presets import PRESETS
from pic_tf.instances.classifier import default_floor
from pic_tf.settings.config import Config
from pic_tf.settings.quantities import (
    _row_size,
    checkpoint_size,
    memory,
    peak_learning_rate,
    resting_steps,
    rows_off_device,
    rows_on_disk,
    shrinking,
    steps_per_epoch,
    total_steps,
)


def describe(
    config: Config, backbone: keras.Model, head: keras.Model, devices: str, num_replicas: int
) -> str:
    """Write the plan.

    Args:
      config: resolved configuration.
      backbone: the network.
      head: the projection head.
      devices: what it runs on.
      num_replicas: R.

    Returns:
      Lines to print.
    """
    n, w, s, b = config.num_instances, config.window_size, config.window_stride, config.batch_size
    k = config.num_negatives
    steps, per_epoch = total_steps(config), steps_per_epoch(config)
    if w == n and s == n:
        order, visits = "epochs", f"every image comes once in {n:,} views"
    else:
        order = f"sliding window, W {w:,}, S {s:,} (majority ratio {1 - s / w:.1%})"
        order += f", {config.virtual_shards} virtual shards" if config.virtual_shards else ""
        rest = (n - w + s) / s * w
        visits = (
            f"an image comes {w / s:.3g} times, {w:,} views apart, then rests for about "
            f"{rest:,.0f} views"
        )
    negatives = "all (full soft-max)" if k == n else f"{k:,} most recent"
    parts = memory(config, backbone, head, num_replicas)
    kept = f"{config.keep_checkpoints:,} newest"
    if config.keep_checkpoint_every:
        kept += f" and {config.epochs // config.keep_checkpoint_every:,} more"
    rows = [
        ("images", f"{n:,} from {config.dataset}"),
        *[("views" if i == 0 else "", text) for i, text in enumerate(_views(config))],
        (
            "length",
            f"{config.epochs:,} epochs x {per_epoch:,} steps of {b:,} images = {steps:,} steps",
        ),
        ("order", order),
        ("", visits),
        ("negatives K", f"{negatives}; temperature {config.temperature:g}, {config.similarity}"),
        (
            "backbone",
            f"{config.backbone}, {config.stem} stem, width {config.width}: {_trainable(backbone)}",
        ),
        ("head", f"{config.head} to D = {config.embedding_dim}: {_trainable(head)}"),
        (
            "learning rate",
            f"{peak_learning_rate(config):g} after {config.warmup_epochs:g} epochs of warm-up, "
            f"cosine to {config.final_learning_rate:g}; momentum {config.momentum:g}, weight decay "
            f"{config.weight_decay:g}",
        ),
        *([("", _of_backbone(config))] if config.optimizer != "sgd" else []),
        (
            "devices",
            f"{devices}, {config.precision}" + (", compiled by XLA" if config.jit_compile else ""),
        ),
        *[("norm floor" if i == 0 else "", text) for i, text in enumerate(_norm_floor(config))],
        *[
            ("memory" if i == 0 else "", f"{as_text(size):>9}  {part}")
            for i, (part, size) in enumerate(parts.items())
        ],
        (
            "",
            f"{as_text(sum(parts.values())):>9}  in "
            f"all{' on each replica' if num_replicas > 1 else ''}",
        ),
        *[("rows" if i == 0 else "", line) for i, line in enumerate(_resting_rows(config))],
        ("output", config.output_dir),
        (
            "",
            f"{kept} checkpoints of "
            f"{as_text(checkpoint_size(config, backbone, head, num_replicas))}",
        ),
    ]
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


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
    published = config.preset() == PRESETS[config.augmentation]()
    lines.append(
        f"augmentation {config.augmentation}{'' if published else ', changed'}, on the "
        f"{config.augment_on}"
    )
    return lines


def _of_backbone(config: Config) -> str:
    if config.optimizer == "lars":
        return f"backbone by LARS, trust coefficient {config.lars_trust_coefficient:g}"
    return f"backbone by LAMB, peak learning rate {config.lamb_learning_rate:g}"


def _norm_floor(config: Config) -> list[str]:
    """Describe the norm floor, the shrinking of resting rows, and the rows that the floor lifts."""
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
