"""Check a study before anything runs: its images, and the runs that are there."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from pic_tf.runs import checkpoint_files
from pic_tf.runs.initial_weights import with_fingerprint
from pic_tf.runs.open_data import Images, check_labels, identity, open_images
from pic_tf.runs.run_folder import CHECKPOINTS, FLAGS_FILE, IMAGES_FILE
from pic_tf.settings import defaults, flag_files
from pic_tf.settings.config import Config
from pic_tf.studies.definition import Study, parsed
from pic_tf.studies.run import Place, figures_of

_Identity = dict[str, str | int]
# Left open, they follow from the images, and from the replicas of the machine that took the run: a
# recipe that has lost one of them goes unnoticed.
_OF_THE_MACHINE = (
    "window_stride",
    "virtual_shards",
    "num_negatives",
    "channel_mean",
    "channel_stddev",
)


def check(study: Study, place: Place) -> dict[str, _Identity | None]:
    """Check the settings of each run against the images, and that runs taken before fit.

    Args:
      study: the study.
      place: its folders.

    Returns:
      Name of each variant -> identity of its held-out images, None without any.

    Raises:
      ValueError: for images or settings that cannot be used, or a run taken with other flags or
        images.
    """
    opened: dict[tuple, tuple[Images, Callable[[], _Identity], _Identity | None]] = {}
    held_out = {}
    for variant in study.variants:
        where = f"in variant {variant.name!r}"
        config = parsed(place.words(variant, study.seeds[0]), Config, where)
        names = config.dataset, config.eval_dataset, config.labelled_dataset, config.split_folders
        data = *names, config.pixels, config.max_broken
        taken = [figures_of(place.folder(variant, seed)) for seed in study.seeds]
        try:
            if config.initial_weights and not all(taken):
                config = with_fingerprint(config)
            if data not in opened:
                images = open_images(config)
                own = functools.cache(functools.partial(identity, images.train))
                opened[data] = images, own, images.held_out and identity(images.held_out)
            images, own, held_out[variant.name] = opened[data]
            check_labels(config, images.labelled, images.held_out)
            defaults.resolve(config, len(images.train))
        except ValueError as error:
            raise ValueError(f"{error} {where}") from None
        for seed, figures in zip(study.seeds, taken):
            folder = place.folder(variant, seed)
            if figures:
                _check_words(folder, variant.words, figures["words"])
                _check_run(folder, dataclasses.replace(config, seed=seed), own)
                _check_held_out(folder, figures, held_out[variant.name])
    return held_out


def _check_words(folder: pathlib.Path, expected: Sequence[str], got: Sequence[str]) -> None:
    """Compare the words of a run with those of its variant.

    Its recipe may have moved: the name says nothing where the run has kept the flags themselves.
    """
    passed_over = ("--flagfile=",) if (folder / FLAGS_FILE).exists() else ()
    theirs, ours = (
        [w for w in words if not w.startswith(passed_over)] for words in (got, expected)
    )
    if theirs != ours:
        _refuse(folder, " ".join(expected), " ".join(got))


def _check_run(folder: pathlib.Path, config: Config, own: Callable[[], _Identity]) -> None:
    """Compare a run with what its words mean today, and its images with those of the study."""
    states = checkpoint_files.states(folder / CHECKPOINTS)
    for path in list(states.values())[-1:]:
        theirs = json.loads(checkpoint_files.read_text(path, IMAGES_FILE))
        if theirs != (images := own()):
            others = f"{theirs['count']:,} others"
            _refuse(folder, f"the {images['count']:,} images of {config.dataset!r}", others)
    if (folder / FLAGS_FILE).exists():
        old = flag_files.from_flagfile(str(folder / FLAGS_FILE))
        left_open = {n: getattr(old, n) for n in _OF_THE_MACHINE if getattr(config, n) is None}
        new = dataclasses.replace(defaults.resolve(config, old.num_instances), **left_open)
        if not config.initial_weights_sha256:
            new = dataclasses.replace(new, initial_weights_sha256=old.initial_weights_sha256)
        if changed := flag_files.changed(old, new):
            _refuse(folder, "the flags of its recipe", ", ".join(changed))


def _check_held_out(folder: pathlib.Path, figures: dict[str, Any], ours: _Identity | None) -> None:
    """Compare the held-out images of a run's evaluations with those of the study."""
    theirs = figures.get("held_out", ours)  # older figures lack them
    if theirs != ours:
        one, other = (f"the {x['count']:,}" if x else "no" for x in (ours, theirs))
        _refuse(folder, f"{one} held-out images of the study", f"{other} others")


def _refuse(folder: pathlib.Path, expected: str, got: str) -> None:
    raise ValueError(
        f"expected the run in {str(folder)!r} to be one of {expected}, got one of {got}: remove "
        "it, or name another --output_dir"
    )
