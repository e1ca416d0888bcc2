"""Feature files against NumPy and the networks themselves; kills, broken images, wrong input."""

import csv
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from pic_tf.data.augment import normalise
from pic_tf.data.normalisation import MEAN, STDDEV
from pic_tf.feature_files import compute
from pic_tf.feature_files.compute import embed
from pic_tf.feature_files.settings import EmbedSettings
from pic_tf.feature_files.table import COLUMNS, open_features
from pic_tf.feature_files.unfinished import Unfinished
from pic_tf.models.projection import projection_head
from pic_tf.optim.variables import variables_of
from pic_tf.runs.checkpoint_files import write_checkpoint
from pic_tf.serving.saved_model import export_backbone
from pic_tf.settings import flag_files
from pic_tf.settings.networks import plain_backbone
from tests.evals.evaluation import network
from tests.short_runs import SMALL

HEIGHT, WIDTH, SIDE = 20, 28, 16  # pixels; 0.8 of the short side needs no resizing
COUNT = {"train/one": 5, "train/two": 4, "val/one": 3, "val/two": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in COUNT.items():
        (root / part).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(root / part / f"{i}.png")
    return root


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return [file for part in COUNT for file in sorted((folder / part).iterdir())]


def settings_of(folder, output, **changes) -> EmbedSettings:
    given = {"model": "pixels", "image_size": SIDE, "eval_crop": 0.8, "batch_size": 2}
    return EmbedSettings(dataset=str(folder), output=str(output), **(given | changes))


def squares(image: np.ndarray, views: str) -> list[np.ndarray]:
    """The views of an image [20, 28, 3]: the centre, corners, mirror images."""
    bottom, right = HEIGHT - SIDE, WIDTH - SIDE
    places = [(bottom // 2, right // 2)]
    if views in ("five_crop", "ten_crop"):
        places += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    found = [image[top : top + SIDE, left : left + SIDE] for top, left in places]
    return found + [x[:, ::-1] for x in found] * (views in ("mirrored", "ten_crop"))


def pixels_of(folder, views: str) -> np.ndarray:
    """float64 [14, 768], the mean over the views of normalised pixels."""
    images = [np.asarray(Image.open(file)) / 255 for file in files_of(folder)]
    rows = [np.mean([(x - MEAN) / STDDEV for x in squares(image, views)], 0) for image in images]
    return np.stack(rows).reshape(len(rows), -1)


@pytest.mark.parametrize(
    "name, views", [("features.parquet", "central"), ("features.npy", "ten_crop")]
)
def test_every_row_is_that_of_its_image(folder, tmp_path, name, views):
    output = tmp_path / name
    line = embed(settings_of(folder, output, views=views))
    assert line == f"features of 14 images: {output}"
    rows, names = lines_of(output)
    np.testing.assert_allclose(rows, pixels_of(folder, views), atol=1e-5)  # float32, levels of 4
    assert [x["name"] for x in names] == [str(file) for file in files_of(folder)]
    assert [x["label"] for x in names] == [file.parent.name for file in files_of(folder)]
    assert [x["part"] for x in names] == ["train"] * 9 + ["held_out"] * 5
    assert [int(x["id"]) for x in names] == [*range(9), *range(5)]
    assert not any(x["broken"] for x in names)
    file = open_features(output)
    np.testing.assert_array_equal(file.features, rows)
    np.testing.assert_array_equal(file.of_part("held_out"), rows[9:])
    before = output.stat().st_mtime_ns
    embed(settings_of(folder, output, views=views))  # it is there
    assert output.stat().st_mtime_ns == before
    output.unlink()
    embed(settings_of(folder, output, views=views))  # not any more, beside its card
    np.testing.assert_array_equal(open_features(output).features, rows)
    assert {path.stem for path in tmp_path.iterdir()} == {"features"}


def lines_of(output: pathlib.Path) -> tuple[np.ndarray, list[dict]]:
    """(float32 [n, C] features, the other columns), read without the package."""
    if output.suffix == ".npy":
        with open(output.with_suffix(".csv"), newline="") as file:
            reader = csv.DictReader(file)
            assert tuple(reader.fieldnames) == COLUMNS
            return np.load(output), list(reader)
    from pyarrow import parquet

    table = parquet.read_table(output).to_pylist()
    size = max(len(row["features"] or ()) for row in table)
    rows = [row.pop("features") or [np.nan] * size for row in table]
    return np.array(rows, np.float32), table


@pytest.mark.slow
def test_features_are_those_of_the_export(folder, tmp_path):
    backbone = network()
    export_backbone(backbone, tmp_path / "backbone", trained_size=SIDE, eval_crop=0.8)
    views = {"image_size": None, "eval_crop": None}
    embed(settings_of(folder, tmp_path / "out.npy", model=str(tmp_path / "backbone"), **views))
    central = [squares(np.asarray(Image.open(f)), "central")[0] for f in files_of(folder)]
    expected = backbone(normalise(tf.constant(np.stack(central)))).numpy()
    # Float32, in batches of another size.
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("shallow_networks")
def test_embeddings_are_those_of_the_checkpoint(folder, tmp_path):
    backbone = plain_backbone(SMALL)
    head = projection_head(SMALL.head, backbone.output_shape[-1], 16, 16)
    variables = {
        name: variable.numpy()
        for name, variable in variables_of({"backbone": backbone, "projection": head})
    }
    texts = {"flags.txt": flag_files.to_flagfile(SMALL) + "--crop_scale=0.2,1\n"}
    write_checkpoint(tmp_path / "run" / "checkpoints", 1, variables, {}, texts)
    run = {"model": str(tmp_path / "run"), "layer": "embedding"}
    keras.utils.set_random_seed(1)
    embed(settings_of(folder, tmp_path / "out.npy", **run))
    central = [squares(np.asarray(Image.open(f)), "central")[0] for f in files_of(folder)]
    expected = head(backbone(normalise(tf.constant(np.stack(central))))).numpy()
    # Float32, in batches of another size.
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-4, atol=1e-6)


@pytest.fixture
def plain_batches(folder, monkeypatch):
    """Views without a pipeline, whose tracing takes most of the time of these tests."""

    def view_batches(source, instance_ids, *, corners, batch_size, **_):
        images = [np.asarray(Image.open(source.path(i))) for i in instance_ids]
        views = [squares(image, "five_crop" if corners else "central") for image in images]
        firsts = range(0, len(views), batch_size)
        return [tf.constant(np.stack(views[first : first + batch_size])) for first in firsts]

    monkeypatch.setattr(compute, "view_batches", view_batches)


@pytest.mark.usefixtures("plain_batches")
def test_a_killed_command_goes_on(folder, tmp_path, monkeypatch):
    """The same bytes, and only batches that were not saved are computed again."""
    embed(settings_of(folder, tmp_path / "whole.npy"))
    averaged, computed = compute.averaged, []

    def killed_after(count):
        def counted(network, views, mirrored):
            if len(computed) == count:
                raise KeyboardInterrupt
            computed.append(len(views))
            return averaged(network, views, mirrored)

        computed.clear()
        monkeypatch.setattr(compute, "averaged", counted)

    monkeypatch.setattr(Unfinished, "due", lambda self: True)
    for count in (3, 3, 0):  # within the training part, at the start of the other, before any
        killed_after(count)
        with pytest.raises(KeyboardInterrupt):
            embed(settings_of(folder, tmp_path / "out.npy"))
        assert not (tmp_path / "out.npy").exists()
    killed_after(100)
    embed(settings_of(folder, tmp_path / "out.npy"))
    assert computed == [2, 1]  # of 14: 3 + 3 batches of 2, the last of a part smaller
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    killed_after(3)
    with pytest.raises(KeyboardInterrupt):
        embed(settings_of(folder, tmp_path / "out.npy", views="mirrored"))
    killed_after(100)
    embed(settings_of(folder, tmp_path / "out.npy", views="five_crop"))  # begins anew
    assert sum(computed) == 14


def test_broken_images_have_no_features(folder, tmp_path, name="out.parquet"):
    data = tmp_path / "data"
    for file in files_of(folder):
        copy = data / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    for bad in ("train/two/1.png", "val/one/0.png"):
        (data / bad).write_bytes((data / bad).read_bytes()[:200])
    line = embed(settings_of(data, tmp_path / name, max_broken=0.5))
    assert line == f"features of 12 images, 2 broken ones without: {tmp_path / name}"
    rows, names = lines_of(tmp_path / name)
    fine = np.array([not row["broken"] for row in names])
    assert np.flatnonzero(~fine).tolist() == [6, 9] and names[6]["broken"].startswith("cut off")
    assert np.isnan(rows[~fine]).all()
    np.testing.assert_allclose(rows[fine], pixels_of(folder, "central")[fine], atol=1e-5)
    np.testing.assert_array_equal(open_features(tmp_path / name).features, rows)
    assert not list(tmp_path.glob("*.unfinished"))


WRONG = {
    "output": ("out.txt", r"expected a name that ends in .parquet or .npy in a folder that is th"),
    "model": ("missing", "expected an exported backbone at 'missing', got no saved_model.pb"),
    "layer": ("embedding", "expected --layer=features with --model=pixels, got embedding: raw"),
    "dataset": ("missing", "expected a folder of images at 'missing', got nothing"),
    "views": ("all", "expected --views to be one of central, mirrored, five_crop, ten_crop"),
    "diverse": (10, r"expected --diverse of at most the number of training images \(9\), got 10"),
    "duplicates": (1.5, "expected 0 <= --duplicates <= 1, got 1.5"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_gets_one_sentence(folder, tmp_path, name):
    value, sentence = WRONG[name]
    value = str(tmp_path / value) if name == "output" else value
    settings = {"dataset": str(folder), "output": str(tmp_path / "out.npy"), "model": "pixels"}
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
        embed(EmbedSettings(**(settings | {name: value})))
    assert not list(tmp_path.iterdir())


def test_what_is_left_of_a_folder_says_nothing(folder, tmp_path, monkeypatch):
    """Such as what a network's disk keeps of files that were open, behind a whole feature file."""
    embed(settings_of(folder, tmp_path / "out.parquet"))
    left = tmp_path / "out.parquet.unfinished"
    left.mkdir()
    (left / ".nfs000").touch()
    monkeypatch.setattr(compute, "_write", None)
    embed(settings_of(folder, tmp_path / "out.parquet"))  # nothing is computed


def test_files_of_others_stay(folder, tmp_path):
    files = ("out.parquet", "out.parquet"), ("out.npy", "out.npy")
    for name, output in (*files, ("list.csv", "list.npy"), ("facts.json", "facts.npy")):
        (tmp_path / name).write_bytes(b"mine")
        sentence = (
            rf"^expected a new file or an older one of pic_tf.embed at '.*{name}', got another"
        )
        with pytest.raises(ValueError, match=sentence):
            embed(settings_of(folder, tmp_path / output))
        assert (tmp_path / name).read_bytes() == b"mine"
    with pytest.raises(
        ValueError, match=r"^expected a run with checkpoints at .*got none: name th"
    ):
        embed(settings_of(folder, tmp_path / "o.npy", model=str(tmp_path), layer="embedding"))


@pytest.mark.usefixtures("plain_batches")
def test_names_that_are_not_utf8(folder, tmp_path):
    (tmp_path / "data").mkdir()
    name = tmp_path / "data" / "caf\udce9.png"
    name.write_bytes(files_of(folder)[0].read_bytes())
    sentence = r"^expected names of images and classes in UTF-8 for a Parquet file, got"
    with pytest.raises(ValueError, match=sentence):
        embed(settings_of(tmp_path / "data", tmp_path / "out.parquet"))
    one, other, *_ = files_of(folder)
    table = f"path,label\n{one},caf\udce9\n{other},b\n"
    (tmp_path / "list.csv").write_text(table, errors="surrogateescape")
    with pytest.raises(ValueError, match=f"{sentence} 'caf.*': rename it"):
        embed(settings_of(tmp_path / "list.csv", tmp_path / "list.parquet"))
    embed(settings_of(tmp_path / "data", tmp_path / "out.npy"))
    assert b"caf\xe9.png,,\n" in (tmp_path / "out.csv").read_bytes().replace(b"\r", b"")
    assert json.loads((tmp_path / "out.json").read_text())["parts"] == [["train", 1]]


def rows_of(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("plain_batches")
def test_lists_of_images(folder, tmp_path):
    """Of the features in the file: a subset of the training images, duplicates among all."""
    data = tmp_path / "data"
    for file in files_of(folder):
        copy = data / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (data / "val/two/1.png").write_bytes((data / "train/one/3.png").read_bytes())
    settings = settings_of(data, tmp_path / "out.npy", diverse=9, duplicates=0.9)
    line = embed(settings)
    pairs = rows_of(tmp_path / "out_duplicates.csv")
    assert [(p["first"], p["second"], p["cosine"]) for p in pairs] == [
        (str(data / "train/one/3.png"), str(data / "val/two/1.png"), "1.000000")
    ]
    assert (pairs[0]["first_part"], pairs[0]["second_part"]) == ("train", "held_out")
    chosen = rows_of(tmp_path / "out_diverse.csv")
    assert sorted(row["name"] for row in chosen) == sorted(map(str, data.glob("train/*/*")))
    assert "9 images that cover 9, none farther than 0.0000" in line
    assert "1 pairs of images with a cosine of at least 0.9" in line
