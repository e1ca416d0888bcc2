"""Faults of the machine while files are packed: no permission, a failing disk."""

import builtins
import errno
import os

import pytest

from pic_tf.data.packing import files
from pic_tf.data.sources import packed
from tests.data.packing.pictures import SIDE, left_out, records, save, smooth
from tests.data.sources.test_sources import assert_one_sentence


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_file_that_the_machine_does_not_give_ends_packing(pack, tmp_path, monkeypatch, number):
    for i in range(5):
        save(tmp_path / "in" / f"{i}.png", smooth(9, 9, seed=i))
    given = builtins.open

    def opened(path, *arguments, **options):
        if str(path).endswith("4.png"):
            raise OSError(number, os.strerror(number), str(path))
        return given(path, *arguments, **options)

    monkeypatch.setattr(files, "open", opened, raising=False)
    with pytest.raises(ValueError, match=r"expected a readable file at '4\.png', got ") as error:
        pack(tmp_path / "in", tmp_path / "out")
    assert_one_sentence(error)
    assert os.strerror(number) in str(error.value)
    assert list(records(tmp_path / "out")) == ["0.png", "1.png", "2.png"]
    monkeypatch.undo()
    pack(tmp_path / "in", tmp_path / "out")
    assert len(packed.open_packed(tmp_path / "out")) == 5 and left_out(tmp_path / "out") == {}


def test_a_link_that_leads_nowhere_is_left_out(pack, tmp_path):
    save(tmp_path / "in" / "a.png", smooth(SIDE, 9))
    (tmp_path / "in" / "b.png").symlink_to("gone")
    (tmp_path / "in" / "c.png").symlink_to("c.png")
    pack(tmp_path / "in", tmp_path / "out")
    assert sorted(left_out(tmp_path / "out")) == ["b.png", "c.png"]
