"""The list of broken images: its file, its limit, threads."""

import csv
import os
import threading

import numpy as np
import pytest

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.order import epoch_order
from pic_tf.data.sources.folder import open_folder
from tests.data.decode.test_broken import OTHER, PNG, encode, folder_of, picture, views_of


def test_a_known_one_is_not_decoded_again_but_in_the_next_process(tmp_path):
    """Mended in mid-run it stays left out, so that the steps of a run do not depend on when that
    was.
    """
    good = [encode(picture(i), "PNG") for i in range(4)]
    source, order = (
        folder_of(tmp_path / "images", [*good[:2], b"text", good[3]]),
        epoch_order(4, 4, seed=0),
    )
    broken = BrokenImages(source, tmp_path / "broken.csv")
    dataset = views_of(source, order, broken)
    for content in (b"text", good[2]):
        (tmp_path / "images" / "002.jpg").write_bytes(content)
        ((_, ids, weights),) = dataset.as_numpy_iterator()
        assert weights.tolist() == (ids != 2).tolist()
    assert broken.new() == [f"{source.path(2)!r}: {OTHER}"]
    again = BrokenImages(source, tmp_path / "broken.csv")
    ((_, _, weights),) = views_of(source, order, again).as_numpy_iterator()
    assert weights.tolist() == [1, 1, 1, 1]
    assert again.reasons == {2: OTHER} and again.new() == []  # what was found stays written down


def add(broken, *ids):
    broken.add(np.array(ids), np.array([b"text"] * len(ids), object))


def test_the_file_holds_every_name_and_outlives_a_process(tmp_path):
    """Commas, quotes, line breaks, bytes that are no UTF-8."""
    names = ['a,b".jpg', "c\nd.jpg", "e\r\n.jpg", "ü.jpg", os.fsdecode(b"\xff.jpg"), "=1.jpg"]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).write_bytes(b"\xff\xd8\xff")
    source = open_folder(tmp_path / "images")
    first = BrokenImages(source, tmp_path / "broken.csv")
    assert not len(first) and first.new() == [] and not first.path.exists()
    add(first, 4, 1)
    said = first.new()
    assert said == [f"{source.path(i)!r}: {OTHER}" for i in (4, 1)] and all(
        line.isprintable() for line in said
    )
    second = BrokenImages(source, first.path)
    assert second.reasons == {4: OTHER, 1: OTHER} and len(second) == 2
    assert np.flatnonzero(first.known(np.arange(6))).tolist() == [1, 4]
    assert not second.known(np.arange(6)).any()
    add(second, 1, 0, 2, 3, 5)
    assert len(second.new()) == 4
    with open(first.path, newline="", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["id", "image", "reason"],
        *([str(i), source.path(i), OTHER] for i in (4, 1, 0, 2, 3, 5)),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {
        "images",
        "broken.csv",
    }  # nothing half-written


def test_more_than_a_share_is_refused(tmp_path):
    source = folder_of(tmp_path / "images", [PNG] * 40)
    broken = BrokenImages(source, tmp_path / "broken.csv")
    broken.check(0.0)
    add(broken, 7)
    broken.check(1 / 40)
    with pytest.raises(ValueError) as error:
        broken.check(0.02)
    assert str(error.value) == (
        "expected at most 2.000% of the 40 images to be broken (--max_broken), got 1, the first "
        f"{source.path(7)!r} ({OTHER}): see {tmp_path / 'broken.csv'}, remove or replace them, or "
        "allow more"
    )
    broken.check(0.5, count=20)
    with pytest.raises(ValueError, match="got 21, the first"):
        broken.check(0.5, count=21)
    with pytest.raises(ValueError, match=r"got 1: remove or replace them"):
        BrokenImages(source).check(0.0, count=1)


def test_threads_may_find_the_same_ones(tmp_path):
    source = folder_of(tmp_path, [PNG] * 200)
    broken, lines = BrokenImages(source), []

    def find(start):
        for i in range(200):
            add(broken, (start + i) % 200)
            lines.extend(broken.new() if start == 0 and i % 10 == 0 else [])

    threads = [threading.Thread(target=find, args=(25 * k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines += broken.new()
    assert sorted(lines) == [f"{source.path(i)!r}: {OTHER}" for i in range(200)]
