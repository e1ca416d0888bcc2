"""The command of evaluations: its standard output, its files, and one sentence for wrong input."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.processes import commands_that_fork


@pytest.fixture(scope="module")
def forked():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with commands_that_fork() as command:
        yield lambda *arguments: command("pic_tf.evaluate", list(arguments), environment, 120)


def test_command(folder, model, tmp_path, forked):
    """The row of the table on standard output, and nothing else there; results beside the
    SavedModel.
    """
    beside = shutil.copytree(model, tmp_path / "run" / "backbone").parent
    ended = forked("--protocol=knn", f"--model={beside}", f"--dataset={folder}", "--knn_k=7")
    assert ended.code == 0, ended.stderr
    (written,) = (beside / "evaluation").glob("knn_colours_*.json")
    top1 = json.loads(written.read_text())["top1"]
    row = f"| kNN, k 7 | tiny | colours | 60 | 21 | {top1:.4f} |  |"
    assert ended.stdout.splitlines()[2:] == [row]
    assert ended.stdout.startswith("| protocol | backbone |")
    assert sorted(p.name for p in (beside / "evaluation").iterdir()) == [
        "features",
        written.name,
        written.with_suffix(".png").name,
        "results.md",
    ]
    assert (beside / "evaluation" / "results.md").read_text().endswith(f"\n{row}\n")
    assert f"results in {beside / 'evaluation'}" in ended.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            "--model=MODEL --dataset=FOLDER/train/red",
            "error: expected labelled images for --protocol=knn, got none in .*: put them into one "
            "folder a class",
        ),
        (
            "--model=MODEL --dataset=FOLDER/train",
            "error: expected labelled held-out images, got none for",
        ),
        (
            "--model=FOLDER --dataset=FOLDER",
            "error: expected an exported backbone at '.*', got no saved_model.pb",
        ),
        (
            "--model=pixels --protocol=linear",
            "error: expected --protocol=knn, or linear with --solver=lbfgs, for raw",
        ),
        ("--model=MODEL --crop_scale=a,b", "error: expected numbers in --crop_scale, got 'a,b'"),
        (
            "--model=MODEL --replicas=2",
            "error: expected --replicas with --strategy=mirrored only, got it with none",
        ),
        ("--model=MODEL knn", "error: expected flags only, got 'knn': write --flag=value"),
        (
            "--protocol=nonsense",
            "error: expected flags as --help explains them, got flag --protocol=nonsense: value should",
        ),
        (
            "--nonsense=1",
            "error: expected flags as --help explains them, got Unknown command line flag 'nonsense'",
        ),
    ],
)
def test_command_ends_with_one_sentence(folder, model, tmp_path, forked, arguments, sentence):
    filled = arguments.replace("MODEL", str(model)).replace("FOLDER", str(folder)).split()
    ended = forked(*filled, f"--output_dir={tmp_path / 'out'}")
    assert ended.code == 1 and not ended.stdout
    lines = [
        line for line in ended.stderr.splitlines() if not line.startswith("Pass --help")
    ]  # absl's second line
    assert len(lines) == 1 and re.match(sentence, lines[0]), ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_process_ends_with_one_sentence(tmp_path):
    arguments = ["--model=pixels", "--protocol=finetune", f"--output_dir={tmp_path / 'out'}"]
    ended = subprocess.run(
        [sys.executable, "-m", "pic_tf.evaluate", *arguments], capture_output=True, text=True
    )
    assert ended.returncode == 1 and not ended.stdout and not (tmp_path / "out").exists()
    assert re.fullmatch(
        "error: expected --protocol=knn, or linear .*, got finetune with sgd: .*\n", ended.stderr
    )
