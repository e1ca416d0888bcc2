"""No evaluation takes the place of another one, and a table has them all."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pic_tf.evals import protocols
from pic_tf.evals.result_files import result_name, write_table
from pic_tf.evals.run_behind import run_behind
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.serving.exported import open_exported
from tests.evals.evaluation import run

HEAD = 2  # lines of the table before its rows


@pytest.mark.slow
def test_one_file_for_each_protocol_solver_data_set_and_labels(folder, model, tmp_path):
    """Evaluations of a tiny network, two of which differ in a detail only."""
    other = shutil.copytree(
        folder, tmp_path / "elsewhere" / "colours"
    )  # equal in all but its place
    (other / "val" / "red" / "red06.png").unlink()
    given = [
        {},
        {"knn_k": 3},  # a detail
        {"label_fraction": 0.5},
        {"label_fraction": 0.5, "seed": 1},
        {"protocol": "linear", "solver": "lbfgs"},
        {"protocol": "linear", "epochs": 1, "batch_size": 60},
    ]
    lines = [run(folder, model, tmp_path / "out", **flags)[0].line() for flags in given]
    lines.append(run(other, model, tmp_path / "out", knn_k=5)[0].line())
    lines.append(run(folder, "pixels", tmp_path / "out")[0].line())
    assert len(list((tmp_path / "out").glob("*.json"))) == len(lines) - 1
    table = (tmp_path / "out" / "results.md").read_text().splitlines()
    assert sorted(table[HEAD:]) == sorted(lines[1:])


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "tfds:cifar10"},
        {"eval_dataset": "tfds:cifar10"},
        {"label_fraction": 0.1},
        {"label_fraction": 0.2, "seed": 1},
        {"protocol": "linear"},
        {"protocol": "linear", "solver": "lbfgs"},
        {"protocol": "finetune"},
    ],
)
def test_names(arrays, model, changes):
    settings = EvaluationSettings(dataset="a", output_dir=str(model.parent / "out"))
    exported, ids = open_exported(model), np.arange(4)
    first = result_name(settings, exported, *arrays, ids)
    changed = result_name(dataclasses.replace(settings, **changes), exported, *arrays, ids)
    assert len({first, changed, result_name(settings, exported, *arrays, ids[:2])}) == 3
    assert result_name(settings, exported, *arrays[::-1], ids) != first
    long = dataclasses.replace(settings, dataset="数/" * 100 + "\udcff |")
    assert len(result_name(long, exported, *arrays, ids).encode()) <= 130


def test_other_files_are_passed_over(tmp_path):
    old = {"protocol": "kNN", "backbone": "b", "labelled_images": 3, "held_out_images": 2}
    for name, content in {
        "knn": {**old, "top1": 0.5},  # of a release without data sets in it
        "list": [1],
        "number": 1,
        "card": {"protocol": "x"},
        "text": {**old, "top1": "much"},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "broken.json").write_text("{")
    write_table(tmp_path)
    rows = (tmp_path / "results.md").read_text().splitlines()[HEAD:]
    assert rows == ["| kNN | b |  | 3 | 2 | 0.5000 |  |"]


def test_the_images_are_those_of_the_run(folder, model, tmp_path):
    """By the folder of the run, or the export in it; the flag says otherwise."""
    shutil.copytree(model, tmp_path / "RUN" / "backbone")
    flags = tmp_path / "RUN" / "flags.txt"
    flags.write_text(f"--dataset={folder}\n")
    for place in (tmp_path / "RUN", tmp_path / "RUN" / "backbone"):
        assert run_behind(str(place)).dataset == str(folder)
    report, _ = protocols.run(EvaluationSettings(model=str(tmp_path / "RUN"), knn_k=3))
    assert report.dataset == "colours" and report.images == 60
    flags.write_text(f"--dataset=unlabelled\n--labelled_dataset={folder}\n")
    report, _ = protocols.run(EvaluationSettings(model=str(tmp_path / "RUN"), knn_k=3))
    assert report.dataset == "colours"


@pytest.mark.parametrize("name", ["pixels", "an export"])
def test_images_that_nothing_names(model, name):
    settings = EvaluationSettings(model="pixels" if name == "pixels" else str(model))
    with pytest.raises(ValueError, match=r"^expected images in --dataset, got ''"):
        protocols.run(settings)
