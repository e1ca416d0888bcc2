"""Files of a folder: what links add and take away, and what is no file."""

import contextlib
import os
import socket

import pytest

from pic_tf.data.sources import walk
from pic_tf.data.sources.folder import open_folder
from tests.data.sources.test_sources import write_images


def paths(root):
    return sorted(file.path for file in walk.walk(root))


def test_a_link_takes_no_images_from_a_class(tmp_path):
    """The names of links come before and after that of the class."""
    root = write_images(tmp_path / "root", "cat/1.png", "cat/2.png", "dog/1.png")
    for name in ("a", "z", "dog/friend"):
        (root / name).symlink_to(root / "cat")
    source = open_folder(root)
    assert source.paths == ("cat/1.png", "cat/2.png", "dog/1.png")
    assert source.class_names == ("cat", "dog") and source.labels.tolist() == [0, 0, 1]


def test_links_to_one_folder_elsewhere_are_all_followed(tmp_path):
    outside = write_images(tmp_path / "outside", "1.png")
    root = write_images(tmp_path / "root", "cat/2.png", ".store/3.png")
    for name, target in {"ant": outside, "bee": outside, "cow": root / ".store"}.items():
        (root / name).symlink_to(target)
    assert paths(root) == ["ant/1.png", "bee/1.png", "cat/2.png", "cow/3.png"]


def test_links_in_circles_end(tmp_path):
    one, two = (write_images(tmp_path / name, f"{name}.png") for name in ("one", "two"))
    (one / "other").symlink_to(two)
    (two / "other").symlink_to(one)
    (one / "up").symlink_to(tmp_path)
    (one / "itself").symlink_to("itself")
    assert paths(one) == ["itself", "one.png", "other/two.png"]


def test_order_of_the_directory_decides_nothing(tmp_path, monkeypatch):
    root = write_images(tmp_path / "root", "b/1.png", "a/2.png", "c.png")
    (root / "d").symlink_to(root / "a")
    scandir = os.scandir

    def listed(backwards):
        def sorted_entries(folder):
            entries = sorted(scandir(folder), key=lambda entry: entry.name, reverse=backwards)
            return contextlib.nullcontext(entries)

        monkeypatch.setattr(walk.os, "scandir", sorted_entries)
        return list(walk.walk(root))

    assert listed(False) == listed(True)
    assert [file.path for file in listed(True)] == ["a/2.png", "b/1.png", "c.png"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a pipe"])
def test_only_regular_files_are_images(tmp_path, monkeypatch, capsys, kind):
    root = write_images(tmp_path / "r", "a.png")
    monkeypatch.chdir(root)  # the path of a socket may have 108 bytes
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("x.jpg")
    else:
        os.mkfifo(".p" if kind == "link to a pipe" else "x.jpg")
        if kind == "link to a pipe":
            os.symlink(".p", "x.jpg")
    assert open_folder(root).paths == ("a.png",)
    assert "'x.jpg'" in capsys.readouterr().err
