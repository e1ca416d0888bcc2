"""Files of features where the disk is full."""

import errno

import numpy as np
import pytest

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.sources.array import ArraySource
from pic_tf.evals.features import _write_rows
from pic_tf.feature_files.table import Part, open_features, write_parquet
from pic_tf.feature_files.unfinished import Unfinished


def test_a_full_disk_is_an_error_and_no_signal(tmp_path, monkeypatch):
    """Of what is mapped: the copy of a Parquet file's features, and rows on their way to a file."""
    source, rows = ArraySource(np.zeros([3, 2, 2, 3], np.uint8)), np.ones([3, 4], np.float32)
    card = {"format_version": 1, "key": {}, "parts": [["train", 3]], "feature_dim": 4}
    path = tmp_path / "out.parquet"
    write_parquet(path, rows, [Part("train", source, BrokenImages(source))], card)
    np.testing.assert_array_equal(open_features(path).features, rows)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(ValueError, match=r"^expected room for 4.8e-08 GB of features in .*TMPDIR"):
        open_features(path)
    with pytest.raises(OSError, match="No space"):
        Unfinished(tmp_path, {}, 3).append(rows)
    with pytest.raises(OSError, match="No space"):
        _write_rows(tmp_path / "cache.npy", [rows], 3, "features")
    assert not (tmp_path / "cache.npy").exists()
