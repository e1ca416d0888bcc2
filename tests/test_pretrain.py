"""Whole runs: plan, interruption and resuming, export."""

import dataclasses
import functools
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.callbacks import metrics_files
from pic_tf.data.sources.array import digits
from pic_tf.evals import feature_health
from pic_tf.runs import checkpoint_files, open_data, run_folder
from pic_tf.runs.state import restore_backbone
from pic_tf.serving import of_run
from pic_tf.settings import defaults, flag_files, networks
from pic_tf.training import build
from tests.short_runs import (
    ONE,
    assert_same_run,
    empty_ends,
    hash_of,
    metrics_of,
    model_of,
    run,
    signals_after,
    variables_of,
)

pytestmark = pytest.mark.usefixtures("shallow_networks")
built_once = functools.cache(networks.resnet)
CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


@pytest.fixture
def empty_end(monkeypatch):
    """A run whose SavedModel and picture nobody reads."""
    empty_ends(monkeypatch)


@pytest.fixture(scope="module")
def started_again(shallow_networks, uninterrupted, tmp_path_factory):
    """Settings of the finished run in a folder of its own, after the same command once more."""
    output = tmp_path_factory.mktemp("again") / "run"
    shutil.copytree(uninterrupted.output_dir, output)
    settings = dataclasses.replace(uninterrupted, output_dir=str(output))
    assert run(settings).finished
    return settings


@pytest.mark.usefixtures("empty_end")
@pytest.mark.parametrize(
    "stops", [(46,), pytest.param((10, 11, 46, 60), marks=pytest.mark.slow)], ids=str
)
def test_interrupted_and_resumed_equals_uninterrupted(uninterrupted, tmp_path, monkeypatch, stops):
    """Within an epoch, as also in test_stores.py, at its last step, and right after a start; bit for
    bit, also where the last part takes several steps an execution. The 23 steps of an epoch are not
    a multiple of 5.
    """
    settings = dataclasses.replace(uninterrupted, output_dir=str(tmp_path))
    signals_after(monkeypatch, *stops)
    assert [run(settings).step for _ in stops] == list(stops)
    result = run(dataclasses.replace(settings, steps_per_execution=5))
    assert result.finished and result.step == 3 * 23
    expected = variables_of(uninterrupted.output_dir)
    assert len(expected) > 60 and "weights" in expected
    assert_same_run(tmp_path, uninterrupted.output_dir)


@pytest.mark.slow
@pytest.mark.usefixtures("empty_end")
def test_same_seed_same_run_also_with_several_steps_an_execution(uninterrupted, tmp_path):
    """From the first step on."""
    run(dataclasses.replace(uninterrupted, steps_per_execution=5, output_dir=str(tmp_path)))
    assert_same_run(tmp_path, uninterrupted.output_dir)


def test_a_finished_run_is_not_trained_again(uninterrupted, started_again):
    assert_same_run(started_again.output_dir, uninterrupted.output_dir)


def test_what_a_run_leaves(uninterrupted, started_again):
    output = pathlib.Path(uninterrupted.output_dir)
    rows = metrics_of(output)
    assert [int(row["step"]) for row in rows] == [23, 46, 69]
    for name in ("knn", *feature_health.FIGURES):
        assert [bool(row[name]) for row in rows] == [False, True, True]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    with Image.open(pathlib.Path(started_again.output_dir) / run_folder.PICTURE) as picture:
        assert (
            picture.width > 1000 and len(set(picture.convert("L").getdata())) > 50
        )  # something is drawn
    events = list((output / "tensorboard").glob("events*"))
    tags = {
        value.tag
        for file in events
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert tags == set(metrics_files.COLUMNS) - {"epoch", "step", "probe"} | {
        "row_norms",
        "row_gaps",
    }
    again = flag_files.from_flagfile(str(output / run_folder.FLAGS_FILE))
    assert again == defaults.resolve(uninterrupted, 1500)
    assert not list(output.glob("*.partial*"))


def test_the_rank_is_that_of_the_exported_features(started_again):
    """By NumPy's singular values, of nothing but the SavedModel and the images."""
    output = pathlib.Path(started_again.output_dir)
    serve = tf.saved_model.load(str(output / run_folder.EXPORT)).signatures["serving_default"]
    images = tf.constant(digits("train").images / 255, tf.float32)
    s = np.linalg.svd(serve(images=images)["features"].numpy(), compute_uv=False)
    p = s / s.sum() + 1e-7
    expected = np.exp(-np.sum(p * np.log(p)))
    # Singular values in float32, of features normalised in another order of operations.
    np.testing.assert_allclose(float(metrics_of(output)[-1]["rankme"]), expected, rtol=1e-4)


def test_exports_of_a_run_agree_and_need_neither_rows_nor_room_for_them(
    uninterrupted, started_again, tmp_path, monkeypatch
):
    """Nor the rest of the model; untrained it is what training began with."""
    began_with = model_of(open_data.open_data(uninterrupted)[0]).backbone.get_weights()
    shutil.copytree(uninterrupted.output_dir, tmp_path / "run")
    monkeypatch.setattr(build, "build_model", lambda *_: 1 / 0)
    monkeypatch.setattr("pic_tf.runs.state.read_state", lambda *_: 1 / 0)
    assert of_run.export_run(str(tmp_path / "run"), str(tmp_path / "after")) == 69
    assert of_run.export_run(str(tmp_path / "run"), str(tmp_path / "before"), untrained=True) == 0
    paths = tmp_path / "before", tmp_path / "after"
    paths += (pathlib.Path(started_again.output_dir) / run_folder.EXPORT,)
    exported, images = [tf.saved_model.load(str(p)) for p in paths], tf.random.uniform([4, 8, 8, 3])
    features = [each.signatures["serving_default"](images=images) for each in exported]
    np.testing.assert_array_equal(features[1]["features"], features[2]["features"])
    before, after, _ = ({v.name: v.numpy() for v in each.variables} for each in exported)
    assert sorted(map(hash_of, before.values())) == sorted(map(hash_of, began_with))
    assert sorted(map(hash_of, after.values())) != sorted(map(hash_of, began_with))
    checkpoint, _ = checkpoint_files.newest(tmp_path / "run" / run_folder.CHECKPOINTS)
    with pytest.raises(
        ValueError, match=r"^expected a checkpoint of this model in .* \(backbone/.* instead of \["
    ):
        restore_backbone(
            checkpoint, networks.plain_backbone(dataclasses.replace(uninterrupted, width=8))
        )


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("in1k_*.flags")), ids=lambda path: path.stem)
def test_imagenet_recipes_print_their_plan_without_data(path, monkeypatch):
    monkeypatch.setattr(networks, "resnet", built_once)  # they all have the same
    settings, images = open_data.open_data(flag_files.from_flagfile(str(path)), plan_only=True)
    assert images is None
    text = networks.describe(settings, ONE)
    epochs = int(re.search(r"_(\d+)ep", path.stem)[1])
    assert ("3 of 96 px, 8% to 14% of the image; they do not move the rows" in text) == (
        "multicrop" in path.stem
    )
    assert f"= {epochs * 2502:,} steps" in text and "23,508,032" in text
    if "epoch_order" in path.stem or "full" in path.stem:
        assert "every image comes once" in text
    else:
        assert "W 131,072, S 16,384 (majority ratio 87.5%)" in text
    assert ("all (full soft-max)" in text) == ("full" in path.stem)


def test_there_are_nine_imagenet_recipes():
    assert len(list(CONFIGS.glob("in1k_*.flags"))) == 9
