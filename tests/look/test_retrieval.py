"""Nearest images against float64 brute force, and wrong input of the command."""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.sources.array import ArraySource, digits
from pic_tf.look import contact_sheet
from pic_tf.look.contact_sheet import SIDE
from pic_tf.look.nearest_images import choose_queries, retrieve
from pic_tf.look.neighbour_tables import COLUMNS, NeighbourTable
from pic_tf.look.settings import RetrievalSettings
from tests.look.files import lines_of, with_rows
from tests.processes import commands_that_fork
from tests.short_runs import picture_folder


def test_held_out_digits_and_their_nearest(trained, tmp_path, neighbours=12):
    """Against all cosines of features that the SavedModel gives for the plain arrays."""
    settings, output = trained[0], str(tmp_path / "retrieval")
    line = retrieve(
        RetrievalSettings(
            settings.output_dir, count=6, neighbours=neighbours, output=output, seed=3
        )
    )
    lines = lines_of(output + ".csv")
    assert tuple(lines[0]) == COLUMNS and len(lines) == 6 * neighbours
    bank, queries = digits("train"), digits("held_out")
    network = tf.saved_model.load(os.path.join(settings.output_dir, "backbone"))
    of_bank, of_queries = (
        network(tf.constant(source.images / 255, tf.float32), training=False).numpy()
        for source in (bank, queries)
    )
    ids = [int(row["query_id"]) for row in lines[::neighbours]]
    assert ids == sorted(np.random.default_rng(3).choice(297, 6, replace=False).tolist())
    agree = 0
    for number, i in enumerate(ids):
        its = lines[neighbours * number : neighbours * (number + 1)]
        exact = [
            float(np.dot(of_queries[i], b) / np.linalg.norm(of_queries[i]) / np.linalg.norm(b))
            for b in of_bank
        ]
        found = [int(row["neighbour_id"]) for row in its]
        assert len(set(found)) == neighbours and [int(row["rank"]) for row in its] == list(
            range(1, neighbours + 1)
        )
        # Features in float32, by batches of another size.
        np.testing.assert_allclose(
            [float(row["cosine"]) for row in its], sorted(exact)[: -neighbours - 1 : -1], atol=1e-5
        )
        np.testing.assert_allclose(
            [exact[j] for j in found], sorted(exact)[: -neighbours - 1 : -1], atol=1e-5
        )
        for row, j in zip(its, found):
            assert (row["neighbour"], row["neighbour_class"]) == (bank.path(j), str(bank.labels[j]))
            assert (row["query"], row["query_class"]) == (queries.path(i), str(queries.labels[i]))
            agree += row["query_class"] == row["neighbour_class"]
    assert f"6 held-out images with their {neighbours} nearest of 1,500" in line
    assert f"{agree / len(lines):.1%} of the same class" in line
    framed = SIDE + 2 * contact_sheet._FRAME
    width = (
        (neighbours + 1) * framed
        + (neighbours - 1) * contact_sheet._GAP
        + contact_sheet._GROUP_GAP
        + 2 * contact_sheet._MARGIN
    )
    height = (
        6 * (framed + 2 * contact_sheet._LINE + contact_sheet._GAP)
        + contact_sheet._LINE
        + contact_sheet._TITLE
        + 2 * contact_sheet._MARGIN
    )
    with Image.open(output + ".png") as picture:
        assert picture.size == (width, height)


def test_a_folder_without_held_out_images_is_searched_for_its_own(tmp_path):
    """By raw pixels; a copy of an image is its nearest, the image itself never is; a broken
    image is left out.
    """
    folder = picture_folder(tmp_path / "images") / "train"
    shutil.copy(folder / "class0" / "12.jpg", folder / "class0" / "zz.jpg")
    (folder / "class1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = RetrievalSettings(
        "pixels", str(folder), queries="class0/1?.*", count=9, neighbours=5, output=str(tmp_path / "out"),
        cache_dir=str(tmp_path / "cache"), max_broken=0.1,
    )  # fmt: skip
    line = retrieve(settings)
    lines = lines_of(tmp_path / "out.csv")
    named = sorted({row["query"] for row in lines})
    assert (
        named == sorted(map(str, folder.glob("class0/1?.*")))
        and str(folder / "class0" / "12.jpg") in named
    )
    assert all(
        row["query_id"] != row["neighbour_id"] and "broken" not in row["neighbour"] for row in lines
    )
    first = next(row for row in lines if row["query"].endswith("12.jpg"))
    assert (
        first["neighbour"].endswith("zz.jpg")
        and float(first["cosine"]) == 1
        and first["rank"] == "1"
    )
    assert "training images with their 5 nearest of 31" in line
    assert list((tmp_path / "cache").glob("*.npy"))


def test_an_image_behind_equals_is_left_out_of_its_neighbours():
    source = ArraySource(np.zeros([9, 4, 4, 3], np.uint8))
    found = np.array([[4, 3, 1], [2, 8, 7]])
    all_of = NeighbourTable(
        source, np.array([3, 5]), source, found, np.array([[1, 1, 0.5], [1, 1, 1]])
    )
    others = all_of.without_themselves()
    assert others.found.tolist() == [[4, 1], [2, 8]] and others.cosines.tolist() == [
        [1, 0.5],
        [1, 1],
    ]
    assert others.agreement() is None


def test_which_queries():
    source = digits("held_out")
    assert choose_queries(source, "7, 3,7", 1, 0).tolist() == [7, 3]
    drawn = choose_queries(source, "", 5, 1)
    assert drawn.tolist() == sorted(set(drawn.tolist())) and len(drawn) == 5
    assert (
        choose_queries(source, "", 5, 1).tolist()
        == drawn.tolist()
        != choose_queries(source, "", 5, 2).tolist()
    )
    assert len(choose_queries(source, "", 1000, 0)) == 297
    for wrong in ("297", "1,99999999999999999999", "cat/*", "1;2"):
        with pytest.raises(ValueError, match=r"expected ids .*in --queries"):
            choose_queries(source, wrong, 5, 0)


WRONG = {
    "--count=0": "expected --count >= 1, got 0",
    "--neighbours=0": "expected --neighbours >= 1, got 0",
    "--count=100 --neighbours=20": "expected at most 2,000 images in a contact sheet, got 2,100: lower",
    "--output=MISSING/out": "expected the beginning of file names in a folder that is there, got --output=",
    "--output=": "expected the beginning of file names in a folder that is there, got --output=''",
    "--seed=-1": "expected --seed >= 0, got -1",
    "--model=MISSING": "expected an exported backbone at .*missing', got no saved_model.pb",
    "--model=MISSING --instances": "expected a training run with checkpoints at .*missing', got none: name",
    "--model=pixels": "expected images in --dataset, got '', and 'pixels' is no run",
    "--model=pixels --dataset=digits --neighbours=1500 --count=1": "expected --neighbours below .*1,500.*, got 1500",
    "--model=pixels --dataset=digits --queries=297": "expected ids from 0 to 296 in --queries.*got 297",
    "--model=pixels --dataset=digits --queries=dog/*": "expected ids or a pattern of names of digits .held_out.",
    "--model=pixels --dataset=MISSING": "expected a folder of images at .*missing', got nothing",
    "--model=RUN --instances --dataset=IMAGES": "expected the 1,500 images whose rows are in .*, got 30 of which",
    "--model=RUN --instances --count=1 --neighbours=1200": "expected --neighbours below the number of images",
    "words": "expected flags only, got 'words': write --flag=value",
}


def test_wrong_input_gets_one_sentence(trained, tmp_path):
    images = picture_folder(tmp_path / "images")
    places = {
        "MISSING": str(tmp_path / "missing"),
        "RUN": trained[0].output_dir,
        "IMAGES": str(images),
    }
    with commands_that_fork() as command:
        for arguments, sentence in WRONG.items():
            for name, place in places.items():
                arguments = arguments.replace(name, place)
            given = ["--output=out", *arguments.split()]
            ended = command("pic_tf.look.retrieval", given, dict(os.environ), 60)
            assert ended.code == 1 and ended.stdout == "", (arguments, ended)
            assert_one_line(ended.stderr, sentence)
    assert not pathlib.Path("out.csv").exists()


def assert_one_line(stderr: str, sentence: str) -> None:
    lines = stderr.strip().split("\n")
    assert len(lines) == 1, stderr
    assert re.match(f"error: {sentence}", lines[0]), stderr


def test_the_command(trained, tmp_path):
    """Bars on stderr, a line on stdout; a damaged newer checkpoint is passed over."""
    run = with_rows(trained[0].output_dir, tmp_path / "run", lambda tables: None)
    checkpoints = tmp_path / "run" / "checkpoints"
    good = next(checkpoints.iterdir())
    shutil.copytree(good, checkpoints / "step-000000000099")
    (checkpoints / "step-000000000099" / "weights.npy").write_bytes(b"")
    given = [
        f"--model={run}",
        "--instances",
        "--count=3",
        "--neighbours=2",
        f"--output={tmp_path / 'out'}",
    ]
    with commands_that_fork() as command:
        ended = command("pic_tf.look.retrieval", given, dict(os.environ), 120)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.count("\n") == 1 and "instances at step 23 (" in ended.stdout
    assert "step-000000000099 passed over: weights.npy is not as it was written" in ended.stderr
    assert {path.name for path in tmp_path.glob("out*")} == {
        f"out_{name}"
        for name in ("duplicates.csv", "duplicates.png", "outliers.csv", "outliers.png")
    }
