"""Neighbours, duplicates and outliers against float64 brute force; sheets pixel by pixel; wrong input."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.order import SlidingWindow
from pic_tf.data.sources.array import ArraySource, digits
from pic_tf.look import contact_sheet, instance_rows
from pic_tf.look.contact_sheet import SIDE, Cell, Group, save_sheet
from pic_tf.look.instance_rows import most_alike, open_rows
from pic_tf.look.neighbour_tables import (
    COLUMNS,
    PAIR_COLUMNS,
    Neighbours,
    draw_neighbours,
    draw_pairs,
    write_neighbours,
)
from pic_tf.look.retrieval import Settings, choose_queries, look_at_instances, retrieve
from pic_tf.runs import checkpoint_files, open_data, resume
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.settings import quantities
from pic_tf.settings.config import Config
from pic_tf.training import build, loop
from tests.processes import commands_that_fork
from tests.test_pretrain import SMALL, picture_folder

ONE = tf.distribute.get_strategy()


def short_run(settings: Config):
    """Train, and also give the model back."""
    settings, images = open_data.open_data(settings)
    built, build_model = [], build.build_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_model", lambda *arguments: built.append(build_model(*arguments)) or built[-1])
        assert loop.run(settings, images, ONE).finished
    return settings, built[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 23 steps, in which the window reaches less than half of the 1,500 digits."""
    output = str(tmp_path_factory.mktemp("run") / "run")
    return short_run(dataclasses.replace(SMALL, epochs=1, knn_every=0, tensorboard=False, output_dir=output))


def with_rows(run_dir, folder, change) -> str:
    """A run like another one, whose newest checkpoint has rows that were changed."""
    path, _ = checkpoint_files.newest(pathlib.Path(run_dir) / "checkpoints")
    tables = {
        name: np.array(checkpoint_files.read_table(path, name)) for name in ("weights", "momentum", "stamp", "ring")
    }
    change(tables)
    texts = {name: checkpoint_files.read_text(path, name) for name in ("flags.txt", "images.json", "metrics.csv")}
    checkpoint_files.write(
        folder / "checkpoints", checkpoint_files.step_of(path), checkpoint_files.read_variables(path), tables, texts
    )
    return str(folder)


def lines_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def cosines_of(rows: np.ndarray) -> np.ndarray:
    """float64 [n, n], every pair by itself."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.array([[float(np.dot(a, b)) for b in unit] for a in unit])


class Plain:
    """Rows of length 1 as `most_alike` takes them."""

    def __init__(self, rows):
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part):
        return self.rows[part].astype(np.float32)

    def exact(self, part):
        return self.rows[part]


@pytest.mark.parametrize("block", [1, 7, 20, 45, 1000])
@pytest.mark.parametrize("count", [1, 12, 5000])
def test_pairs_in_blocks_equal_a_sort_of_all_pairs(monkeypatch, block, count):
    """Equal rows on both sides of a block's border: cosine 1 five times ten, the first ones first."""
    monkeypatch.setattr(instance_rows, "_BLOCK", block)
    values = np.random.default_rng(0).normal(size=(45, 6))
    values[[3, 6, 7, 20, 44]] = np.eye(6)[2]  # exactly representable, so their cosines are exactly equal
    pairs, cosines, best = most_alike(Plain(values), count)
    every = cosines_of(values)
    expected = sorted((-every[i, j], i, j) for i in range(45) for j in range(i + 1, 45))[:count]
    assert pairs.tolist() == [[i, j] for _, i, j in expected]
    np.testing.assert_allclose(cosines, [-value for value, *_ in expected], atol=1e-12)  # rounded to that
    np.fill_diagonal(every, -2)
    np.testing.assert_allclose(best, every.max(1), atol=1e-6)  # a few roundings of float32


def test_memory_of_the_search_is_that_of_blocks(monkeypatch):
    """No table of all pairs, nor of all rows, is ever made."""
    monkeypatch.setattr(instance_rows, "_BLOCK", 16)
    largest = []

    class Watched(Plain):
        def __getitem__(self, part):
            largest.append(len(self.rows[part]))
            return super().__getitem__(part)

    most_alike(Watched(np.random.default_rng(1).normal(size=(200, 4))), 5)
    assert max(largest) == 16 and len(largest) > 13


def test_rows_are_those_of_the_step(trained):
    """Visited ones only; of the ring as it is in the model; resting ones caught up by the recursion, step by step."""
    settings, model = trained
    rows, config, path = open_rows(settings.output_dir)
    assert config == settings and rows.step == 23 and rows.total == 1500
    order = SlidingWindow(1500, 64, settings.window_size, settings.window_stride, settings.seed)
    visited = np.unique([order.instance_ids(t).numpy() for t in range(23)])
    np.testing.assert_array_equal(rows.ids, visited)
    assert 64 < len(visited) < 1400
    ring = model.classifier.ids.numpy()
    live = ring >= 0
    positions = np.searchsorted(rows.ids, ring[live])
    newest = model.classifier.weights_ring.numpy()[live].astype(np.float64)
    newest /= np.linalg.norm(newest, axis=1, keepdims=True)
    np.testing.assert_allclose(rows.exact(positions), newest, atol=1e-12)  # both in float64
    older = model.classifier.store.weights.numpy()[ring[live]]
    assert (older != model.classifier.weights_ring.numpy()[live]).any(1).all()  # the store's are others

    stamp, rate = checkpoint_files.read_table(path, "stamp"), quantities.learning_rates(settings)
    resting = np.setdiff1d(rows.ids, ring)
    moved = []
    for i in resting:
        w, u = (checkpoint_files.read_table(path, name)[i].astype(np.float64) for name in ("weights", "momentum"))
        before = w / np.linalg.norm(w)
        for t in range(stamp[i], 23):
            u = settings.momentum * u + settings.weight_decay * w
            w = w - float(rate(t)) * u
        found = rows.exact(np.searchsorted(rows.ids, [i]))[0]
        # Rates are float32 numbers in both; 7 digits of theirs are left in the recursion.
        np.testing.assert_allclose(found, w / np.linalg.norm(w), atol=1e-6)
        moved.append(np.abs(found - before).max())
    assert max(moved) > 1e-3  # it matters


def test_without_the_correction_rows_rest_as_they_left(trained, tmp_path):
    run = with_rows(trained[0].output_dir, tmp_path, lambda tables: None)
    flags = next(tmp_path.glob("checkpoints/*/flags.txt"))
    flags.write_text(flags.read_text().replace("--weight_correction=True", "--weight_correction=False"))
    sums = flags.parent / checkpoint_files.SUMS
    lines = [f"{checkpoint_files.sha256_of(flags.parent / line.split('  ')[1])}  {line.split('  ')[1]}\n" for line in
             sums.read_text().splitlines()]  # fmt: skip
    sums.write_text("".join(lines))
    rows, config, path = open_rows(run)
    assert not config.weight_correction
    stored = checkpoint_files.read_table(path, "weights")[rows.ids].astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    np.testing.assert_allclose(rows.exact(slice(None)), stored, atol=1e-14)  # both in float64


def test_planted_duplicates_and_an_outlier_are_found(trained, tmp_path, monkeypatch):
    settings = trained[0]
    ids = open_rows(settings.output_dir)[0].ids
    first, second, third, lonely = ids[10], ids[200], ids[300], ids[150]
    never = np.setdiff1d(np.arange(1500), ids)

    def plant(tables):
        weights, momentum = tables["weights"], tables["momentum"]
        weights[:, 0], momentum[:] = np.abs(weights[:, 0]) + 0.05, 0.0  # all in half a space, and at rest
        weights[[second, third]] = weights[first]
        weights[lonely] = 0.0
        weights[lonely, 0] = -1.0
        weights[never[:2]] = weights[first]  # not to be seen
        assert (tables["stamp"][never] == 0).all()

    monkeypatch.setattr(instance_rows, "_BLOCK", 100)
    run = with_rows(settings.output_dir, tmp_path / "planted", plant)
    line = look_at_instances(Settings(run, instances=True, count=5, neighbours=4, output=str(tmp_path / "found")))
    assert f"({1500 - len(ids):,} not visited so far left out)" in line
    duplicates, outliers = lines_of(tmp_path / "found_duplicates.csv"), lines_of(tmp_path / "found_outliers.csv")
    assert tuple(duplicates[0]) == PAIR_COLUMNS and tuple(outliers[0]) == COLUMNS
    pairs = [(int(row["first_id"]), int(row["second_id"])) for row in duplicates]
    assert pairs[:3] == [(first, second), (first, third), (second, third)]
    assert all(float(row["cosine"]) == 1 for row in duplicates[:3]) and float(duplicates[3]["cosine"]) < 1
    source = digits("train")
    row = duplicates[0]
    assert (row["first"], row["first_class"]) == (f"digits (train)[{first}]", str(source.labels[first]))
    assert [int(row["query_id"]) for row in outliers[:4]] == [lonely] * 4
    rows, *_ = open_rows(run)
    every = cosines_of(rows.exact(slice(None)))
    np.fill_diagonal(every, -2)
    worst = np.argsort(every.max(1), kind="stable")[:5]
    assert [int(row["query_id"]) for row in outliers[::4]] == rows.ids[worst].tolist()
    for number, position in enumerate(worst):
        its = outliers[4 * number : 4 * number + 4]
        expected = np.sort(every[position])[::-1][:4]
        # A few roundings of float32, and six digits are written.
        np.testing.assert_allclose([float(row["cosine"]) for row in its], expected, atol=2e-6)
        assert [int(row["rank"]) for row in its] == [1, 2, 3, 4]
    for name in ("duplicates", "outliers"):
        with Image.open(tmp_path / f"found_{name}.png") as picture:
            assert picture.format == "PNG" and len(picture.convert("L").getcolors(256)) > 50
    assert not list(tmp_path.glob("*.partial"))


def test_a_run_with_all_negatives_and_dot_products(tmp_path):
    """K = N: every row is in the ring from the first step on, none is left out."""
    settings = dataclasses.replace(SMALL, num_negatives=0, similarity="dot", temperature=1.0)
    settings, images = open_data.open_data(settings)
    model = build.build_model(settings, ONE)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", model)
    checkpoints.save(lambda: resume.texts_beside(settings, json.dumps(open_data.identity(images.train))))
    checkpoints.wait()
    rows, *_ = open_rows(str(tmp_path / "run"))
    assert len(rows) == 1500
    expected = model.classifier.weights_ring.numpy().astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows.exact(slice(None)), expected, atol=1e-12)  # both in float64
    look_at_instances(Settings(str(tmp_path / "run"), instances=True, count=2, output=str(tmp_path / "found")))
    assert len(lines_of(tmp_path / "found_duplicates.csv")) == 2


def test_rows_so_short_that_squares_are_zero_keep_their_direction(trained, tmp_path):
    """A row that rested for 1e8 images."""

    def shrink(tables):
        for name in ("weights", "momentum"):
            tables[name] *= np.float32(2.0**-100)  # exactly

    plain, short = (
        open_rows(with_rows(trained[0].output_dir, tmp_path / name, change))[0]
        for name, change in (("plain", lambda tables: None), ("short", shrink))
    )
    np.testing.assert_array_equal(short.exact(slice(None)), plain.exact(slice(None)))
    zero = dataclasses.replace(plain, weights=np.zeros_like(plain.weights), momentum=np.zeros_like(plain.momentum))
    assert not zero.exact(slice(None)).any()


def test_held_out_digits_and_their_nearest(trained, tmp_path, neighbours=12):
    """Against all cosines of features that the SavedModel gives for the plain arrays."""
    settings, output = trained[0], str(tmp_path / "retrieval")
    line = retrieve(Settings(settings.output_dir, count=6, neighbours=neighbours, output=output, seed=3))
    lines = lines_of(output + ".csv")
    assert tuple(lines[0]) == COLUMNS and len(lines) == 6 * neighbours
    bank, queries = digits("train"), digits("held_out")
    network = tf.saved_model.load(os.path.join(settings.output_dir, "backbone"))
    of_bank, of_queries = (
        network(tf.constant(source.images / 255, tf.float32), training=False).numpy() for source in (bank, queries)
    )
    ids = [int(row["query_id"]) for row in lines[::neighbours]]
    assert ids == sorted(np.random.default_rng(3).choice(297, 6, replace=False).tolist())
    agree = 0
    for number, i in enumerate(ids):
        its = lines[neighbours * number : neighbours * (number + 1)]
        exact = [float(np.dot(of_queries[i], b) / np.linalg.norm(of_queries[i]) / np.linalg.norm(b)) for b in of_bank]
        found = [int(row["neighbour_id"]) for row in its]
        assert len(set(found)) == neighbours and [int(row["rank"]) for row in its] == list(range(1, neighbours + 1))
        # Features in float32, by batches of another size.
        np.testing.assert_allclose(
            [float(row["cosine"]) for row in its], sorted(exact)[: -neighbours - 1 : -1], atol=1e-5
        )
        np.testing.assert_allclose([exact[j] for j in found], sorted(exact)[: -neighbours - 1 : -1], atol=1e-5)
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
    """By raw pixels; a copy of an image is its nearest, the image itself never is; a broken image is left out."""
    folder = picture_folder(tmp_path / "images") / "train"
    shutil.copy(folder / "class0" / "12.jpg", folder / "class0" / "zz.jpg")
    (folder / "class1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = Settings(
        "pixels", str(folder), queries="class0/1?.*", count=9, neighbours=5, output=str(tmp_path / "out"),
        cache_dir=str(tmp_path / "cache"), max_broken=0.1,
    )  # fmt: skip
    line = retrieve(settings)
    lines = lines_of(tmp_path / "out.csv")
    named = sorted({row["query"] for row in lines})
    assert named == sorted(map(str, folder.glob("class0/1?.*"))) and str(folder / "class0" / "12.jpg") in named
    assert all(row["query_id"] != row["neighbour_id"] and "broken" not in row["neighbour"] for row in lines)
    first = next(row for row in lines if row["query"].endswith("12.jpg"))
    assert first["neighbour"].endswith("zz.jpg") and float(first["cosine"]) == 1 and first["rank"] == "1"
    assert "training images with their 5 nearest of 31" in line
    assert list((tmp_path / "cache").glob("*.npy"))


def test_an_image_behind_equals_is_left_out_of_its_neighbours():
    source = ArraySource(np.zeros([9, 4, 4, 3], np.uint8))
    found = np.array([[4, 3, 1], [2, 8, 7]])
    all_of = Neighbours(source, np.array([3, 5]), source, found, np.array([[1, 1, 0.5], [1, 1, 1]]))
    others = all_of.without_themselves()
    assert others.found.tolist() == [[4, 1], [2, 8]] and others.cosines.tolist() == [[1, 0.5], [1, 1]]
    assert others.agreement() is None


def test_which_queries():
    source = digits("held_out")
    assert choose_queries(source, "7, 3,7", 1, 0).tolist() == [7, 3]
    drawn = choose_queries(source, "", 5, 1)
    assert drawn.tolist() == sorted(set(drawn.tolist())) and len(drawn) == 5
    assert choose_queries(source, "", 5, 1).tolist() == drawn.tolist() != choose_queries(source, "", 5, 2).tolist()
    assert len(choose_queries(source, "", 1000, 0)) == 297
    for wrong in ("297", "1,99999999999999999999", "cat/*", "1;2"):
        with pytest.raises(ValueError, match=r"expected ids .*in --queries"):
            choose_queries(source, wrong, 5, 0)


def test_a_sheet_shows_images_pixel_by_pixel_in_their_frames(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [5, SIDE, SIDE, 3], np.uint8)
    cells = [Cell(image, ("a$x_$b", "\u732b\n\x1b[31m" + "W" * 40), agrees) for image, agrees in
             zip(images, (None, True, False, None, None))]  # fmt: skip
    rows = [[Group("one", (cells[0],)), Group("three", tuple(cells[1:4]))], [Group("", (cells[4],))]]
    save_sheet(rows, "$title_$" + "x" * 200, tmp_path / "sheet.png")
    got = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    framed, top = SIDE + 2 * contact_sheet._FRAME, contact_sheet._MARGIN + contact_sheet._TITLE + contact_sheet._LINE
    left = contact_sheet._MARGIN
    second = left + framed + contact_sheet._GROUP_GAP
    pitch = framed + contact_sheet._GAP
    below = top + framed + 2 * contact_sheet._LINE + contact_sheet._GAP
    places = [(top, left), (top, second), (top, second + pitch), (top, second + 2 * pitch), (below, left)]
    height = below + framed + 2 * contact_sheet._LINE + contact_sheet._GAP + contact_sheet._MARGIN
    assert got.shape == (height, contact_sheet._LEAST_WIDTH + 2 * contact_sheet._MARGIN, 3)
    for cell, (y, x) in zip(cells, places):
        whole = got[y : y + framed, x : x + framed]
        np.testing.assert_array_equal(
            whole[contact_sheet._FRAME : -contact_sheet._FRAME, contact_sheet._FRAME : -contact_sheet._FRAME],
            cell.image,
        )
        for line in (whole[0], whole[-1], whole[:, 0], whole[:, -1]):
            assert (line == contact_sheet._COLOURS[cell.agrees]).all()
        words = got[y + framed : y + framed + 2 * contact_sheet._LINE, x : x + framed]
        assert words.min() < 100  # something is written there,
        between = got[y + framed : y + framed + 2 * contact_sheet._LINE, x + framed : x + framed + contact_sheet._GAP]
        assert (between == 255).all()  # and nothing runs over into the next one's place
    assert all((edge == 255).all() for edge in (got[0], got[-1], got[:, 0], got[:, -1]))


def test_images_of_several_sizes_without_classes(tmp_path):
    """Pairs and neighbours of a source without labels: names alone, grey frames."""
    source = ArraySource(np.random.default_rng(0).integers(0, 256, [9, 5, 7, 3], np.uint8))
    draw_pairs(source, np.array([[0, 1], [2, 3], [4, 5], [6, 7], [7, 8]]), np.ones(5), "pairs", tmp_path / "a.png")
    neighbours = Neighbours(source, np.array([0]), source, np.array([[1, 2]]), np.ones([1, 2]))
    draw_neighbours(neighbours, "neighbours", tmp_path / "b.png")
    write_neighbours(neighbours, tmp_path / "b.csv")
    assert [row["query_class"] for row in lines_of(tmp_path / "b.csv")] == ["", ""]
    for name in ("a.png", "b.png"):
        colours = {colour for _, colour in Image.open(tmp_path / name).convert("RGB").getcolors(1 << 20)}
        assert contact_sheet._COLOURS[None] in colours and contact_sheet._COLOURS[False] not in colours


WRONG = {
    "--count=0": "expected --count >= 1, got 0",
    "--neighbours=0": "expected --neighbours >= 1, got 0",
    "--count=100 --neighbours=20": "expected at most 2,000 images in a sheet, got 2,100: lower",
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
    places = {"MISSING": str(tmp_path / "missing"), "RUN": trained[0].output_dir, "IMAGES": str(images)}
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
    given = [f"--model={run}", "--instances", "--count=3", "--neighbours=2", f"--output={tmp_path / 'out'}"]
    with commands_that_fork() as command:
        ended = command("pic_tf.look.retrieval", given, dict(os.environ), 120)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.count("\n") == 1 and "instances at step 23 (" in ended.stdout
    assert "step-000000000099 passed over: weights.npy is not as it was written" in ended.stderr
    assert {path.name for path in tmp_path.glob("out*")} == {
        f"out_{name}" for name in ("duplicates.csv", "duplicates.png", "outliers.csv", "outliers.png")
    }
