"""Short whole runs on one machine, and what they leave: shared by the tests of whole runs."""

import dataclasses
import hashlib
import itertools
import os
import pathlib
import signal

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from pic_tf.callbacks import metrics_files
from pic_tf.callbacks.progress import ProgressBar
from pic_tf.evals import feature_health
from pic_tf.models import resnet
from pic_tf.pic import PIC
from pic_tf.runs import checkpoint_files, open_data, run_folder
from pic_tf.settings import quantities
from pic_tf.settings.config import Config
from pic_tf.training import build, loop

SMALL = Config(
    epochs=3,
    batch_size=64,
    num_negatives=128,
    backbone="resnet18",
    stem="small",
    width=4,
    hidden_dim=16,
    embedding_dim=16,
    image_size=8,
    jitter=(0.4, 0.4, 0.0, 0.0),
    blur_probability=0.0,
    eval_crop=1.0,
    knn_every=2,
    checkpoint_every=2,
)

ONE = tf.distribute.get_strategy()  # one replica
BROKEN = {
    "a JPEG that breaks off": lambda jpeg: jpeg[:-150],
    "a PNG that breaks off": lambda png: png[:-60],
    "nothing": lambda _: b"",
    "text": lambda _: b"not an image",
    "a JPEG without a frame": lambda jpeg: jpeg[:20],
    "a PNG whose pixels are damaged": lambda png: png[:60] + bytes(20) + png[80:],
    "a JPEG of 4 gigapixels": lambda jpeg: jpeg.replace(b"\0\x0c\0\x0c\3", b"\xff\xff\xff\xff\3"),
    "a bitmap": lambda _: b"BM" + bytes(100),
}


def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give resnet18 two blocks instead of eight, and compare views of 64 images instead of 512:
    what whole runs hold does not depend on either, their time does.

    All kinds of layers remain: both kinds of shortcuts, and a stride.
    """
    monkeypatch.setitem(resnet.STAGES, 18, ((1, 1), False))
    monkeypatch.setattr(feature_health, "_PAIRS", 64)


def empty_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the SavedModel of an export: it takes half of the time of a short run, and most
    tests do not read it.
    """

    def save(model, path, **_):
        folder = pathlib.Path(path)
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()

    monkeypatch.setattr(keras.Model, "save", save)


def empty_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the picture of the curves, too."""
    empty_exports(monkeypatch)
    monkeypatch.setattr("pic_tf.training.finish.plot_training", lambda *_: None)


def run(settings: Config, allow_changed_flags: bool = False) -> loop.Result:
    return loop.run(*open_data.open_data(settings), ONE, allow_changed_flags)


def model_of(settings: Config) -> PIC:
    """Build the model of a run of resolved settings."""
    return build.build_model(settings, quantities.learning_rates(settings), ONE)


def variables_of(output_dir) -> dict[str, np.ndarray]:
    """Every array in the newest checkpoint of a run."""
    path, _ = checkpoint_files.newest(pathlib.Path(output_dir) / "checkpoints")
    tables = {f.stem: checkpoint_files.read_table(path, f.stem) for f in path.glob("*.npy")}
    return checkpoint_files.read_variables(path) | tables


def metrics_of(output_dir) -> list[dict[str, str]]:
    """Rows of metrics.csv but for the speed, which no two runs share."""
    rows = metrics_files.read_metrics(pathlib.Path(output_dir) / run_folder.METRICS_FILE)
    return [
        {name: value for name, value in row.items() if name != "images_per_second"} for row in rows
    ]


def assert_same_run(output_dir, other) -> None:
    """Every array of the newest checkpoints, bit for bit, and all metrics but for the speed."""
    assert_same_variables(output_dir, other)
    assert metrics_of(output_dir) == metrics_of(other)


def assert_same_variables(output_dir, other) -> None:
    expected, got = variables_of(other), variables_of(output_dir)
    assert expected.keys() == got.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def signals_after(monkeypatch, *steps):
    """SIGINT to this process at the end of each of these steps, counted over all runs."""
    counted = iter(range(1, 10_000))
    update = ProgressBar.on_train_batch_end

    def on_train_batch_end(self, batch, logs):
        update(self, batch, logs)
        if next(counted) in steps:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "on_train_batch_end", on_train_batch_end)


def at_step(monkeypatch, step, action):
    """Do something once, at the end of a step."""
    update, counted = ProgressBar.on_train_batch_end, itertools.count(1)

    def on_train_batch_end(self, batch, logs):
        update(self, batch, logs)
        if next(counted) == step:
            action()

    monkeypatch.setattr(ProgressBar, "on_train_batch_end", on_train_batch_end)


def hash_of(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def flip_a_bit(path):
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 8]))


def picture_folder(folder, count=40, size=24):
    """Two classes of noisy JPEGs and PNGs of several sizes, in train and val."""
    rng = np.random.default_rng(0)
    for i in range(count):
        part = "val" if i // 2 % 4 == 0 else "train"
        path = folder / part / f"class{i % 2}" / f"{i:02d}.{'png' if i % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (size + i % 5, size + i % 7, 3)) + 100 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def one_epoch(folder, output, knn_every) -> Config:
    """Settings of the shortest run over a `picture_folder`."""
    return dataclasses.replace(
        SMALL,
        dataset=str(folder),
        output_dir=str(output),
        batch_size=8,
        num_negatives=None,
        image_size=16,
        knn_every=knn_every,
        epochs=1,
    )


def many_pictures(folder, count, ways):
    """A folder of small pictures, the first of which are broken: one after another in each of
    the `ways`.
    """
    rng = np.random.default_rng(3)
    for i in range(count):
        path = folder / f"{i:03d}.{'png' if i % 2 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    for i, way in enumerate(ways):
        path = folder / f"{i:03d}.{'png' if i % 2 else 'jpg'}"
        path.write_bytes(way(path.read_bytes()))
    return folder
