"""Tables and pictures of studies against numbers worked by hand."""

import json

from PIL import Image

from pic_tf.studies import report
from pic_tf.studies.run import FIGURES, Place
from tests.studies.test_definition import study_of


def test_means_and_deviations_by_hand():
    assert report.mean_and_deviation([]) == ""
    assert report.mean_and_deviation([50.04]) == "50.0"
    # Mean 52; squares 4 + 0 + 4 over 2 give a deviation of 2.
    assert report.mean_and_deviation([50.0, 52.0, 54.0]) == "52.0 ± 2.0"


def test_differences_pair_equal_seeds():
    reference = {0: 50.0, 1: 60.0, 7: 1.0}
    assert report.difference({0: 51.0, 1: 63.0, 2: 99.0}, reference) == "+2.0 ± 1.0"
    assert report.difference({1: 59.0}, reference) == "-1.0"
    assert report.difference({3: 59.0}, reference) == ""


def test_table_and_picture_show_the_runs_taken_so_far(tmp_path):
    study, place = study_of(tmp_path), Place(tmp_path / "out")
    place.output.mkdir()
    assert "No run has been taken." in report.write(study, place)
    slow, fast = study.variants
    now = ["--protocol=knn", "--knn_k=5"]
    taken = [(slow, 0, 50.0, now), (slow, 3, 52.0, now), (fast, 0, 55.0, now)]
    taken += [(fast, 3, 99.0, ["--protocol=knn"])]  # not evaluated yet with the flags of today
    for variant, seed, accuracy, evaluation in taken:
        folder = place.folder(variant, seed)
        folder.mkdir(parents=True)
        figures = {
            "accuracy": {"kNN": accuracy},
            "evaluations": {"kNN": evaluation},
            "views": 2944,
            "cpu_seconds": 1800.0,
        }
        figures |= {"hardware": "a card", "pic_tf": "1", "tensorflow": "2", "date": "2026-01-02"}
        (folder / FIGURES).write_text(json.dumps(figures))
    lines = report.write(study, place).splitlines()
    assert lines[0] == "# Rates"
    assert lines[2] == (
        "| variant | kNN, % | kNN against the reference | n | views | CPU hours a run | paper, % |"
    )
    assert lines[4] == "| slow | 51.0 ± 1.4 |  | 2 | 2,944 | 0.50 |  |"
    assert lines[5] == "| fast \\| twice, Ü | 55.0 | +5.0 | 1 | 2,944 | 0.50 | 67.3 |"
    assert lines[-1].endswith("a card; pic_tf 1; TensorFlow 2; 2026-01-02.")
    assert (place.output / report.TABLE).read_text(encoding="utf-8").splitlines() == lines
    with Image.open(place.output / report.PICTURE) as picture:
        assert picture.width > 400
