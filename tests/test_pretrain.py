"""Whole runs: plan, interruption and resuming, export, and one clear sentence for wrong input."""

import csv
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.callbacks import metrics_files
from pic_tf.callbacks.progress import ProgressBar
from pic_tf.runs import checkpoint_files, open_data, run_folder
from pic_tf.runs.checkpoint import Checkpoints, restore_backbone
from pic_tf.serving import of_run
from pic_tf.settings import defaults, flag_files, networks
from pic_tf.settings.config import Config
from pic_tf.training import build, loop

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
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


def run(settings: Config, allow_changed_flags: bool = False) -> loop.Result:
    return loop.run(*open_data.open_data(settings), ONE, allow_changed_flags)


def variables_of(output_dir) -> dict[str, np.ndarray]:
    """Every array in the newest checkpoint of a run."""
    path, _ = checkpoint_files.newest(pathlib.Path(output_dir) / "checkpoints")
    tables = {f.stem: checkpoint_files.read_table(path, f.stem) for f in path.glob("*.npy")}
    return checkpoint_files.read_variables(path) | tables


def metrics_of(output_dir) -> list[dict[str, str]]:
    """Rows of metrics.csv but for the speed, which no two runs share."""
    rows = metrics_files.read_metrics(pathlib.Path(output_dir) / run_folder.METRICS_FILE)
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    settings = dataclasses.replace(SMALL, output_dir=str(tmp_path_factory.mktemp("run")))
    assert run(settings).finished
    return settings


def test_interrupted_and_resumed_equals_uninterrupted(uninterrupted, tmp_path, monkeypatch):
    """Within an epoch, at its last step, and right after a start; bit for bit."""
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path))
    signals_after(monkeypatch, 10, 11, 46, 60)
    assert [run(settings).step for _ in range(4)] == [10, 11, 46, 60]
    result = run(settings)
    assert result.finished and result.step == 3 * 23
    expected, got = variables_of(uninterrupted.output_dir), variables_of(tmp_path)
    assert expected.keys() == got.keys() and len(expected) > 100 and "weights" in expected
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    assert metrics_of(tmp_path) == metrics_of(uninterrupted.output_dir)


def test_signal_handlers_are_put_back(uninterrupted, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(dataclasses.replace(uninterrupted, epochs=1, knn_every=0, output_dir=str(tmp_path)))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_same_seed_same_run_other_seed_another(uninterrupted, tmp_path):
    expected = metrics_of(uninterrupted.output_dir)
    run(dataclasses.replace(uninterrupted, output_dir=str(tmp_path / "same")))
    assert metrics_of(tmp_path / "same") == expected
    run(dataclasses.replace(uninterrupted, seed=1, epochs=1, output_dir=str(tmp_path / "other")))
    assert metrics_of(tmp_path / "other")[0]["loss"] != expected[0]["loss"]


def test_several_steps_an_execution_are_the_same_steps(uninterrupted, tmp_path):
    """23 steps an epoch are not a multiple of 5."""
    run(dataclasses.replace(uninterrupted, steps_per_execution=5, output_dir=str(tmp_path)))
    expected, got = variables_of(uninterrupted.output_dir), variables_of(tmp_path)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    assert metrics_of(tmp_path) == metrics_of(uninterrupted.output_dir)


def test_a_finished_run_is_not_trained_again(uninterrupted):
    before = variables_of(uninterrupted.output_dir)
    assert run(uninterrupted).finished
    for name, value in variables_of(uninterrupted.output_dir).items():
        np.testing.assert_array_equal(value, before[name])


def test_what_a_run_leaves(uninterrupted):
    output = pathlib.Path(uninterrupted.output_dir)
    rows = metrics_of(output)
    assert [int(row["step"]) for row in rows] == [23, 46, 69]
    assert [bool(row["knn"]) for row in rows] == [False, True, True]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    with Image.open(output / run_folder.PICTURE) as picture:
        assert picture.width > 1000 and len(set(picture.convert("L").getdata())) > 50  # something is drawn
    events = list((output / "tensorboard").glob("events*"))
    tags = {
        value.tag
        for file in events
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert tags == set(metrics_files.COLUMNS) - {"epoch", "step", "probe"} | {"row_norms", "row_gaps"}
    again = flag_files.from_flagfile(str(output / run_folder.FLAGS_FILE))
    assert again == defaults.resolve(uninterrupted, 1500)
    assert not list(output.glob("*.partial*"))


def test_exports_of_a_run_agree(uninterrupted, tmp_path):
    assert of_run.export_run(uninterrupted.output_dir, str(tmp_path / "again")) == 69
    images = tf.random.uniform([4, 8, 8, 3])
    features = [
        tf.saved_model.load(str(path)).signatures["serving_default"](images=images)["features"]
        for path in (tmp_path / "again", pathlib.Path(uninterrupted.output_dir) / run_folder.EXPORT)
    ]
    np.testing.assert_array_equal(*features)


def test_export_needs_neither_rows_nor_room_for_them(uninterrupted, tmp_path, monkeypatch):
    """Nor the rest of the model; untrained it is what training began with."""
    began_with = build.build_model(open_data.open_data(uninterrupted)[0], ONE).backbone.get_weights()
    shutil.copytree(uninterrupted.output_dir, tmp_path / "run")
    monkeypatch.setattr(build, "build_model", lambda *_: 1 / 0)
    monkeypatch.setattr("pic_tf.runs.checkpoint.read_rows", lambda *_: 1 / 0)
    assert of_run.export_run(str(tmp_path / "run"), str(tmp_path / "after")) == 69
    assert of_run.export_run(str(tmp_path / "run"), str(tmp_path / "before"), untrained=True) == 0
    exported = [tf.saved_model.load(str(tmp_path / name)) for name in ("before", "after")]
    before, after = ({v.name: v.numpy() for v in each.variables} for each in exported)
    assert sorted(map(hash_of, before.values())) == sorted(map(hash_of, began_with))
    assert sorted(map(hash_of, after.values())) != sorted(map(hash_of, began_with))
    checkpoint, _ = checkpoint_files.newest(tmp_path / "run" / run_folder.CHECKPOINTS)
    with pytest.raises(ValueError, match=r"^expected a checkpoint of this model in .* \(backbone/.* instead of \["):
        restore_backbone(checkpoint, networks.plain_backbone(dataclasses.replace(uninterrupted, width=8)))


def hash_of(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_changed_flags_are_named(uninterrupted):
    with pytest.raises(ValueError, match=r"got --temperature \(0.2 -> 0.1\): use another --output_dir, or --allow_ch"):
        run(dataclasses.replace(uninterrupted, temperature=0.1))


def test_output_folder_that_cannot_be(uninterrupted, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"expected a folder to write to at '.*file', got File exists"):
        run(dataclasses.replace(uninterrupted, output_dir=str(tmp_path / "file")))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("in1k_*.flags")), ids=lambda path: path.stem)
def test_imagenet_recipes_print_their_plan_without_data(path):
    settings, images = open_data.open_data(flag_files.from_flagfile(str(path)), plan_only=True)
    assert images is None
    text = networks.describe(settings, ONE)
    epochs = int(re.search(r"_(\d+)ep", path.stem)[1])
    assert ("3 of 96 px, 8% to 14% of the image; they do not move the rows" in text) == ("multicrop" in path.stem)
    assert f"= {epochs * 2502:,} steps" in text and "23,508,032" in text
    if "epoch_order" in path.stem or "full" in path.stem:
        assert "every image comes once" in text
    else:
        assert "W 131,072, S 16,384 (majority ratio 87.5%)" in text
    assert ("all (full soft-max)" in text) == ("full" in path.stem)


def test_there_are_nine_imagenet_recipes():
    assert len(list(CONFIGS.glob("in1k_*.flags"))) == 9


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


def test_a_folder_of_images(tmp_path):
    picture_folder(tmp_path / "images")
    settings = dataclasses.replace(
        SMALL,
        dataset=str(tmp_path / "images"),
        output_dir=str(tmp_path / "run"),
        batch_size=8,
        num_negatives=None,
        image_size=16,
        epochs=2,
    )
    result = run(settings)
    assert result.finished and result.step == 2 * (30 // 8)
    assert metrics_of(tmp_path / "run")[-1]["knn"]


def test_real_photographs(tmp_path, real_photographs):
    settings = dataclasses.replace(
        SMALL, dataset=str(real_photographs), output_dir=str(tmp_path), batch_size=32, num_negatives=None, epochs=1
    )
    result = run(settings)
    assert result.finished and result.step == 200 // 32
    assert np.isfinite(float(metrics_of(tmp_path)[0]["loss"]))


@pytest.mark.parametrize("knn_every", [0, 1])
@pytest.mark.parametrize("part, number", [("train", 18), ("val", 24)])
def test_an_image_that_breaks_off_is_named(tmp_path, part, number, knn_every):
    folder = picture_folder(tmp_path / "images")
    broken = folder / part / "class0" / f"{number}.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    settings = one_epoch(folder, tmp_path / "run", knn_every=knn_every)
    if part == "val" and not knn_every:
        assert run(settings).finished  # nobody looks at it
        return
    named = rf"expected at most 1.000% of the \d+ images to be broken .*, got 1, the first .*{number}\.jpg. \(cut off,"
    with pytest.raises(ValueError, match=named):
        run(settings)


def many_pictures(folder, count, ways):
    """A folder of small pictures, the first of which are broken: one after another in each of the `ways`."""
    rng = np.random.default_rng(3)
    for i in range(count):
        path = folder / f"{i:03d}.{'png' if i % 2 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    for i, way in enumerate(ways):
        path = folder / f"{i:03d}.{'png' if i % 2 else 'jpg'}"
        path.write_bytes(way(path.read_bytes()))
    return folder


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


def test_one_percent_of_the_images_broken_in_eight_ways(tmp_path, capsys):
    folder = many_pictures(tmp_path / "images", 800, BROKEN.values())
    settings = dataclasses.replace(one_epoch(folder, tmp_path / "run", 0), batch_size=32, image_size=8, epochs=2)
    settings = dataclasses.replace(settings, order="epoch", num_negatives=64)  # every image comes
    assert run(settings).finished
    with open(tmp_path / "run" / "broken_images.csv", newline="") as file:
        rows = {int(row["id"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == list(range(8)) and rows[6]["image"] == str(folder / "006.jpg")
    assert {i: rows[i]["reason"] for i in (2, 3, 6)} == {
        2: "it is empty",
        3: "no JPEG or PNG",
        6: "65,535 x 65,535 pixels, more than 178,956,970",
    }
    said = capsys.readouterr().err
    assert all(said.count(f"{rows[i]['image']!r}: {rows[i]['reason']}") == 1 for i in rows)
    assert [float(row["left_out"]) for row in metrics_of(tmp_path / "run")] == [8, 8]
    # Where a run goes on, the list is kept and nothing is said again.
    assert run(dataclasses.replace(settings, epochs=3), allow_changed_flags=True).finished
    assert "broken image" not in capsys.readouterr().err


def test_five_percent_of_the_images_broken(tmp_path):
    folder = many_pictures(tmp_path / "images", 200, list(BROKEN.values()))
    settings = dataclasses.replace(one_epoch(folder, tmp_path / "run", 0), batch_size=32, image_size=8, epochs=3)
    named = r"expected at most 2.000% of the 200 images to be broken \(--max_broken\), got \d, the first '.*: see .*bro"
    with pytest.raises(ValueError, match=named):
        run(dataclasses.replace(settings, max_broken=0.02))
    assert (tmp_path / "run" / "broken_images.csv").exists()
    assert run(dataclasses.replace(settings, max_broken=0.05)).finished


@pytest.mark.parametrize("change", [{"augment_on": "host"}, {"crops": "1x8@0.3-1.0,2x4@0.1-0.3"}], ids=str)
def test_input_of_other_kinds_stops_and_resumes_bit_for_bit(tmp_path, monkeypatch, change):
    """Views augmented on the host; several crops; broken images among them."""
    folder = many_pictures(tmp_path / "images", 120, [BROKEN["a JPEG that breaks off"], BROKEN["text"]])
    settings = dataclasses.replace(one_epoch(folder, tmp_path / "whole", 0), image_size=8, max_broken=0.02, **change)
    settings = dataclasses.replace(settings, jitter=(0.4, 0.4, 0.4, 0.1), blur_probability=0.5, blur_sigma=(0.1, 2.0))
    assert run(settings).finished
    signals_after(monkeypatch, 5)
    resumed = dataclasses.replace(settings, output_dir=str(tmp_path / "run"))
    assert run(resumed).step == 5 and run(resumed).finished
    expected, got = variables_of(tmp_path / "whole"), variables_of(tmp_path / "run")
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")


def test_checkpoint_of_another_model_is_refused(uninterrupted, tmp_path):
    settings = defaults.resolve(dataclasses.replace(uninterrupted, width=8), 1500)
    model = build.build_model(settings, ONE)
    with pytest.raises(ValueError, match="expected a checkpoint of this model"):
        directory = pathlib.Path(uninterrupted.output_dir) / "checkpoints"
        Checkpoints(directory, model).restore(checkpoint_files.newest(directory)[0])


def test_a_folder_that_vanishes_in_mid_run_and_comes_back(tmp_path, monkeypatch):
    """The state is saved, and after the folder is back the same command ends as if nothing had been."""
    folder = picture_folder(tmp_path / "images")
    settings = dataclasses.replace(one_epoch(folder, tmp_path / "whole", knn_every=0), epochs=12)
    assert run(settings).finished
    at_step(monkeypatch, 7, lambda: (folder / "train").rename(tmp_path / "elsewhere"))
    settings = dataclasses.replace(settings, output_dir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"expected an image in .*, got one that cannot be read"):
        run(settings)
    (tmp_path / "elsewhere").rename(folder / "train")
    path, _ = checkpoint_files.newest(tmp_path / "run" / "checkpoints")
    assert checkpoint_files.step_of(path) >= 7
    assert run(settings).finished
    expected, got = variables_of(tmp_path / "whole"), variables_of(tmp_path / "run")
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def test_rows_are_not_given_to_other_images(tmp_path):
    """A file renamed in a folder would give images each other's rows; the folder itself may move."""
    folder = picture_folder(tmp_path / "images")
    settings = dataclasses.replace(one_epoch(folder, tmp_path / "run", knn_every=0), epochs=1)
    assert run(settings).finished
    moved = folder.rename(tmp_path / "moved")
    settings = dataclasses.replace(settings, dataset=str(moved))
    assert run(settings).finished
    (moved / "train" / "class0" / "18.jpg").rename(moved / "train" / "class0" / "00.jpg")
    with pytest.raises(ValueError, match=r"expected the 30 images of the run in .* of which some have other names"):
        run(settings)


def test_allowed_changes_go_on_with_the_state(uninterrupted, tmp_path, capsys):
    """More epochs need room in the history, which the first ones must keep."""
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path), knn_every=0)
    assert run(settings).step == 69
    before = variables_of(tmp_path)
    longer = dataclasses.replace(settings, epochs=6, temperature=0.25)
    result = loop.run(*open_data.open_data(longer), ONE, allow_changed_flags=True)
    assert result.finished and result.step == 138
    out = capsys.readouterr().out
    assert "changed: --epochs (3 -> 6)" in out and "changed: --temperature (0.2 -> 0.25)" in out
    after = variables_of(tmp_path)
    np.testing.assert_array_equal(after["optimizer/history/products"][:69], before["optimizer/history/products"][:69])
    losses = [float(row["loss"]) for row in metrics_of(tmp_path)]
    assert len(losses) == 6 and losses[-1] < losses[2]


def test_what_is_left_open_stays_as_it_was(uninterrupted):
    """W, S and K of the run, although their defaults depend on the number of replicas."""
    left_open = dataclasses.replace(uninterrupted, window_size=None, window_stride=None, num_negatives=None)
    resumed, *_ = open_data.open_data(left_open, num_replicas=1)
    assert resumed == open_data.open_data(uninterrupted)[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "weights.npy").unlink(),
        lambda path: (path / "SHA256SUMS").unlink(),
        lambda path: os.truncate(path / "momentum.npy", 1000),
        lambda path: flip_a_bit(path / "variables.npz"),
    ],
    ids="missing unfinished truncated flipped".split(),
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(uninterrupted, tmp_path, capsys, damage):
    shutil.copytree(uninterrupted.output_dir, tmp_path / "run")
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path / "run"))
    good, newest = checkpoint_files.states(tmp_path / "run" / "checkpoints").values()
    damage(newest)
    assert run(settings).finished
    said = capsys.readouterr()
    assert "damaged checkpoint: " in said.err and f"resuming from step 46 of 69 ({good})" in said.out
    assert newest.with_suffix(".damaged").is_dir()
    expected, got = variables_of(uninterrupted.output_dir), variables_of(tmp_path / "run")
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    assert metrics_of(tmp_path / "run") == metrics_of(uninterrupted.output_dir)


def flip_a_bit(path):
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 8]))


def test_no_good_checkpoint_left(uninterrupted, tmp_path):
    """Nothing is touched: the disk may be what is wrong."""
    shutil.copytree(uninterrupted.output_dir, tmp_path / "run")
    for path in checkpoint_files.states(tmp_path / "run" / "checkpoints").values():
        flip_a_bit(path / "weights.npy")
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path / "run"))
    with pytest.raises(
        ValueError, match=r"expected a good checkpoint in .*, got 2 damaged ones .the newest: weights.npy"
    ):
        run(settings)
    assert len(checkpoint_files.states(tmp_path / "run" / "checkpoints")) == 2


def test_two_runs_in_one_folder(uninterrupted, tmp_path, monkeypatch):
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path), epochs=1, knn_every=0)

    def another():
        with pytest.raises(
            ValueError, match=rf"got another run in it \(process {os.getpid()} on .*\): wait for its end"
        ):
            run(settings)

    at_step(monkeypatch, 5, another)
    assert run(settings).finished  # undisturbed
    assert run(settings).finished  # and the lock is free again


def test_the_clock_may_jump(uninterrupted, tmp_path, monkeypatch):
    """Neither the wall clock nor the times of files decide anything."""
    jumps = itertools.cycle([0.0, 3e8, -3e8])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path))
    signals_after(monkeypatch, 30)
    assert run(settings).step == 30
    for i, path in enumerate(checkpoint_files.states(tmp_path / "checkpoints").values()):
        for file in [path, *path.iterdir()]:
            os.utime(file, (1e9 - 1e6 * i, 1e9 - 1e6 * i))  # the newest looks oldest
    assert run(settings).finished
    assert metrics_of(tmp_path) == metrics_of(uninterrupted.output_dir)


def test_checkpoints_to_keep(uninterrupted, tmp_path):
    settings = dataclasses.replace(
        uninterrupted,
        output_dir=str(tmp_path),
        epochs=7,
        knn_every=0,
        checkpoint_every=1,
        keep_checkpoints=2,
        keep_checkpoint_every=3,
    )
    run(settings)
    assert [step // 23 for step in checkpoint_files.states(tmp_path / "checkpoints")] == [3, 6, 7]
