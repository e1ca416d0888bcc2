"""What an evaluation reports, counted by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from pic_tf.evals.report import HEADER, report, write_report

# Six classes, of which the last has no image. Seven images: their class, and what they are taken
# for, the likeliest class first.
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")
LABELS = np.array([0, 0, 0, 1, 2, 3, 4])
PREDICTIONS = np.array(
    [
        [0, 1, 2, 3, 4],  # right
        [0, 5, 4, 3, 2],  # right
        [3, 1, 2, 0, 4],  # among five
        [1, 0, 2, 3, 4],  # right
        [5, 0, 1, 3, 4],  # not among five
        [2, 0, 1, 4, 3],  # the last of five
        [0, 1, 2, 3, 5],  # not among five
    ]
)


@pytest.fixture
def found():
    settings = {"model": "RUN", "best_epoch": 3, "flags": {"knn_k": 20}}
    return report("kNN, k 20", "resnet18", "flowers", 12345, PREDICTIONS, LABELS, NAMES, settings)


def test_counts(found):
    assert (found.top1, found.top5) == (3 / 7, 5 / 7)
    np.testing.assert_array_equal(found.of_class, [2 / 3, 1, 0, 0, 0, np.nan])
    expected = np.zeros([6, 6])
    expected[0, 0], expected[0, 3], expected[1, 1] = 2, 1, 1
    expected[2, 5] = expected[3, 2] = expected[4, 0] = 1
    np.testing.assert_array_equal(found.confusion, expected)


def test_line_has_a_cell_for_each_column(found):
    assert found.line() == "| kNN, k 20 | resnet18 | flowers | 12,345 | 7 | 0.4286 | 0.7143 |"
    names, rule = HEADER.splitlines()
    assert names.count("|") == rule.count("|") == found.line().count("|")
    assert [name.strip() for name in names.split("|")[3:8]] == [
        "data set",
        "labelled images",
        "held out",
        "top-1",
        "top-5",
    ]


@pytest.mark.parametrize("classes, top5", [(5, None), (6, 5 / 7)])
def test_top_5_counts_where_there_are_more_classes(classes, top5):
    predictions = np.minimum(PREDICTIONS, classes - 1)
    found = report("p", "b", "d", 1, predictions, LABELS, NAMES[:classes], {})
    assert found.top5 == top5
    if top5 is None:
        assert found.line().endswith("| 0.4286 |  |")


def test_files(found, tmp_path):
    write_report(found, tmp_path / "new" / "evaluation", "knn")
    assert sorted(path.name for path in (tmp_path / "new" / "evaluation").iterdir()) == [
        "knn.json",
        "knn.png",
    ]

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    text = (tmp_path / "new" / "evaluation" / "knn.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {
        "protocol": "kNN, k 20",
        "backbone": "resnet18",
        "dataset": "flowers",
        "labelled_images": 12345,
        "held_out_images": 7,
        "top1": 3 / 7,
        "top5": 5 / 7,
        "accuracy_of_class": {
            "ant": 2 / 3,
            "bee": 1.0,
            "cat": 0.0,
            "dog": 0.0,
            "eel": 0.0,
            "fox": None,
        },
        "model": "RUN",
        "best_epoch": 3,
        "flags": {"knn_k": 20},
    }
    with Image.open(tmp_path / "new" / "evaluation" / "knn.png") as picture:
        assert picture.format == "PNG"
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    # Classes of which all and none are taken for another: the darkest and the lightest blue of
    # matplotlib's Blues.
    for blue in ((8, 48, 107), (247, 251, 255)):
        assert (colours == blue).all(1).any()


def test_a_second_report_takes_the_place_of_the_first(found, tmp_path):
    write_report(found, tmp_path, "knn")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = report("kNN, k 1", "resnet18", "flowers", 12345, PREDICTIONS[::-1], LABELS, NAMES, {})
    write_report(other, tmp_path, "knn")
    assert before.keys() == {path.name for path in tmp_path.iterdir()}
    assert all((tmp_path / name).read_bytes() != content for name, content in before.items())


def test_many_classes_are_drawn_as_a_curve(tmp_path):
    """Of 31 classes on, some without images."""
    names, rng = tuple(f"class {i}" for i in range(31)), np.random.default_rng(0)
    labels = rng.integers(0, 29, 200)
    predictions = np.where(rng.uniform(size=200) < 0.6, labels, rng.integers(0, 31, 200))[:, None]
    write_report(report("p", "b", "d", 1, predictions, labels, names, {}), tmp_path, "linear_sgd")
    with Image.open(tmp_path / "linear_sgd.png") as picture:
        assert picture.size[0] == 2 * picture.size[1]  # 8 x 4 inches
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (colours == (31, 119, 180)).all(1).sum() > 100  # matplotlib's first colour: the curve
