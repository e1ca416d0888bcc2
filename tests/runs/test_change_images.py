"""Images that come to a run and go from it, by their names."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.sources.array import digits
from pic_tf.instances.first_weights import INITIAL_STDDEV, initial_rows
from pic_tf.instances.rows import RowSnapshot
from pic_tf.runs import (
    change_images,
    checkpoint_files,
    collect_rows,
    new_run,
    open_data,
    run_folder,
)
from pic_tf.settings import flag_files
from tests.processes import commands_that_fork
from tests.short_runs import SMALL, metrics_of, run, signals_after, variables_of
from tests.test_stores import assert_same

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")

ROOT = pathlib.Path(__file__).parents[2]
COUNT, PER_EPOCH = 400, 6
SETTINGS = dataclasses.replace(
    SMALL,
    epochs=6,
    knn_every=0,
    tensorboard=False,
    window_size=128,
    window_stride=64,
    num_negatives=128,
)


def write_images(folder, numbers):
    """Scans of digits; number 7 is i/0007.png wherever it is."""
    images = digits("train").images
    for number in numbers:
        path = folder / f"{number % 3}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(path)


def names_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Settings of a run over the first images, stopped after its third epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    write_images(folder / "images", range(COUNT))
    settings = dataclasses.replace(
        SETTINGS, dataset=str(folder / "images"), output_dir=str(folder / "run")
    )
    with pytest.MonkeyPatch.context() as patch:
        signals_after(patch, 3 * PER_EPOCH)
        assert run(settings).step == 3 * PER_EPOCH
    return settings


@pytest.fixture(scope="module")
def changed(stopped, tmp_path_factory):
    """The folder of a run whose images 100 to 129 have gone, and 20 others come, before and
    between the others.
    """
    folder = tmp_path_factory.mktemp("changed")
    write_images(folder / "images", [*range(100), *range(130, COUNT), *range(1400, 1420)])
    found = change_images.change(
        stopped.output_dir, str(folder / "images"), str(folder / "run"), epochs=8
    )
    assert (found.kept, found.added, found.retired, found.step) == (370, 20, 30, 18)
    return folder


def settings_in(folder):
    return flag_files.from_flagfile(str(folder / "run" / run_folder.FLAGS_FILE))


def test_by_hand():
    old = RowSnapshot(
        weights=np.array([[1.0], [2.0], [3.0], [4.0]], np.float32),
        momentum=np.array([[0.1], [0.2], [0.3], [0.4]], np.float32),
        stamp=np.array([5, 0, 7, 9]),
        ring=np.array([3, -1, 2]),
        head=1,
    )
    tables = {
        "weights": np.zeros([3, 1], np.float32),
        "momentum": np.zeros([3, 1], np.float32),
        "stamp": np.zeros(3),
    }
    old_ids = np.array([-1, 3, 1])  # a new one, the last, the second, which was never visited
    change_images.fill(tables, old, old_ids, seed=2)
    first = initial_rows(tf.constant([0, 2], tf.int64), 1, INITIAL_STDDEV, 2)
    np.testing.assert_array_equal(tables["weights"], [first[0], [4.0], first[1]])
    np.testing.assert_array_equal(tables["momentum"], np.array([[0.0], [0.4], [0.2]], np.float32))
    np.testing.assert_array_equal(tables["stamp"], [0, 9, 0])
    np.testing.assert_array_equal(change_images.renumbered(old.ring, old_ids, 4), [1, -1, -1])


def test_rows_go_with_the_names_of_their_images(stopped, changed):
    before, after = variables_of(stopped.output_dir), variables_of(changed / "run")
    names_before, names_after = (
        names_of(pathlib.Path(stopped.dataset)),
        names_of(changed / "images"),
    )
    assert len(names_before) == 400 and len(names_after) == 390
    visited = 0
    for i, name in enumerate(names_after):
        was = names_before.index(name) if name in names_before else None
        if was is not None and before["stamp"][was]:
            visited += 1
            for table in ("weights", "momentum", "stamp"):
                np.testing.assert_array_equal(after[table][i], before[table][was])
        else:
            first = initial_rows(
                tf.constant([i], tf.int64), SETTINGS.embedding_dim, INITIAL_STDDEV, SETTINGS.seed
            )[0]
            np.testing.assert_array_equal(after["weights"][i], first)
            assert after["stamp"][i] == 0
    assert visited > 300
    recent = [names_after[i] if i >= 0 else None for i in after["ring"]]
    expected = [names_before[i] if names_before[i] in names_after else None for i in before["ring"]]
    assert recent == expected and 0 < recent.count(None) < len(recent)


@pytest.fixture(scope="module")
def on_device(changed):
    """The folder in which the run has been finished with all rows on the device."""
    shutil.copytree(changed / "run", changed / "on_device")
    assert (
        run(dataclasses.replace(settings_in(changed), output_dir=str(changed / "on_device"))).step
        == 8 * PER_EPOCH
    )
    return changed / "on_device"


def test_new_images_have_their_turn(on_device):
    losses = [float(row["loss"]) for row in metrics_of(on_device)]
    assert len(losses) == 8 and losses[-1] < losses[2]  # three epochs of the old run, then five
    assert variables_of(on_device)["stamp"].min() > 0


@pytest.mark.slow
def test_training_goes_on_off_the_device(changed, tmp_path):
    def go_on(store, name, steps=None):
        with pytest.MonkeyPatch.context() as patch:
            if steps:
                signals_after(patch, steps)
            settings = dataclasses.replace(
                settings_in(changed), output_dir=str(tmp_path / name), instance_store=store
            )
            return run(settings)

    shutil.copytree(changed / "run", tmp_path / "disk")
    assert not go_on("disk", "disk", 9).finished
    collect_rows.collect(str(tmp_path / "disk"), str(tmp_path / "device"))
    assert go_on("device", "device").finished
    assert go_on("disk", "disk").step == 8 * PER_EPOCH
    assert_same(tmp_path / "disk", variables_of(tmp_path / "device"))


@pytest.mark.slow
def test_the_same_images_elsewhere_are_the_same_run(stopped, tmp_path):
    shutil.copytree(stopped.dataset, tmp_path / "images")
    change_images.change(stopped.output_dir, str(tmp_path / "images"), str(tmp_path / "new"))
    assert run(flag_files.from_flagfile(str(tmp_path / "new" / run_folder.FLAGS_FILE))).finished
    shutil.copytree(stopped.output_dir, tmp_path / "old")
    assert run(dataclasses.replace(stopped, output_dir=str(tmp_path / "old"))).finished
    assert_same(tmp_path / "new", variables_of(tmp_path / "old"))
    assert metrics_of(tmp_path / "new") == metrics_of(tmp_path / "old")


@pytest.mark.slow
def test_all_images_as_negatives(stopped, tmp_path, monkeypatch):
    settings = dataclasses.replace(
        stopped,
        order="epoch",
        window_size=None,
        window_stride=None,
        num_negatives=0,
        output_dir=str(tmp_path / "old"),
    )
    signals_after(monkeypatch, PER_EPOCH)
    assert not run(settings).finished
    monkeypatch.undo()
    shutil.copytree(settings.dataset, tmp_path / "images")
    write_images(tmp_path / "images", range(1000, 1010))
    (tmp_path / "images" / "0" / "0000.png").unlink()
    change_images.change(settings.output_dir, str(tmp_path / "images"), str(tmp_path / "run"))
    before, after = variables_of(tmp_path / "old"), variables_of(tmp_path / "run")
    np.testing.assert_array_equal(after["ring"], np.arange(COUNT + 9))
    names = names_of(pathlib.Path(settings.dataset))
    for i, name in enumerate(names_of(tmp_path / "images")):
        if name in names:
            np.testing.assert_array_equal(after["weights"][i], before["weights"][names.index(name)])
    assert run(settings_in(tmp_path)).finished


def test_sentences(stopped, tmp_path):
    images, other = tmp_path / "images", tmp_path / "other"
    write_images(other, range(COUNT, COUNT + 200))
    shutil.copytree(stopped.dataset, images)

    def refused(match, **arguments):
        given = {
            "run": stopped.output_dir,
            "dataset": str(images),
            "output": str(tmp_path / "new"),
        } | arguments
        with pytest.raises(ValueError, match=match):
            change_images.change(**given)
        assert not (tmp_path / "new").exists()

    refused(
        r"^expected a run with a checkpoint at '.*nothing', got none", run=str(tmp_path / "nothing")
    )
    refused(
        r"^expected the images that the run was trained on in .*, got others: keep",
        old_dataset=str(other),
    )
    refused(
        r"^expected images of the run in .*, got none with the name of one, such as '0/0000.png'",
        dataset=str(other),
    )
    refused(
        r"^expected images with names, from a folder or tools/pack.py, got 'digits",
        dataset="digits",
    )
    refused(
        r"^expected --epochs of more than 3, for that many of the new images lie behind step 18, "
        r"got 3",
        epochs=3,
    )
    refused(
        r"^expected --output_dir outside the folder of images .*: its pictures would",
        output=str(images / "run"),
    )
    few = tmp_path / "few"
    write_images(few, range(COUNT - 128, COUNT))
    refused(
        r"^expected more images than the 128 negatives, got as many: take away fewer",
        dataset=str(few),
        epochs=20,
    )
    write_images(tmp_path / "fewer", range(20))
    refused(
        r"^expected --batch_size to be at most .* \(20\), got \d+ \(with the settings of the run "
        r"and 20 images\)$",
        dataset=str(tmp_path / "fewer"),
    )
    refused(r"^expected a new folder as --output, got '.*run', in which", output=stopped.output_dir)


def test_what_was_cut_off_does_not_stand_in_the_way(stopped, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    new = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(new_run.checkpoint_files, "write_checkpoint", full)
        with pytest.raises(OSError, match="No space"):
            change_images.change(stopped.output_dir, stopped.dataset, str(new))
    (new / "rows.partial").mkdir()
    (new / "rows.partial" / "weights.npy").write_bytes(b"half")
    (new / "checkpoints").mkdir()
    assert change_images.change(stopped.output_dir, stopped.dataset, str(new)).kept == COUNT
    assert sorted(path.name for path in new.iterdir()) == [".lock", "checkpoints", "flags.txt"]


def test_the_probe_keeps_its_classes(stopped, tmp_path):
    shutil.copytree(stopped.output_dir, tmp_path / "run")
    checkpoint, _ = checkpoint_files.newest(tmp_path / "run" / "checkpoints")
    write_images(tmp_path / "held_out", [0, 1, 3, 4])
    flags = dataclasses.replace(
        stopped, probe_batch_size=8, knn_every=1, eval_dataset=str(tmp_path / "held_out")
    )
    (checkpoint / run_folder.FLAGS_FILE).write_text(
        flag_files.to_flagfile(open_data.open_data(flags)[0])
    )
    names = sorted(path.name for path in checkpoint.iterdir() if path.name != checkpoint_files.SUMS)
    (checkpoint / checkpoint_files.SUMS).write_text(
        "".join(f"{checkpoint_files.sha256_of(checkpoint / name)}  {name}\n" for name in names)
    )
    shutil.copytree(stopped.dataset, tmp_path / "images")
    (tmp_path / "images" / "2").rename(tmp_path / "images" / "3")
    with pytest.raises(
        ValueError,
        match=r"^expected the 3 classes of the run, to which its linear probe belongs, got oth",
    ):
        change_images.change(str(tmp_path / "run"), str(tmp_path / "images"), str(tmp_path / "new"))


def test_a_run_with_rows_on_disk_is_collected_first(stopped, tmp_path, monkeypatch):
    settings = dataclasses.replace(stopped, instance_store="disk", output_dir=str(tmp_path / "run"))
    signals_after(monkeypatch, 5)
    assert not run(settings).finished
    with pytest.raises(
        ValueError,
        match=r"other rows are on disk: bring them together first, with tools/collect_rows",
    ):
        change_images.change(settings.output_dir, settings.dataset, str(tmp_path / "new"))


def test_the_command_says_what_became_of_the_images(stopped, tmp_path):
    write_images(tmp_path / "images", range(10, COUNT + 20))
    flags = (
        f"--run={stopped.output_dir}",
        f"--dataset={tmp_path / 'images'}",
        f"--output={tmp_path / 'new'}",
    )
    command = ("tools.change_images", [*flags], os.environ | {"PYTHONPATH": str(ROOT)}, 120)
    with commands_that_fork() as fork:
        done, again = fork(*command), fork(*command)
    assert done.code == 0, done.stderr
    assert done.stdout == (
        "410 images: 390 keep their rows, 20 are new; 10 have retired\n"
        f"step 18 of 36, epoch 3.0 of 6: train with --flagfile={tmp_path / 'new' / 'flags.txt'}\n"
    )
    assert again.code == 1 and again.stderr.startswith(
        "error: expected a new folder as --output"
    ), again.stderr
