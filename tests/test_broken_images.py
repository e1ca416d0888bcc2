"""Whole runs over folders of images, some of which are broken, vanish or have other names."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest

from pic_tf.data.sources.formats import NAMES
from pic_tf.runs import checkpoint_files
from tests.short_runs import (
    BROKEN,
    SMALL,
    assert_same_run,
    assert_same_variables,
    at_step,
    many_pictures,
    metrics_of,
    one_epoch,
    picture_folder,
    run,
    signals_after,
)

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")


@pytest.mark.slow
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
        SMALL,
        dataset=str(real_photographs),
        output_dir=str(tmp_path),
        batch_size=32,
        num_negatives=None,
        epochs=1,
    )
    result = run(settings)
    assert result.finished and result.step == 200 // 32
    assert np.isfinite(float(metrics_of(tmp_path)[0]["loss"]))
    assert float(metrics_of(tmp_path)[0]["rankme"]) > 1 and not metrics_of(tmp_path)[0]["knn"]


def break_off(folder, part, number):
    broken = folder / part / "class0" / f"{number}.jpg"
    broken.write_bytes(broken.read_bytes()[:300])


@pytest.fixture(scope="module")
def whole(shallow_networks, empty_exports, tmp_path_factory):
    """Settings of a run without an evaluation, over a folder whose held-out images are broken."""
    place = tmp_path_factory.mktemp("whole")
    folder = picture_folder(place / "images")
    break_off(folder, "val", 24)
    settings = dataclasses.replace(one_epoch(folder, place / "run", knn_every=0), epochs=12)
    assert run(settings).finished  # nobody looks at them
    return settings


@pytest.fixture
def own(whole, tmp_path):
    """Its settings with images in a folder of the test's own, and nothing at `run` beside it."""
    folder = shutil.copytree(whole.dataset, tmp_path / "images")
    return dataclasses.replace(whole, dataset=str(folder), output_dir=str(tmp_path / "run"))


@pytest.mark.parametrize(
    "part, number, knn_every",
    [("train", 18, 0), pytest.param("train", 18, 1, marks=pytest.mark.slow), ("val", 24, 1)],
)
def test_an_image_that_breaks_off_is_named(tmp_path, part, number, knn_every):
    folder = picture_folder(tmp_path / "images")
    break_off(folder, part, number)
    settings = one_epoch(folder, tmp_path / "run", knn_every=knn_every)
    named = (
        r"expected at most 1.000% of the \d+ images to be broken .*, got 1, the first "
        rf".*{number}\.jpg. \(cut off,"
    )
    with pytest.raises(ValueError, match=named):
        run(settings)


@pytest.mark.parametrize("epochs", [(2,), pytest.param((1, 2), marks=pytest.mark.slow)], ids=str)
def test_one_percent_of_the_images_broken_in_eight_ways(tmp_path, capsys, epochs):
    """In the second epoch, and where a run goes on, the list is kept and nothing is said again."""
    folder = many_pictures(tmp_path / "images", 800, BROKEN.values())
    settings = dataclasses.replace(
        one_epoch(folder, tmp_path / "run", 0), batch_size=32, image_size=8
    )
    settings = dataclasses.replace(settings, order="epoch", num_negatives=64)  # every image comes
    said = ""
    for count in epochs:
        assert run(dataclasses.replace(settings, epochs=count), allow_changed_flags=True).finished
        part = capsys.readouterr().err
        assert not said or "broken image" not in part
        said += part
    with open(tmp_path / "run" / "broken_images.csv", newline="") as file:
        rows = {int(row["id"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == list(range(8)) and rows[6]["image"] == str(folder / "006.jpg")
    assert {i: rows[i]["reason"] for i in (2, 3, 6)} == {
        2: "it is empty",
        3: f"no {NAMES}",
        6: "65,535 x 65,535 pixels, more than 178,956,970",
    }
    assert all(said.count(f"{rows[i]['image']!r}: {rows[i]['reason']}") == 1 for i in rows)
    assert [float(row["left_out"]) for row in metrics_of(tmp_path / "run")] == [8, 8]


@pytest.mark.slow
def test_five_percent_of_the_images_broken(tmp_path):
    folder = many_pictures(tmp_path / "images", 200, list(BROKEN.values()))
    settings = dataclasses.replace(
        one_epoch(folder, tmp_path / "run", 0), batch_size=32, image_size=8, epochs=3
    )
    named = (
        r"expected at most 2.000% of the 200 images to be broken \(--max_broken\), got \d, the "
        r"first '.*: see .*bro"
    )
    with pytest.raises(ValueError, match=named):
        run(dataclasses.replace(settings, max_broken=0.02))
    assert (tmp_path / "run" / "broken_images.csv").exists()
    assert run(dataclasses.replace(settings, max_broken=0.05)).finished


def test_a_run_begins_after_broken_images_were_mended_or_removed(tmp_path):
    """The list of a try that ended before its first checkpoint is of images that are gone."""
    folder, listed = many_pictures(tmp_path / "images", 24, []), tmp_path / "run/broken_images.csv"
    listed.parent.mkdir()
    listed.write_text("id,image,reason\n0,000.jpg,it is empty\n24,024.jpg,it is empty\n")
    settings = dataclasses.replace(one_epoch(folder, listed.parent, 0), max_broken=0.0)
    assert run(settings).finished and not listed.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"augment_on": "host"}, {"crops": "1x8@0.3-1.0,2x4@0.1-0.3"}], ids=str
)
def test_input_of_other_kinds_stops_and_resumes_bit_for_bit(tmp_path, monkeypatch, change):
    """Views augmented on the host; several crops; broken images among them."""
    folder = many_pictures(
        tmp_path / "images", 120, [BROKEN["a JPEG that breaks off"], BROKEN["text"]]
    )
    settings = dataclasses.replace(
        one_epoch(folder, tmp_path / "whole", 0), image_size=8, max_broken=0.02, **change
    )
    settings = dataclasses.replace(
        settings, jitter=(0.4, 0.4, 0.4, 0.1), blur_probability=0.5, blur_sigma=(0.1, 2.0)
    )
    assert run(settings).finished
    signals_after(monkeypatch, 5)
    resumed = dataclasses.replace(settings, output_dir=str(tmp_path / "run"))
    assert run(resumed).step == 5 and run(resumed).finished
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_folder_that_vanishes_in_mid_run_and_comes_back(whole, own, tmp_path, monkeypatch):
    """The state is saved, and after the folder is back the same command ends as if nothing had
    been.
    """
    train = tmp_path / "images" / "train"
    at_step(monkeypatch, 7, lambda: train.rename(tmp_path / "elsewhere"))
    with pytest.raises(ValueError, match=r"expected an image in .*, got one that cannot be read"):
        run(own)
    (tmp_path / "elsewhere").rename(train)
    path, _ = checkpoint_files.newest(tmp_path / "run" / "checkpoints")
    assert checkpoint_files.step_of(path) >= 7
    assert run(own).finished
    assert_same_variables(own.output_dir, whole.output_dir)


def test_rows_are_not_given_to_other_images(whole, own, tmp_path):
    """A file renamed in a folder would give images each other's rows; the folder itself may
    move.
    """
    shutil.copytree(whole.output_dir, own.output_dir)
    assert run(own).finished
    moved = tmp_path / "images"
    (moved / "train" / "class0" / "18.jpg").rename(moved / "train" / "class0" / "00.jpg")
    with pytest.raises(
        ValueError, match=r"expected the 30 images of the run in .* of which some have other names"
    ):
        run(own)
