"""Packed data sets, written here by hand, against what was written."""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordWriter

from pic_tf.data.sources import packed, packed_format
from tests.data.test_sources import assert_one_sentence

NAMES = ("ant/a.jpg", "cat/b.jpg", "cat/deep/c.jpg", "dog/d.jpg", "cat/e.jpg")
LABELS = ("ant", "cat", "cat", "dog", "cat")
# Of several lengths; one is empty and some end in zeros, which a NumPy string would lose.
RECORDS = (b"first\0\0", b"", b"third" * 20_000, b"\0", b"\xff\xd8fifth")
CUTS = (2, 4)  # where the second and the third shard begin


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write(folder, records=RECORDS, names=NAMES, labels=LABELS, class_names=("ant", "cat", "dog"), cuts=CUTS, **changes):
    """The format as its documentation has it, without the code under test."""
    folder.mkdir(parents=True)
    shards = []
    for number, (start, end) in enumerate(zip((0, *cuts), (*cuts, len(records)))):
        writer = ArrayRecordWriter(str(folder / f"images-{number:05d}.arrayrecord"), "group_size:1,uncompressed")
        lines = ["id,name,label,width,height,bytes,sha256\n"]
        for i in range(start, end):
            writer.write(records[i])
            lines.append(f"{i},{names[i]},{labels[i]},4,3,{len(records[i])},{sha256(records[i])}\n")
        writer.close()
        manifest = "".join(lines).encode()
        (folder / f"images-{number:05d}.csv").write_bytes(manifest)
        file = f"images-{number:05d}.arrayrecord"
        shards.append({"file": file, "records": end - start, "manifest_sha256": sha256(manifest)})
    values = {"format": 1, "images": len(records), "short_side": 256, "quality": 90, "class_names": class_names}
    (folder / "dataset.json").write_text(json.dumps(values | {"shards": shards} | changes))
    return folder


def test_a_packed_data_set_is_what_was_written(tmp_path):
    source = packed.open_packed(write(tmp_path / "set"))
    assert len(source) == 5 and source.names == NAMES
    assert source.folder == source.name == str(tmp_path / "set")
    assert source.labels.tolist() == [0, 1, 1, 2, 1] and source.labels.dtype == np.int64
    assert source.class_names == ("ant", "cat", "dog")
    assert source.path(3) == f"dog/d.jpg (record 1 of {tmp_path}/set/images-00001.arrayrecord)"
    assert source.path(4) == f"cat/e.jpg (record 0 of {tmp_path}/set/images-00002.arrayrecord)"


def test_is_packed(tmp_path):
    assert packed.is_packed(write(tmp_path / "set")) and packed.is_packed(str(tmp_path / "set"))
    assert not packed.is_packed(tmp_path) and not packed.is_packed(tmp_path / "nowhere")


@pytest.mark.parametrize("ids", [[3, 0, 0, 2, 4, 1], [4], [], [2, 2, 2]])
def test_reading_eagerly_and_in_a_graph(tmp_path, ids):
    source = packed.open_packed(write(tmp_path / "set"))
    for read in (source.read, tf.function(source.read)):
        got = read(tf.constant(ids, tf.int64))
        assert got.dtype == tf.string and got.shape == [len(ids)]
        assert got.numpy().tolist() == [RECORDS[i] for i in ids]


def test_reading_in_parallel_keeps_the_order(tmp_path):
    """8 batches at once of 200 random ids over 12 shards, from tf.data's threads and from Python's."""
    rng = np.random.default_rng(0)
    records = [rng.bytes(rng.integers(1, 3000)) for _ in range(300)]
    names = [f"{i}.jpg" for i in range(300)]
    folder = write(tmp_path / "set", records, names, [""] * 300, (), cuts=tuple(range(25, 300, 25)))
    source = packed.open_packed(folder)
    assert source.labels is None and source.class_names == ()
    ids = rng.integers(0, 300, [40, 200])
    batches = tf.data.Dataset.from_tensor_slices(ids).map(source.read, num_parallel_calls=8)
    assert batches.element_spec == tf.TensorSpec([200], tf.string)
    expected = [[records[i] for i in row] for row in ids]
    assert [batch.numpy().tolist() for batch in batches] == expected
    with ThreadPoolExecutor(8) as threads:
        assert [x.numpy().tolist() for x in threads.map(lambda row: source.read(tf.constant(row)), ids)] == expected


def test_python_is_called_without_state(tmp_path):
    """A stateful call would put the batches of a deterministic run one after the other."""
    source = packed.open_packed(write(tmp_path / "set"))
    spec = [tf.TensorSpec([4], tf.int64)]
    graph = tf.function(source.read, input_signature=spec).get_concrete_function().graph
    assert "PyFuncStateless" in {op.type for op in graph.get_operations()}


STRANGE = ["a,b.jpg", 'quo"te.jpg', "new\nline.jpg", "carriage\rreturn\r\n", " space ", "ü/ß.jpg", "\udcff\udc80.jpg"]


def test_strange_names_come_back(tmp_path):
    """Names are whatever a file system allows; here they are written by the code that packing uses."""
    folder = write(tmp_path / "set", cuts=())
    rows = [packed_format.Row(name, name, 4, 3, 1, sha256(b"x")) for name in STRANGE]
    shard = packed_format.write_manifest(folder, "images-00000.arrayrecord", 0, rows)
    writer = ArrayRecordWriter(str(folder / shard.file), "group_size:1")
    for _ in rows:
        writer.write(b"x")
    writer.close()
    packed_format.write_description(folder, packed_format.Description(tuple(STRANGE), 0, 95, (shard,)))
    source = packed.open_packed(folder)
    assert list(source.names) == list(source.class_names) == STRANGE
    assert source.labels.tolist() == list(range(len(STRANGE)))
    manifest = packed_format.read_manifest(folder, shard)
    assert [*zip(manifest.names, manifest.labels, manifest.sizes, manifest.sha256)] == [(*r[:2], *r[4:]) for r in rows]
    assert (
        os.fsencode("\udcff") == b"\xff"
        and b"\n6,\xff\x80.jpg,\xff\x80.jpg,4,3,1," in next(folder.glob("*.csv")).read_bytes()
    )


def test_the_files_that_packing_writes(tmp_path):
    rows = [packed_format.Row("a, b.jpg", "", 4, 3, 5, "00"), packed_format.Row("c.jpg", "cat", 8, 9, 7, "11")]
    shard = packed_format.write_manifest(tmp_path, "images-00012.arrayrecord", 100, rows)
    expected = b'id,name,label,width,height,bytes,sha256\n100,"a, b.jpg",,4,3,5,00\n101,c.jpg,cat,8,9,7,11\n'
    assert (tmp_path / "images-00012.csv").read_bytes() == expected
    assert shard == ("images-00012.arrayrecord", 2, sha256(expected))
    packed_format.write_description(tmp_path, packed_format.Description(("cat",), 64, 80, (shard,)))
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "format": 1,
        "images": 2,
        "short_side": 64,
        "quality": 80,
        "class_names": ["cat"],
        "shards": [{"file": "images-00012.arrayrecord", "records": 2, "manifest_sha256": sha256(expected)}],
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "images-00012.csv"]


@pytest.mark.parametrize(
    "labels",
    [
        ("ant", "cat", "cat", "dog", ""),  # an image without a class
        ("cat",) * 5,  # one class is no choice
        ("",) * 5,
    ],
)
def test_no_labels(tmp_path, labels):
    source = packed.open_packed(write(tmp_path / "set", labels=labels))
    assert source.labels is None and source.class_names == ()


def test_labels_count_in_the_classes_of_the_training_set(tmp_path):
    training = ("dog", "bee", "cat", "ant")
    source = packed.open_packed(write(tmp_path / "set"), training)
    assert source.labels.tolist() == [3, 2, 2, 0, 2] and source.class_names == training
    one_class = packed.open_packed(write(tmp_path / "one", labels=("cat",) * 5), training)
    assert one_class.labels.tolist() == [2] * 5 and one_class.class_names == training
    assert packed.open_packed(write(tmp_path / "none", labels=("",) * 5), training).labels is None


def test_unknown_class_in_the_held_out_set(tmp_path):
    message = "expected the classes in '.*set' to be among the training set's 2, got 'cat' besides: name the classes"
    with pytest.raises(ValueError, match=message) as error:
        packed.open_packed(write(tmp_path / "set"), ("ant", "dog"))
    assert_one_sentence(error)


def test_fingerprint(tmp_path):
    """The same for the same images in the same order, wherever they lie and however they are cut into shards."""
    first = packed.open_packed(write(tmp_path / "set")).fingerprint()
    shutil.move(tmp_path / "set", tmp_path / "moved")
    assert packed.open_packed(tmp_path / "moved").fingerprint() == first
    assert packed.open_packed(write(tmp_path / "cut", cuts=(1, 3))).fingerprint() == first
    others = {
        "swapped": (RECORDS[1], RECORDS[0], *RECORDS[2:]),
        "fewer": RECORDS[:4],
        "changed": (*RECORDS[:4], b"\xff\xd8Fifth"),
    }
    folders = [write(tmp_path / name, records, cuts=(2,)) for name, records in others.items()]
    prints = [packed.open_packed(folder).fingerprint() for folder in folders]
    assert len({first, *prints}) == 4


def change_description(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_shard(folder, **changes):
    shards = json.loads((folder / "dataset.json").read_text())["shards"]
    change_description(folder, shards=[shards[0] | changes, *shards[1:]])


def cut_short(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def replace_shard(folder, number, other):
    shutil.copy(folder / f"images-{other:05d}.arrayrecord", folder / f"images-{number:05d}.arrayrecord")


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
    "no description": (lambda f: (f / DESCRIPTION).unlink(), r"a readable dataset\.json .* got No such file"),
    "no json": (lambda f: cut_short(f / DESCRIPTION, 0.5), BAD_DESCRIPTION + "JSONDecodeError"),
    "no dictionary": (lambda f: (f / DESCRIPTION).write_text("[1]"), BAD_DESCRIPTION + "TypeError"),
    "deep": (lambda f: (f / DESCRIPTION).write_text("[" * 10**5), BAD_DESCRIPTION + "RecursionError"),
    "not text": (lambda f: (f / DESCRIPTION).write_bytes(b"\xff\xfe\xff"), BAD_DESCRIPTION + "UnicodeDecodeError"),
    "no format": (lambda f: (f / DESCRIPTION).write_text("{}"), BAD_DESCRIPTION + "KeyError: 'format'"),
    "other format": (lambda f: change_description(f, format=2), r"format 1 in '.*dataset\.json', got 2: "),
    "fewer images": (lambda f: change_description(f, images=4), BAD_DESCRIPTION + "ValueError: another number"),
    "no shards": (lambda f: change_description(f, shards=[], images=0), BAD_DESCRIPTION + "ValueError: another number"),
    "number as text": (lambda f: change_description(f, quality="90"), BAD_DESCRIPTION + "TypeError: numbers"),
    "numbers as classes": (lambda f: change_description(f, class_names=[1, 2]), BAD_DESCRIPTION + "TypeError: class"),
    "shard elsewhere": (lambda f: change_shard(f, file="../" + SHARD), BAD_DESCRIPTION + "ValueError: shards with"),
    "shard with more": (lambda f: change_shard(f, codec="none"), BAD_DESCRIPTION + "TypeError"),
    "missing shard": (lambda f: (f / SHARD).unlink(), f"2 images in {SHARD} .* got No such file"),
    "folder": (lambda f: replace_by_folder(f / SHARD), f"2 images in {SHARD} .* got Is a directory"),
    "empty shard": (lambda f: cut_short(f / SHARD, 0), f"2 images in {SHARD} .* got a damaged file"),
    "half a shard": (lambda f: cut_short(f / SHARD, 0.6), f"2 images in {SHARD} .* got a damaged file"),
    "other shard": (lambda f: replace_shard(f, 1, 2), f"2 images in {SHARD} in the packed .*set', got 1 of them"),
    "missing manifest": (lambda f: (f / MANIFEST).unlink(), f"a readable {MANIFEST} .* got No such file"),
    "changed manifest": (lambda f: rename_class(f / MANIFEST), f"{MANIFEST} as packing wrote it .* another content"),
    "short manifest": (shorten_manifest, r"2 images in images-00000\.csv in the packed data set '.*set', got 1: "),
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
    assert read_all(source, eagerly, [0, 1, 3, 4]).numpy().tolist() == [RECORDS[i] for i in (0, 1, 3, 4)]
    kind = ValueError if eagerly else tf.errors.InvalidArgumentError
    with pytest.raises(kind, match=r"expected the records of its manifest in images-00001.* got .*hash mismatch"):
        read_all(source, eagerly)
    assert [packed.damaged_records(source, shard) for shard in range(3)] == [[], [2], []]


@READS
def test_a_shard_of_other_images_is_noticed(tmp_path, eagerly):
    folder, other = write(tmp_path / "set"), write(tmp_path / "other", records=(*RECORDS[:3], b"\0\0", b"fifth"))
    shutil.copy(other / "images-00001.arrayrecord", folder / "images-00001.arrayrecord")
    source = packed.open_packed(folder)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="got 2 bytes as record 3"):
        read_all(source, eagerly)
    assert packed.damaged_records(source, 1) == [3]


@READS
@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_ids_that_are_none(tmp_path, eagerly, wrong):
    source = packed.open_packed(write(tmp_path / "set"))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"expected ids in \[0, 5\), got "):
        read_all(source, eagerly, [0, wrong])


def test_damage_shows_only_in_the_bytes(tmp_path):
    """A record of the same length, with checksums of its own: only reading all against the manifest tells."""
    folder, other = write(tmp_path / "set"), write(tmp_path / "other", records=(*RECORDS[:4], b"\xff\xd8FIFTH"))
    shutil.copy(other / "images-00002.arrayrecord", folder / "images-00002.arrayrecord")
    source = packed.open_packed(folder)
    assert [packed.damaged_records(source, shard) for shard in range(3)] == [[], [], [4]]
