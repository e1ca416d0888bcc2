"""Checkpoint files after a write, an interruption, damage; nothing in them is ever executed."""

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from pic_tf.runs import checkpoint_files

VARIABLES = {"network/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7)}
TABLES = {
    "weights": np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32),
    "ring": np.arange(5),
}
TEXTS = {"flags.txt": "--seed=1\n"}


def write(directory, step=7):
    return checkpoint_files.write_checkpoint(directory, step, VARIABLES, TABLES, TEXTS)


def test_what_is_written_comes_back(tmp_path):
    path = write(tmp_path)
    assert checkpoint_files.damage(path) is None and checkpoint_files.step_of(path) == 7
    variables = checkpoint_files.read_variables(path)
    assert variables.keys() == VARIABLES.keys()
    for name, value in VARIABLES.items():
        np.testing.assert_array_equal(variables[name], value)
    for name, value in TABLES.items():
        np.testing.assert_array_equal(checkpoint_files.read_table(path, name), value)
    assert checkpoint_files.read_text(path, "flags.txt") == TEXTS["flags.txt"]
    assert os.listdir(tmp_path) == ["step-000000000007"]


def test_the_same_state_gives_the_same_bytes(tmp_path):
    one, other = (write(tmp_path / name) for name in "ab")
    assert (one / checkpoint_files.SUMS).read_text() == (other / checkpoint_files.SUMS).read_text()


def test_the_checksums_are_those_of_sha256sum(tmp_path):
    path = write(tmp_path)
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", checkpoint_files.SUMS], cwd=path, capture_output=True
    )
    assert checked.returncode == 0 and checked.stdout.count(b": OK") == 4


def test_every_flipped_bit_and_every_truncation_is_found(tmp_path):
    """At 40 places spread over each file, the checksums' own file included."""
    path = write(tmp_path)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for place in np.linspace(0, len(good) - 1, 40).astype(int):
            file.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
            assert checkpoint_files.damage(path), f"{file.name}, bit of byte {place}"
            file.write_bytes(good[:place])
            assert checkpoint_files.damage(path), f"{file.name}, cut at byte {place}"
        file.unlink()
        assert checkpoint_files.damage(path), f"{file.name} missing"
        file.write_bytes(good)
    assert checkpoint_files.damage(path) is None


def test_the_newest_good_one_is_found(tmp_path):
    paths = {step: write(tmp_path, step) for step in (9, 10, 100, 1_000_000)}
    assert checkpoint_files.newest(tmp_path) == (paths[1_000_000], {})
    (paths[1_000_000] / "ring.npy").unlink()
    (paths[100] / checkpoint_files.SUMS).write_text("")
    path, damaged = checkpoint_files.newest(tmp_path)
    assert path == paths[10]
    assert damaged[paths[1_000_000]] == "its files are not those that SHA256SUMS names"
    moved = checkpoint_files.set_aside(paths[100])
    assert moved.is_dir() and list(checkpoint_files.states(tmp_path)) == [9, 10, 1_000_000]
    assert checkpoint_files.newest(tmp_path / "nowhere") == (None, {})


def test_old_ones_go_but_for_every_nth(tmp_path):
    for step in range(10, 80, 10):
        write(tmp_path, step)
        checkpoint_files.remove(tmp_path, keep=2, keep_every=30)
    assert list(checkpoint_files.states(tmp_path)) == [30, 60, 70]
    checkpoint_files.remove(tmp_path, keep=1)
    assert list(checkpoint_files.states(tmp_path)) == [70]
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("moment", range(1, 12))
def test_killed_while_writing(tmp_path, moment):
    """At each file that is brought to the disk: the state before is whole, the new one is whole
    or not there.
    """
    write(tmp_path, 1)
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
sync, calls = os.fsync, 0
def fsync(descriptor):
    global calls
    calls += 1
    if calls == {moment}:
        os.kill(os.getpid(), 9)
    sync(descriptor)
os.fsync = fsync
from tests.runs.test_checkpoint_files import write
import pathlib
write(pathlib.Path({str(tmp_path)!r}), 2)
"""
    ended = subprocess.run([sys.executable, "-c", script])
    assert ended.returncode in (-9, 0)
    newest, damaged = checkpoint_files.newest(tmp_path)
    whole = moment > 6  # 5 files and their folder come before the new name
    assert (checkpoint_files.step_of(newest), damaged) == (2 if whole else 1, {})
    checkpoint_files.remove_partial(tmp_path)
    assert len(os.listdir(tmp_path)) == (2 if whole else 1)
    if not whole:
        write(tmp_path, 2)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    first = write(tmp_path, 1)

    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", no_room)
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path, 2)
    assert os.listdir(tmp_path) == [first.name] and checkpoint_files.damage(first) is None


def test_a_disk_that_fails_says_nothing_about_a_state(tmp_path, monkeypatch):
    write(tmp_path)

    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoint_files, "sha256_of", fails)
    with pytest.raises(OSError, match="Input/output error"):
        checkpoint_files.newest(tmp_path)


class Malice:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_in_a_state_is_executed(tmp_path, monkeypatch):
    """An array of Python objects is a pickle; with right checksums, as who writes one could make
    them.
    """
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path)
    evil = np.array([Malice()], object)
    np.save(path / "weights.npy", evil, allow_pickle=True)
    with open(path / "variables.npz", "wb") as file:
        np.savez(file, evil)
    names = sorted(f.name for f in path.iterdir() if f.name != checkpoint_files.SUMS)
    sums = "".join(
        f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    )
    (path / checkpoint_files.SUMS).write_text(sums)
    assert checkpoint_files.damage(path) is None
    with pytest.raises(ValueError, match=r"allow_pickle=False|Python objects"):
        checkpoint_files.read_variables(path)
    with pytest.raises(
        ValueError, match=r"allow_pickle=False|Python objects|Array can't be memory-mapped"
    ):
        checkpoint_files.read_table(path, "weights")
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Malice()))  # it would have been
    assert (tmp_path / "executed").exists()


def test_a_compressed_state_is_refused(tmp_path):
    """100 MB of zeros in 100 KB."""
    path = write(tmp_path)
    np.savez_compressed(path / "variables.npz", zeros=np.zeros(25_000_000, np.float32))
    with pytest.raises(
        ValueError, match=r"expected stored arrays in variables.npz, got compressed ones"
    ):
        checkpoint_files.read_variables(path)


def test_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        checkpoint_files.write_checkpoint(tmp_path, 1, {}, {"weights": np.array([{}], object)}, {})


def test_names_of_files_elsewhere_are_refused(tmp_path):
    path = write(tmp_path)
    (tmp_path / "outside").write_text("x")
    checksum = hashlib.sha256(b"x").hexdigest()
    with open(path / checkpoint_files.SUMS, "a") as file:
        file.write(f"{checksum}  ../outside\n")
    assert checkpoint_files.damage(path) == "its files are not those that SHA256SUMS names"
