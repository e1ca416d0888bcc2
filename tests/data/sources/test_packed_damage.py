"""Damage of packed data sets: one sentence, and never another image."""

import json
import shutil

import pytest
import tensorflow as tf

from pic_tf.data.sources import packed
from pic_tf.data.sources.pixel_format import PixelFormat
from tests.data.sources.test_packed import RECORDS, sha256, write
from tests.data.sources.test_sources import assert_one_sentence


def change_description(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_shard(folder, **changes):
    shards = json.loads((folder / "dataset.json").read_text())["shards"]
    change_description(folder, shards=[shards[0] | changes, *shards[1:]])


def cut_short(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def replace_shard(folder, number, other):
    shutil.copy(
        folder / f"images-{other:05d}.arrayrecord", folder / f"images-{number:05d}.arrayrecord"
    )


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def rename_class(path):
    path.write_text(path.read_text().replace("cat", "dog"))


def shorten_manifest(folder):
    """With the checksum that dataset.json has to have for it."""
    shutil.copy(folder / "images-00002.csv", folder / "images-00000.csv")
    change_shard(folder, manifest_sha256=sha256((folder / "images-00000.csv").read_bytes()))


DESCRIPTION, SHARD, MANIFEST = "dataset.json", "images-00001.arrayrecord", "images-00001.csv"
BAD_DESCRIPTION = r"a dataset\.json as packing writes it in the packed data set '.*set', got "
DAMAGE = {
    "no description": (
        lambda f: (f / DESCRIPTION).unlink(),
        r"a readable dataset\.json .* got No such file",
    ),
    "no json": (lambda f: cut_short(f / DESCRIPTION, 0.5), BAD_DESCRIPTION + "JSONDecodeError"),
    "no dictionary": (lambda f: (f / DESCRIPTION).write_text("[1]"), BAD_DESCRIPTION + "TypeError"),
    "deep": (
        lambda f: (f / DESCRIPTION).write_text("[" * 10**5),
        BAD_DESCRIPTION + "RecursionError",
    ),
    "not text": (
        lambda f: (f / DESCRIPTION).write_bytes(b"\xff\xfe\xff"),
        BAD_DESCRIPTION + "UnicodeDecodeError",
    ),
    "no format": (
        lambda f: (f / DESCRIPTION).write_text("{}"),
        BAD_DESCRIPTION + "KeyError: 'format'",
    ),
    "other format": (
        lambda f: change_description(f, format=2),
        r"format 1 in '.*dataset\.json', got 2: ",
    ),
    "fewer images": (
        lambda f: change_description(f, images=4),
        BAD_DESCRIPTION + "ValueError: another number",
    ),
    "no shards": (
        lambda f: change_description(f, shards=[], images=0),
        BAD_DESCRIPTION + "ValueError: another number",
    ),
    "number as text": (
        lambda f: change_description(f, quality="90"),
        BAD_DESCRIPTION + "TypeError: numbers",
    ),
    "numbers as classes": (
        lambda f: change_description(f, class_names=[1, 2]),
        BAD_DESCRIPTION + "TypeError: class",
    ),
    "shard elsewhere": (
        lambda f: change_shard(f, file="../" + SHARD),
        BAD_DESCRIPTION + "ValueError: shards with",
    ),
    "shard with more": (lambda f: change_shard(f, codec="none"), BAD_DESCRIPTION + "TypeError"),
    "missing shard": (lambda f: (f / SHARD).unlink(), f"2 images in {SHARD} .* got No such file"),
    "folder": (
        lambda f: replace_by_folder(f / SHARD),
        f"2 images in {SHARD} .* got Is a directory",
    ),
    "empty shard": (
        lambda f: cut_short(f / SHARD, 0),
        f"2 images in {SHARD} .* got a damaged file",
    ),
    "half a shard": (
        lambda f: cut_short(f / SHARD, 0.6),
        f"2 images in {SHARD} .* got a damaged file",
    ),
    "other shard": (
        lambda f: replace_shard(f, 1, 2),
        f"2 images in {SHARD} in the packed .*set', got 1 of them",
    ),
    "missing manifest": (
        lambda f: (f / MANIFEST).unlink(),
        f"a readable {MANIFEST} .* got No such file",
    ),
    "changed manifest": (
        lambda f: rename_class(f / MANIFEST),
        f"{MANIFEST} as packing wrote it .* another content",
    ),
    "short manifest": (
        shorten_manifest,
        r"2 images in images-00000\.csv in the packed data set '.*set', got 1: ",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_sentence(tmp_path, name):
    damage, sentence = DAMAGE[name]
    folder = write(tmp_path / "set")
    packed.open_packed(folder)
    damage(folder)
    with pytest.raises(ValueError, match="expected " + sentence) as error:
        packed.open_packed(folder)
    assert_one_sentence(error)
    assert str(folder) in str(error.value) and ": " in str(error.value).split(", got ")[1]


def damage_byte(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


READS = pytest.mark.parametrize("eagerly", [True, False], ids=["eager", "graph"])


def read_all(source, eagerly, ids=range(5)):
    ids = tf.constant(list(ids), tf.int64)
    return source.read(ids) if eagerly else tf.function(source.read)(ids)


@READS
def test_a_damaged_record_is_never_returned(tmp_path, eagerly):
    folder = write(tmp_path / "set")
    path = folder / "images-00001.arrayrecord"
    damage_byte(path, path.read_bytes().index(b"thirdthird"))
    source = packed.open_packed(folder)
    assert read_all(source, eagerly, [0, 1, 3, 4]).numpy().tolist() == [
        RECORDS[i] for i in (0, 1, 3, 4)
    ]
    kind = ValueError if eagerly else tf.errors.InvalidArgumentError
    with pytest.raises(
        kind, match=r"expected the records of its manifest in images-00001.* got .*hash mismatch"
    ):
        read_all(source, eagerly)
    with pytest.raises(ValueError, match="expected the records of its manifest in images-00001"):
        packed.open_packed(folder, pixels=PixelFormat(1))  # which looks at some
    assert [packed.damaged_records(source, shard) for shard in range(3)] == [[], [2], []]


@READS
def test_a_shard_of_other_images_is_noticed(tmp_path, eagerly):
    folder, other = (
        write(tmp_path / "set"),
        write(tmp_path / "other", records=(*RECORDS[:3], b"\0\0", b"fifth")),
    )
    shutil.copy(other / "images-00001.arrayrecord", folder / "images-00001.arrayrecord")
    source = packed.open_packed(folder)
    with pytest.raises(
        (ValueError, tf.errors.InvalidArgumentError), match="got 2 bytes as record 3"
    ):
        read_all(source, eagerly)
    assert packed.damaged_records(source, 1) == [3]


@READS
@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_ids_that_are_none(tmp_path, eagerly, wrong):
    source = packed.open_packed(write(tmp_path / "set"))
    with pytest.raises(
        (ValueError, tf.errors.InvalidArgumentError), match=r"expected ids in \[0, 5\), got "
    ):
        read_all(source, eagerly, [0, wrong])


def test_damage_shows_only_in_the_bytes(tmp_path):
    """A record of the same length, with checksums of its own: only reading all against the
    manifest tells.
    """
    folder, other = (
        write(tmp_path / "set"),
        write(tmp_path / "other", records=(*RECORDS[:4], b"\xff\xd8FIFTH")),
    )
    shutil.copy(other / "images-00002.arrayrecord", folder / "images-00002.arrayrecord")
    source = packed.open_packed(folder)
    assert [packed.damaged_records(source, shard) for shard in range(3)] == [[], [], [4]]
