"""Instance rows of a run, their duplicates and outliers, against float64 brute force."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.order import SlidingWindow
from pic_tf.data.sources.array import digits
from pic_tf.look import instance_rows
from pic_tf.look.duplicates import find_duplicates_and_outliers, title_of
from pic_tf.look.instance_rows import most_alike, open_rows
from pic_tf.look.neighbour_tables import COLUMNS, PAIR_COLUMNS
from pic_tf.look.settings import RetrievalSettings
from pic_tf.runs import checkpoint_files, open_data, resume
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.settings import flag_files, quantities
from tests.instances.visits import rates_of
from tests.look.files import lines_of, with_rows
from tests.short_runs import SMALL, model_of

ONE = tf.distribute.get_strategy()


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
    """Equal rows on both sides of a block's border: cosine 1 five times ten, the first ones
    first.
    """
    monkeypatch.setattr(instance_rows, "_BLOCK", block)
    values = np.random.default_rng(0).normal(size=(45, 6))
    values[[3, 6, 7, 20, 44]] = np.eye(6)[
        2
    ]  # exactly representable, so their cosines are exactly equal
    pairs, cosines, best = most_alike(Plain(values), count)
    every = cosines_of(values)
    expected = sorted((-every[i, j], i, j) for i in range(45) for j in range(i + 1, 45))[:count]
    assert pairs.tolist() == [[i, j] for _, i, j in expected]
    np.testing.assert_allclose(
        cosines, [-value for value, *_ in expected], atol=1e-12
    )  # rounded to that
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
    """Visited ones only; of the ring as it is in the model; resting ones caught up by the
    recursion, step by step.
    """
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
    assert (
        (older != model.classifier.weights_ring.numpy()[live]).any(1).all()
    )  # the store's are others

    stamp, *tables = (
        np.array(checkpoint_files.read_table(path, name))
        for name in ("stamp", "weights", "momentum")
    )
    rates = rates_of(quantities.learning_rates(settings), 23)
    resting = np.setdiff1d(rows.ids, ring)
    moved = []
    for i in resting:
        w, u = (table[i].astype(np.float64) for table in tables)
        before = w / np.linalg.norm(w)
        for t in range(stamp[i], 23):
            u = settings.momentum * u + settings.weight_decay * w
            w = w - rates[t] * u
        found = rows.exact(np.searchsorted(rows.ids, [i]))[0]
        # Rates are float32 numbers in both; 7 digits of theirs are left in the recursion.
        np.testing.assert_allclose(found, w / np.linalg.norm(w), atol=1e-6)
        moved.append(np.abs(found - before).max())
    assert max(moved) > 1e-3  # it matters


def test_without_the_correction_rows_rest_as_they_left(trained, tmp_path):
    run = with_rows(trained[0].output_dir, tmp_path, lambda tables: None)
    flags = next(tmp_path.glob("checkpoints/*/flags.txt"))
    flags.write_text(
        flags.read_text().replace("--weight_correction=True", "--weight_correction=False")
    )
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
        weights[:, 0], momentum[:] = (
            np.abs(weights[:, 0]) + 0.05,
            0.0,
        )  # all in half a space, and at rest
        weights[[second, third]] = weights[first]
        weights[lonely] = 0.0
        weights[lonely, 0] = -1.0
        weights[never[:2]] = weights[first]  # not to be seen
        assert (tables["stamp"][never] == 0).all()

    monkeypatch.setattr(instance_rows, "_BLOCK", 100)
    run = with_rows(settings.output_dir, tmp_path / "planted", plant)
    line = find_duplicates_and_outliers(
        RetrievalSettings(
            run, instances=True, count=5, neighbours=4, output=str(tmp_path / "found")
        )
    )
    assert f"({1500 - len(ids):,} not visited so far left out)" in line
    duplicates, outliers = (
        lines_of(tmp_path / "found_duplicates.csv"),
        lines_of(tmp_path / "found_outliers.csv"),
    )
    assert tuple(duplicates[0]) == PAIR_COLUMNS and tuple(outliers[0]) == COLUMNS
    pairs = [(int(row["first_id"]), int(row["second_id"])) for row in duplicates]
    assert pairs[:3] == [(first, second), (first, third), (second, third)]
    assert (
        all(float(row["cosine"]) == 1 for row in duplicates[:3])
        and float(duplicates[3]["cosine"]) < 1
    )
    source = digits("train")
    row = duplicates[0]
    assert (row["first"], row["first_class"]) == (
        f"digits (train)[{first}]",
        str(source.labels[first]),
    )
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
    model, output = model_of(settings), tmp_path / "run"
    flags, pictures = flag_files.to_flagfile(settings), open_data.identity(images.train)
    checkpoints = Checkpoints(output / "checkpoints", model)
    checkpoints.save(lambda: resume.texts_beside(output, flags, pictures))
    checkpoints.wait()
    rows, *_ = open_rows(str(tmp_path / "run"))
    assert len(rows) == 1500
    expected = model.classifier.weights_ring.numpy().astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows.exact(slice(None)), expected, atol=1e-12)  # both in float64
    find_duplicates_and_outliers(
        RetrievalSettings(
            str(tmp_path / "run"), instances=True, count=2, output=str(tmp_path / "found")
        )
    )
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
    zero = dataclasses.replace(
        plain, weights=np.zeros_like(plain.weights), momentum=np.zeros_like(plain.momentum)
    )
    assert not zero.exact(slice(None)).any()


@pytest.mark.parametrize(
    "cosines, title",
    [
        ([1.0, 0.996], "Duplicates among 9: pairs of instance weights with cosines of 0.9960 to 1"),
        ([1.0, 0.7], "Most alike among 9: pairs of instance weights with cosines of 0.7000 to 1.0"),
        ([0.8], "Most alike among 9: pairs of instance weights with cosines of 0.8000 to 0.8000; "),
    ],
)
def test_pictures_are_titled_by_what_the_cosines_say(cosines, title):
    found = title_of(np.array(cosines), "among 9")
    assert found.startswith(title)
    assert ("need not be copies" in found) == title.startswith("Most")
