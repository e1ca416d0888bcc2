"""Declare what the trainings of detection and segmentation have in common: flags and limits."""

import dataclasses
import itertools
import pathlib
from typing import Any

from pic_tf.settings.check import check_ranges
from pic_tf.settings.setting import setting


@dataclasses.dataclass(frozen=True)
class StepFlags:
    """Length of a training by steps (--protocol=voc_detection or segmentation)."""

    steps: int | None = setting(
        None,
        "Length of the training of a detector or segmenter in steps, >= 1. The default None takes "
        "24,000 for voc_detection and 90,000 for segmentation.",
        limit="x >= 1",
    )
    decay_steps: tuple[float, ...] | None = setting(
        None,
        "Steps after which the learning rate of a detector or segmenter falls to a tenth, "
        "separated by commas. The default None takes 18,000 and 22,000 for voc_detection, 63,000 "
        "and 81,000 for segmentation.",
    )
    warmup_steps: int | None = setting(
        None,
        "Steps of the linear warm-up of a detector or segmenter, from a thousandth of the rate on, "
        ">= 0. The default None takes 100 for voc_detection and 0 for segmentation.",
        limit="x >= 0",
    )
    save_every: int = setting(
        1000,
        "Steps of the training of a detector or segmenter from one saved state to the next, >= 1.",
        limit="x >= 1",
    )


def resolve_steps(settings: Any, defaults: dict[str, Any], forms: str) -> Any:
    """Fill in what depends on protocol and backbone, and check all ranges.

    Args:
      settings: `EvaluationSettings`.
      defaults: what stands in place of None.
      forms: forms of --dataset, for the sentence where it is missing.

    Returns:
      The settings.

    Raises:
      ValueError: for a setting out of its range, or images that no flag names.
    """
    chosen = {name: value for name, value in defaults.items() if getattr(settings, name) is None}
    model = pathlib.Path(settings.model)
    if not settings.output_dir:
        inside = model / "backbone" if (model / "backbone").is_dir() else model
        chosen["output_dir"] = str(inside.parent / "evaluation")
    settings = dataclasses.replace(settings, **chosen)
    check_ranges(settings)
    check_rising(settings, "decay_steps")
    for name in ("dataset", "eval_dataset"):
        if not getattr(settings, name):
            raise ValueError(f"expected --{name} as {forms}, got none: name it")
    return settings


def check_batch(settings: Any, images: int) -> None:
    """Raise ValueError where a batch is larger than the number of images."""
    if settings.batch_size > images:
        raise ValueError(
            f"expected --batch_size of at most the {images:,} images, got {settings.batch_size}: "
            "lower it"
        )


def check_rising(settings: Any, name: str, whole: bool = True) -> None:
    """Raise ValueError unless a setting has rising numbers of at least 1, whole ones if asked."""
    numbers = getattr(settings, name)
    rising = all(a < b for a, b in itertools.pairwise(numbers))
    if not numbers or not rising or numbers[0] < 1 or (whole and any(x != int(x) for x in numbers)):
        raise ValueError(
            f"expected --{name} to be rising numbers of at least 1, separated by commas, got "
            f"{','.join(f'{x:g}' for x in numbers) or 'none'}"
        )
