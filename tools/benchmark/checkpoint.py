"""Measure checkpoints: the wait of training for one, times to write and read it, its size."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import pathlib
import shutil
import statistics
import tempfile
import time

import tensorflow as tf
from absl import flags
from tqdm import tqdm

from pic_tf.runs import checkpoint_files
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.settings import defaults, quantities
from pic_tf.settings.config import Config
from pic_tf.training import build

from .processes import fail


def checkpoint() -> None:
    """Save, verify and restore ResNet-50 with its head and rows of each N in turns; medians."""
    values = flags.FLAGS
    if values.checkpoint_rounds < 1:
        fail(f"expected --checkpoint_rounds >= 1, got {values.checkpoint_rounds}")
    print(
        f"{'N':>12}{'size MB':>10}{'waits ms':>10}{'written s':>11}{'checked s':>11}"
        f"{'restored s':>12}  (medians)"
    )
    for count in map(int, values.checkpoint_instances):
        print(_line(count, values.checkpoint_rounds), flush=True)


def _line(num_instances: int, rounds: int) -> str:
    config = Config(num_negatives=min(65536, num_instances // 2))
    config = defaults.resolve(config, num_instances)
    rate = quantities.learning_rates(config)
    model = build.build_model(config, rate, tf.distribute.get_strategy())
    folder = pathlib.Path(tempfile.mkdtemp(dir=flags.FLAGS.checkpoint_folder or None))
    times: dict[str, list[float]] = {"waits": [], "written": [], "checked": [], "restored": []}
    try:
        checkpoints = Checkpoints(folder, model, keep=1)
        for step in tqdm(range(1, rounds + 2), unit="checkpoint", leave=False):
            model.lazy_sgd.iterations.assign(step)
            begin = time.monotonic()
            checkpoints.save(dict)
            times["waits"].append(time.monotonic() - begin)
            checkpoints.wait()
            times["written"].append(time.monotonic() - begin)
            begin = time.monotonic()
            path, _ = checkpoint_files.newest(folder)
            times["checked"].append(time.monotonic() - begin)
            begin = time.monotonic()
            checkpoints.restore(checkpoints.read(path))
            times["restored"].append(time.monotonic() - begin)
        size = sum(file.stat().st_size for file in path.iterdir())
    finally:
        shutil.rmtree(folder)
    # The first round traces the graphs that copy rows.
    waits, written, checked, restored = (statistics.median(values[1:]) for values in times.values())
    return (
        f"{num_instances:12,}{size / 1e6:10,.0f}{waits * 1e3:10,.0f}"
        f"{written:11.2f}{checked:11.2f}{restored:12.2f}"
    )


def define_flags() -> None:
    """Define the flags of `checkpoint`."""
    flags.DEFINE_list(
        "checkpoint_instances",
        "100000,1281167",
        "Numbers N of training images whose checkpoints are measured; each image takes 2 KiB of "
        "memory.",
    )
    flags.DEFINE_integer(
        "checkpoint_rounds", 5, "Checkpoints written of each N, whose medians are reported."
    )
    flags.DEFINE_string(
        "checkpoint_folder",
        "",
        "Folder to write checkpoints to; '' for the system's folder of temporary files.",
    )
