"""Every wrong command line and every wrong input ends at once, with one sentence that says what
was expected.
"""

import base64
import dataclasses
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import pytest

from pic_tf.settings import config
from tests.processes import Ended, commands_that_fork
from tests.wrong_input import ROWS, Wrong, absl

ROOT = pathlib.Path(__file__).parent.parent
LIMIT = 15  # seconds
PNG = base64.b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
)
every_row = pytest.mark.parametrize(
    "row", ROWS, ids=[" ".join([r.arguments, *r.environment.values()]) for r in ROWS]
)


@pytest.fixture(scope="module")
def forked():
    with commands_that_fork() as command:
        yield lambda *arguments: command("pic_tf.train", *arguments, LIMIT)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """(a folder with everything that can be wrong with files, a port that is taken)."""
    root = tmp_path_factory.mktemp("inputs")
    files = {
        "words.flags": b"some words\n",
        "bytes.flags": bytes(range(128, 256)),
        "unknown.flags": b"--nonsense=1\n",
        "zero.flags": b"# a comment\n--epochs=0\n",
        "addons/tensorflow_addons/__init__.py": b"raise ImportError('there is no Keras 2 here')",
        "file": b"",
        "documents/a.txt": b"",
        "text/a.jpg": b"this is no picture",
        "page/a.png": b"<!DOCTYPE html>",
        "no_bytes/a.png": b"",
        "packed/dataset.json": b"{",
        **dict.fromkeys(["one/0.png", "locked_file/cat/0.png", "locked_folder/cat/0.png"], PNG),
        **{f"images/{name}/{i}.png": PNG for name in ("cat", "dog") for i in range(6)},
        **{
            f"{data}/train/{name}/0.png": PNG
            for data in ("other_val", "empty_val")
            for name in ("cat", "dog")
        },
        **{f"other_val/val/{name}/0.png": PNG for name in ("cat", "wolf")},
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for folder in ("empty", "empty_train/train", "empty_val/val", "link", "locked"):
        (root / folder).mkdir(parents=True)
    (root / "link/a.png").symlink_to(root / "missing")
    modes = {"locked": 0o500, "locked_file/cat/0.png": 0, "locked_folder/cat": 0}
    for name, mode in modes.items():
        (root / name).chmod(mode)
    with socket.create_server(("", 0)) as server:
        yield root, server.getsockname()[1]
    for name in modes:
        (root / name).chmod(0o700)


def as_process(arguments: list[str], environment: dict[str, str]) -> Ended:
    start = time.monotonic()
    command = [sys.executable, "-m", "pic_tf.train", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    return Ended(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - start)


def ends_with_its_sentence(
    row: Wrong, inputs: tuple[pathlib.Path, int], output: pathlib.Path, run
) -> Ended:
    if "locked" in row.arguments and os.geteuid() == 0:
        pytest.skip("the superuser may read and write everything")
    folder, port = inputs

    def filled(text: str) -> str:
        return text.replace("INPUTS", str(folder)).replace("PORT", str(port))

    names_no_device = {
        k: v for k, v in os.environ.items() if not k.startswith(("TF_CONFIG", "SLURM_", "TPU_"))
    }
    environment = {
        **names_no_device,
        "CUDA_VISIBLE_DEVICES": "",
        **{k: filled(v) for k, v in row.environment.items()},
    }
    flags = [f"--flagfile={ROOT / 'configs/digits.flags'}", f"--output_dir={output}"]
    before = files_in(folder)

    ended = run([*flags, *filled(row.arguments).split()], environment)

    assert ended.code == 1, ended
    assert ended.seconds < LIMIT
    form = (
        r"error: expected flags as --help explains them, got (.+)"
        if row.of_absl
        else "error: (expected .+, got .+)"
    )
    said = re.fullmatch(
        rf"(?:E\d+ .*grpc.*\n)?{form}\n", ended.stderr
    )  # TensorFlow 2.15 lets gRPC speak too
    assert said, ended.stderr
    assert re.match(row.sentence, said[1]), said[1]
    assert not ended.stdout, ended.stdout
    assert not output.exists() and files_in(folder) == before
    return ended


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.rglob("*"))


@every_row
def test_one_sentence(row, inputs, tmp_path, forked):
    ends_with_its_sentence(row, inputs, tmp_path / "run", forked)


@pytest.mark.parametrize(
    "row",
    [
        Wrong("--learning_rate=nan", "expected 0 < --learning_rate <= 1e6, got nan"),
        pytest.param(
            absl("--nonsense=1", "Unknown command line flag 'nonsense'"), marks=pytest.mark.slow
        ),
    ],
)
def test_one_sentence_of_a_process(row, inputs, tmp_path, forked):
    test_a_process_says_what_a_fork_says(row, inputs, tmp_path, forked)


@pytest.mark.slow
@every_row
def test_a_process_says_what_a_fork_says(row, inputs, tmp_path, forked):
    process, fork = (
        ends_with_its_sentence(row, inputs, tmp_path / "run", run) for run in (as_process, forked)
    )
    assert process[:3] == fork[:3]


def test_every_flag_has_a_row():
    flags = {field.name for field in dataclasses.fields(config.Config)}
    assert flags <= {name for row in ROWS for name in re.findall(r"--(\w+)=", row.arguments)}
