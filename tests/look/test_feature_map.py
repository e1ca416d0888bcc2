"""Maps of features: principal components against a singular value decomposition, files, and
wrong input.
"""

import os
import re

import numpy as np
import pytest
from PIL import Image

from pic_tf.data.sources.array import digits
from pic_tf.look.feature_points import COLUMNS, draw_map, points, save_map
from pic_tf.look.settings import FeatureMapSettings
from tests.look.files import lines_of
from tests.processes import commands_that_fork
from tests.short_runs import picture_folder


def principal(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two components of rows of length 1, and the shares of all in the variance."""
    rows = features.astype(np.float64) / np.linalg.norm(
        features.astype(np.float64), axis=1, keepdims=True
    )
    u, s, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return u[:, :2] * s[:2], s**2 / np.sum(s**2)


def assert_equal_up_to_sign(found: np.ndarray, expected: np.ndarray, **tolerance) -> None:
    np.testing.assert_allclose(
        found * np.sign(np.sum(found * expected, axis=0)), expected, **tolerance
    )


@pytest.mark.parametrize("shape", [(60, 7), (9, 40), (4, 2)])
def test_principal_components(shape):
    features = np.random.default_rng(shape[0]).normal(size=shape).astype(np.float32) + 1
    found, names = points(features, "pca", 0)
    expected, shares = principal(features)
    assert_equal_up_to_sign(found, expected, atol=1e-10)  # both in float64
    assert names == tuple(
        f"principal component {i + 1} ({shares[i]:.1%} of the variance)" for i in range(2)
    )


@pytest.mark.parametrize("count", [4, 90])
def test_tsne_keeps_clusters_together_and_repeats(count):
    """Three far clusters, of lengths that do not matter; fewer images than the usual perplexity
    too.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    features = 10 * np.eye(5)[labels] + 0.1 * rng.normal(size=(count, 5))
    features = (features * rng.uniform(0.5, 2, [count, 1])).astype(np.float32)
    found, names = points(features, "tsne", 1)
    assert found.shape == (count, 2) and np.isfinite(found).all() and names == ("", "")
    np.testing.assert_array_equal(found, points(features, "tsne", 1)[0])
    if count == 90:
        distances = np.linalg.norm(found[:, None] - found[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        assert (labels[distances.argmin(1)] == labels).all()


def test_features_that_are_all_the_same_are_refused():
    with pytest.raises(ValueError, match="expected features that differ, got 5 times the same"):
        points(np.outer(np.arange(1, 6), [1, 2]).astype(np.float32), "pca", 0)


def test_a_map_of_digits(tmp_path):
    """Every number of the CSV file from the held-out scans themselves."""
    output = tmp_path / "map.png"
    settings = FeatureMapSettings(
        "pixels",
        "digits",
        method="pca",
        images=50,
        seed=4,
        output=str(output),
        image_size=8,
        cache_dir=str(tmp_path),
    )
    line = draw_map(settings)
    assert line == f"PCA of 50 held-out images by raw pixels: {output}, {tmp_path / 'map.csv'}"
    source = digits("held_out")
    ids = np.sort(np.random.default_rng(4).choice(297, 50, replace=False))
    lines = lines_of(tmp_path / "map.csv")
    assert tuple(lines[0]) == COLUMNS and [int(row["id"]) for row in lines] == ids.tolist()
    assert [row["class"] for row in lines] == [str(source.labels[i]) for i in ids]
    assert [row["file"] for row in lines] == [f"digits (held_out)[{i}]" for i in ids]
    mean, stddev = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = ((source.images[ids] / 255 - mean) / stddev).reshape(50, -1)
    found = np.array([[float(row["x"]), float(row["y"])] for row in lines])
    assert_equal_up_to_sign(
        found, principal(pixels)[0], atol=1e-5
    )  # normalised in float32, six digits are written
    with Image.open(output) as picture:
        assert picture.format == "PNG" and picture.size == (round(8.5 * 130), 7 * 130)


def test_a_folder_without_held_out_images(tmp_path):
    folder = picture_folder(tmp_path / "images") / "train"
    (folder / "class1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = FeatureMapSettings(
        "pixels", str(folder), output=str(tmp_path / "map.png"), max_broken=0.1
    )
    assert draw_map(settings).startswith("t-SNE of 30 training images by raw pixels: ")
    lines = lines_of(tmp_path / "map.csv")
    assert [row["file"] for row in lines] == sorted(map(str, folder.glob("*/[0-9]*")))
    assert all(row["class"] in row["file"] for row in lines)


@pytest.mark.parametrize("classes", [0, 1, 3, 20, 21])
def test_legends(tmp_path, classes):
    """Names with formulas, "_" and letters that the font lacks; a legend at the right up to 20
    classes.
    """
    found = np.random.default_rng(0).normal(size=(300, 2))
    names = tuple(f"_$x_{i}$\u732b" + "n" * 40 for i in range(classes))
    labels = np.arange(300) % classes if classes else None
    save_map(found, ("a", "b"), labels, names, "$title_$", tmp_path / "map.png")
    got = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    assert all(
        (edge == 255).all() for edge in (got[0], got[-1], got[:, 0], got[:, -1])
    )  # nothing is cut off
    right = got[:, int(0.88 * got.shape[1]) :]
    spines = (right.max(2) < 60).sum(0).max() > 0.5 * got.shape[
        0
    ]  # the frame of the points reaches here
    assert spines != (1 <= classes <= 20)


WRONG = {
    "--images=3": "expected 4 <= --images <= 20000, got 3",
    "--images=20001": "expected 4 <= --images <= 20000, got 20001",
    "--output=map.jpg": "expected a PNG file in a folder that is there, got 'map.jpg'",
    "--output=MISSING/map.png": "expected a PNG file in a folder that is there, got '",
    "--seed=-1": "expected --seed >= 0, got -1",
    "--model=MISSING": "expected an exported backbone at '.*missing', got no saved_model.pb",
    "--model=pixels": "expected images in --dataset, got '', and 'pixels' is no run",
    "--model=pixels --dataset=FEW": "expected at least 4 images, got 3 in '?.*few",
    "words": "expected flags only, got 'words': write --flag=value",
}


def test_wrong_input_gets_one_sentence(tmp_path):
    for i in range(3):
        (tmp_path / "few").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "few" / f"{i}.png")
    with commands_that_fork() as command:
        for arguments, sentence in WRONG.items():
            given = arguments.replace("MISSING", str(tmp_path / "missing")).replace(
                "FEW", str(tmp_path / "few")
            )
            ended = command("pic_tf.look.feature_map", given.split(), dict(os.environ), 60)
            assert ended.code == 1 and ended.stdout == "", (arguments, ended)
            assert re.fullmatch(f"error: {sentence}.*\n", ended.stderr), ended.stderr
        given = [
            "--model=pixels",
            "--dataset=digits",
            "--images=20",
            f"--output={tmp_path / 'map.png'}",
        ]
        ended = command("pic_tf.look.feature_map", given, dict(os.environ), 120)
    assert ended.code == 0 and ended.stdout.startswith("t-SNE of 20 held-out images"), ended
    assert (tmp_path / "map.png").exists() and (tmp_path / "map.csv").exists()
