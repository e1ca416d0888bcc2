"""Take the runs of a study, one after another, and keep the figures of each."""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

import pic_tf
from pic_tf.callbacks.metrics_files import read_metrics
from pic_tf.files.command_line import INTERRUPTED, START_AGAIN
from pic_tf.files.replaced import replaced
from pic_tf.runs.run_folder import FLAGS_FILE, METRICS_FILE
from pic_tf.settings import flag_files, quantities
from pic_tf.settings.config import Config
from pic_tf.studies.definition import Study, Variant, parsed

FIGURES = "figures.json"
_CPU_SECONDS = "cpu_seconds.txt"  # a line for each training process that has ended
_OUTPUT = "output.txt"
_TERMINATED = 143  # exit code of a command that SIGTERM ended, as a shell shows it
_ASKED = (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)  # others, as SIGKILL, are failures


class Stopped(Exception):
    """A run was stopped by a signal, with its state saved."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Folders of a study.

    Attributes:
      output: of all runs.
      dataset: training images; "" for those of the recipe.
      eval_dataset: held-out images; "" for those of `dataset`.
    """

    output: pathlib.Path
    dataset: str = ""
    eval_dataset: str = ""

    def folder(self, variant: Variant, seed: int) -> pathlib.Path:
        """Folder of a run."""
        return self.output / variant.folder / f"seed-{seed}"

    def words(self, variant: Variant, seed: int) -> list[str]:
        """All flags of the training of a run."""
        given = {"dataset": self.dataset, "eval_dataset": self.eval_dataset}
        words = [f"--{name}={value}" for name, value in given.items() if value]
        return [
            *variant.words,
            *words,
            f"--seed={seed}",
            f"--output_dir={self.folder(variant, seed)}",
        ]


def figures_of(folder: pathlib.Path) -> dict[str, Any] | None:
    """Read the figures of a run; None where it has not been taken."""
    try:
        return json.loads((folder / FIGURES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def take(
    study: Study,
    place: Place,
    variant: Variant,
    seed: int,
    held_out: dict[str, str | int] | None,
) -> dict[str, Any]:
    """Train, evaluate, and keep the figures; go on where an earlier call was interrupted.

    Args:
      study: the study.
      place: its folders.
      variant: the variant.
      seed: its seed.
      held_out: identity of the images that the evaluations classify; None where there are none.

    Returns:
      The figures: `accuracy` of each evaluation in percent and its words, `held_out`, `views`,
      `cpu_seconds` of the training, the last line of its metrics, hardware, versions and date.

    Raises:
      Stopped: where a signal stopped a command.
      RuntimeError: where a command failed; what it said stands on standard error.
    """
    folder = place.folder(variant, seed)
    figures = figures_of(folder) or _trained(place, variant, seed)
    config = parsed(place.words(variant, seed), Config, f"in variant {variant.name!r}")
    images = [
        f"--dataset={config.labelled_dataset or config.dataset}",
        f"--eval_dataset={config.eval_dataset}",
        f"--split_folders={config.split_folders}",
    ]
    accuracy, taken = figures.setdefault("accuracy", {}), figures.setdefault("evaluations", {})
    if not accuracy:
        figures["held_out"] = held_out
    for name, words in missing_evaluations(study, figures).items():
        results = folder / "evaluations" / name
        own = [f"--model={folder}", f"--output_dir={results}", f"--seed={seed}"]
        _command(["pic_tf.evaluate", *images, *words, *own], folder)
        newest = max(results.glob("*.json"), key=lambda path: path.stat().st_mtime)
        accuracy[name] = 100 * json.loads(newest.read_text(encoding="utf-8"))["top1"]
        taken[name] = list(words)
        with replaced(folder / FIGURES, encoding="utf-8") as file:
            json.dump(figures, file, indent=1)
    return figures


def missing_evaluations(study: Study, figures: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """List the evaluations of a study that the figures of a run lack, or have by other flags."""
    accuracy, taken = figures["accuracy"], figures.get("evaluations", {})  # older ones lack words
    return {
        name: words
        for name, words in study.evaluations.items()
        if name not in accuracy or taken.get(name, list(words)) != list(words)
    }


def _trained(place: Place, variant: Variant, seed: int) -> dict[str, Any]:
    """Train, and make the figures of the training alone."""
    folder = place.folder(variant, seed)
    folder.mkdir(parents=True, exist_ok=True)
    before = _cpu_seconds_of_children()
    try:
        _command(["pic_tf.train", *place.words(variant, seed)], folder)
    finally:
        with open(folder / _CPU_SECONDS, "a", encoding="utf-8") as file:
            file.write(f"{_cpu_seconds_of_children() - before:.1f}\n")
    config = flag_files.from_flagfile(str(folder / FLAGS_FILE))
    lines = (folder / _CPU_SECONDS).read_text(encoding="utf-8").split()
    return {
        "variant": variant.name,
        "seed": seed,
        "words": list(variant.words),
        "views": quantities.number_of_views(config),
        "cpu_seconds": sum(map(float, lines)),
        "metrics": read_metrics(folder / METRICS_FILE)[-1],
        "hardware": hardware(),
        "pic_tf": pic_tf.__version__,
        "tensorflow": tf.__version__,
        "date": datetime.date.today().isoformat(),
    }


def hardware() -> str:
    """Name processor and accelerators."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join(gpus) or f"CPU, {_cores()} cores ({platform.machine()})"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _command(words: list[str], folder: pathlib.Path) -> None:
    """Run a command of the package; what it prints goes to a file, its progress to the screen."""
    with open(folder / _OUTPUT, "a", encoding="utf-8") as output:
        output.write(f"$ python -m {' '.join(words)}\n")
        output.flush()
        # In a session of its own, so that it gets each signal once: through this process.
        command = [sys.executable, "-m", *words]
        process = subprocess.Popen(command, stdout=output, start_new_session=True)
        with process, _forwarded_to(process):
            code = process.wait()
    if code in (START_AGAIN, INTERRUPTED, _TERMINATED, *_ASKED):
        raise Stopped
    if code:
        raise RuntimeError(f"python -m {' '.join(words)} ended with exit code {code}")


@contextlib.contextmanager
def _forwarded_to(process: subprocess.Popen) -> Iterator[None]:
    """Send the signals that ask this process to stop to the command that it waits for."""
    before = {
        number: signal.signal(number, lambda number, _: process.send_signal(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
