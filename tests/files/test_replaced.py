"""Files and folders are replaced as a whole, whoever else writes at the same time."""

import contextlib
import os
import pathlib
import subprocess
import sys

import pytest

from pic_tf.files.replaced import aside, remove_partial, replaced


def test_writers_do_not_meet(tmp_path):
    """One begins and ends within the other: both files are whole, the last to end wins."""
    path = tmp_path / "knn.json"
    with replaced(path) as first:
        first.write("first, ")
        with replaced(path) as second:
            second.write("second")
        assert path.read_text() == "second"
        first.write("whole")
    assert path.read_text() == "first, whole"
    assert os.listdir(tmp_path) == ["knn.json"]


def test_names_that_differ_in_their_ending_only(tmp_path):
    with replaced(tmp_path / "knn.json") as first, replaced(tmp_path / "knn.png") as second:
        first.write("json")
        second.write("png")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "knn.json": "json",
        "knn.png": "png",
    }


@pytest.mark.parametrize("name", ["a", "é" * 127, "x" * 255, "*[a].txt"])
def test_a_failure_leaves_the_old_content_alone(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced(path) as file:
        file.write("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == [name]


def test_folders_do_not_meet(tmp_path):
    path = tmp_path / "backbone"
    with aside(path) as first, aside(path) as second:
        for own, text in ((first, "first"), (second, "second")):
            own.mkdir()
            (own / text).write_text(text)
    assert os.listdir(path) == ["first"] and os.listdir(tmp_path) == ["backbone"]


def test_a_folder_in_the_place_of_which_another_one_came(tmp_path, monkeypatch):
    """Between its two renames, another writer puts its folder there."""
    path, rename = tmp_path / "backbone", pathlib.Path.rename

    def with_another(self, target):
        moved = rename(self, target)
        if self == path:
            monkeypatch.setattr(pathlib.Path, "rename", rename)
            (path / "other").mkdir(parents=True)
        return moved

    path.mkdir()
    monkeypatch.setattr(pathlib.Path, "rename", with_another)
    with aside(path) as own:
        own.mkdir()
        (own / "mine").touch()
    assert os.listdir(path) == ["mine"] and os.listdir(tmp_path) == ["backbone"]


def test_remains_of_killed_processes(tmp_path):
    """Ours alone, and only those that are old enough."""
    with contextlib.ExitStack() as stack:
        young = stack.enter_context(aside(tmp_path / "young"))
        old = stack.enter_context(aside(tmp_path / "old"))
        old.mkdir()
        os.utime(old, (1, 1))
        young.write_text("")
        (tmp_path / "download.partial").write_text("")
        os.utime(tmp_path / "download.partial", (1, 1))
        remove_partial(tmp_path)
        assert set(os.listdir(tmp_path)) == {young.name, "download.partial"}
        old.write_text("")
    remove_partial(tmp_path / "missing")


WRITE = """
import pathlib, sys
from pic_tf.files.replaced import replaced
for i in range(200):
    with replaced(pathlib.Path(sys.argv[1])) as file:
        file.write(sys.argv[2] * 5000)
    assert pathlib.Path(sys.argv[1]).stat().st_size == 5000
"""


def test_processes_that_write_the_same_file(tmp_path):
    path = tmp_path / "results.json"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, path, letter], stderr=subprocess.PIPE)
        for letter in "ab"
    ]
    for writer in writers:
        assert writer.wait(60) == 0, writer.stderr.read().decode()
        writer.stderr.close()
    assert os.listdir(tmp_path) == ["results.json"]
    assert path.read_text() in ("a" * 5000, "b" * 5000)
