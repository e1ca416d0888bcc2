"""A block comes back as it was written, or not at all."""

import numpy as np
import pytest

from pic_tf.instances.paging.blocks import TABLES, Blocks


def block(seed):
    rng = np.random.default_rng(seed)
    rows = {
        "weights": rng.normal(size=(5, 3)),
        "momentum": rng.normal(size=(5, 3)),
        "stamp": rng.integers(9, size=5),
    }
    return {name: rows[name].astype(np.int64 if name == "stamp" else np.float32) for name in TABLES}


def test_blocks(tmp_path):
    blocks = Blocks(tmp_path)
    for number in (3, 12, 7):
        blocks.write(number, block(number))
    assert blocks.numbers() == [3, 7, 12]
    for name in TABLES:
        np.testing.assert_array_equal(blocks.read(7)[name], block(7)[name])
    blocks.remove(lambda number: number < 12)
    assert blocks.numbers() == [12]
    assert blocks.has(12) and not blocks.has(7)
    assert [path.name for path in tmp_path.iterdir()] == ["block-000000000012.npz"]


@pytest.mark.parametrize("damage", ["cut off", "a bit", "empty"])
def test_a_damaged_block_is_named(tmp_path, damage):
    blocks = Blocks(tmp_path)
    blocks.write(4, block(0))
    path = tmp_path / "block-000000000004.npz"
    content = bytearray(path.read_bytes())
    if damage == "a bit":
        content[content.find(block(0)["momentum"].tobytes()) + 7] ^= 1
    path.write_bytes({"cut off": content[:-100], "a bit": content, "empty": b""}[damage])
    with pytest.raises(
        ValueError,
        match=r"^expected a block of rows in '.*block-000000000004\.npz', got none that can be",
    ):
        blocks.read(4)


def test_no_bit_of_a_block_can_change_unnoticed(tmp_path):
    blocks = Blocks(tmp_path)
    blocks.write(4, block(0))
    path, refused = tmp_path / "block-000000000004.npz", 0
    content = path.read_bytes()
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :])
        try:
            rows = blocks.read(4)
        except ValueError as error:
            assert str(error).startswith("expected a block of rows")
            refused += 1
        else:  # where it says when it was written, for example
            for name, value in block(0).items():
                np.testing.assert_array_equal(rows[name], value)
    assert refused > len(content) / 2


def test_half_a_block_is_none(tmp_path, monkeypatch):
    blocks = Blocks(tmp_path)
    blocks.write(4, block(0))
    monkeypatch.setattr(np, "savez", lambda file, **_: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        blocks.write(5, block(1))
    assert blocks.numbers() == [4]
