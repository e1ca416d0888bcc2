"""Commands whose standard streams are closed, or go away while they run."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import contextlib, os, sys
from pic_tf.files import streams
streams.open_closed_streams()
streams.outlive_readers()
with open(sys.argv[1], "w") as file:
    file.write(f"{file.fileno()} ")
    for _ in range(3):
        print("x" * 100_000, flush=True)
        print("y" * 100_000, file=sys.stderr)
    with contextlib.suppress(OSError):
        os.write(2, b"a library speaks")
    file.write("done")
print("z", end="")
sys.exit(75)
"""


def ended(path, **streams):
    """(exit code, what the program wrote to its file)."""
    process = subprocess.run([sys.executable, "-c", PROGRAM, path], **streams)
    return process.returncode, path.read_text().split()


@pytest.mark.parametrize("closed", [(2,), (1,), (0, 1, 2), ()])
def test_closed_streams(tmp_path, closed):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    numbers = " ".join(f"{number}>&-" for number in closed)
    command = ["bash", "-c", f'exec "$@" {numbers}', "_", sys.executable, "-c", PROGRAM]
    process = subprocess.run([*command, tmp_path / "file"], **streams)
    number, said = (tmp_path / "file").read_text().split()
    assert process.returncode == 75 and said == "done"
    assert int(number) > 2  # what is written to standard error does not go into the file
    if 1 not in closed:
        assert process.stdout.endswith(b"x\nz") and len(process.stdout) == 300_004
    if 2 not in closed:
        assert process.stderr.count(b"y") == 300_001  # one in "library"


def test_readers_that_go_away(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    code, (_, said) = ended(tmp_path / "file", stdout=writer, stderr=writer)
    os.close(writer)
    assert (code, said) == (75, "done")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_a_log_on_a_full_disk(tmp_path):
    with open("/dev/full", "w") as full:
        assert ended(tmp_path / "file", stdout=full, stderr=full)[1][1] == "done"
