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
from pic_tf.data.sources.named import open_dataset
from tests.data.sources.test_sources import assert_one_sentence, write_images

NAMES = ("ant/a.jpg", "cat/b.jpg", "cat/deep/c.jpg", "dog/d.jpg", "cat/e.jpg")
LABELS = ("ant", "cat", "cat", "dog", "cat")
# Of several lengths; one is empty and some end in zeros, which a NumPy string would lose.
RECORDS = (b"first\0\0", b"", b"third" * 20_000, b"\0", b"\xff\xd8fifth")
CUTS = (2, 4)  # where the second and the third shard begin


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write(
    folder,
    records=RECORDS,
    names=NAMES,
    labels=LABELS,
    class_names=("ant", "cat", "dog"),
    cuts=CUTS,
    **changes,
):
    """The format as its documentation has it, without the code under test."""
    folder.mkdir(parents=True)
    shards = []
    for number, (start, end) in enumerate(zip((0, *cuts), (*cuts, len(records)))):
        writer = ArrayRecordWriter(
            str(folder / f"images-{number:05d}.arrayrecord"), "group_size:1,uncompressed"
        )
        lines = ["id,name,label,width,height,bytes,sha256\n"]
        for i in range(start, end):
            writer.write(records[i])
            lines.append(f"{i},{names[i]},{labels[i]},4,3,{len(records[i])},{sha256(records[i])}\n")
        writer.close()
        manifest = "".join(lines).encode()
        (folder / f"images-{number:05d}.csv").write_bytes(manifest)
        file = f"images-{number:05d}.arrayrecord"
        shards.append({"file": file, "records": end - start, "manifest_sha256": sha256(manifest)})
    values = {
        "format": 1,
        "images": len(records),
        "short_side": 256,
        "quality": 90,
        "class_names": class_names,
    }
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


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b"",
        b'{"name": "pets"}',
        b'{"format": "coco", "images": []}',
        b'{"info": {"format": 1}}',
    ],
)
def test_a_description_of_another_tool(tmp_path, content):
    (tmp_path / "dataset.json").write_bytes(content)
    assert not packed.is_packed(tmp_path)
    write_images(tmp_path, "cat/a.png", "dog/b.png")
    assert open_dataset(str(tmp_path))[0].class_names == ("cat", "dog")


@pytest.mark.parametrize("ids", [[3, 0, 0, 2, 4, 1], [4], [], [2, 2, 2]])
def test_reading_eagerly_and_in_a_graph(tmp_path, ids):
    source = packed.open_packed(write(tmp_path / "set"))
    for read in (source.read, tf.function(source.read)):
        got = read(tf.constant(ids, tf.int64))
        assert got.dtype == tf.string and got.shape == [len(ids)]
        assert got.numpy().tolist() == [RECORDS[i] for i in ids]


def test_reading_in_parallel_keeps_the_order(tmp_path):
    """8 batches at once of 200 random ids over 12 shards, from tf.data's threads and from
    Python's.
    """
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
        assert [
            x.numpy().tolist() for x in threads.map(lambda row: source.read(tf.constant(row)), ids)
        ] == expected


def test_python_is_called_without_state(tmp_path):
    """A stateful call would put the batches of a deterministic run one after the other."""
    source = packed.open_packed(write(tmp_path / "set"))
    spec = [tf.TensorSpec([4], tf.int64)]
    graph = tf.function(source.read, input_signature=spec).get_concrete_function().graph
    assert "PyFuncStateless" in {op.type for op in graph.get_operations()}


STRANGE = [
    "a,b.jpg",
    'quo"te.jpg',
    "new\nline.jpg",
    "carriage\rreturn\r\n",
    "carriage\rreturn",
    " space ",
    "ü/ß.jpg",
    "\udcff\udc80.jpg",
]


def test_strange_names_come_back(tmp_path):
    """Names are whatever a file system allows; here they are written by the code that packing
    uses.
    """
    folder = write(tmp_path / "set", cuts=())
    rows = [packed_format.Row(name, name, 4, 3, 1, sha256(b"x")) for name in STRANGE]
    shard = packed_format.write_manifest(folder, "images-00000.arrayrecord", 0, rows)
    writer = ArrayRecordWriter(str(folder / shard.file), "group_size:1")
    for _ in rows:
        writer.write(b"x")
    writer.close()
    packed_format.write_description(
        folder, packed_format.Description(tuple(STRANGE), 0, 95, (shard,))
    )
    source = packed.open_packed(folder)
    assert list(source.names) == list(source.class_names) == STRANGE
    assert source.labels.tolist() == list(range(len(STRANGE)))
    manifest = packed_format.read_manifest(folder, shard)
    assert [*zip(manifest.names, manifest.labels, manifest.sizes, manifest.sha256)] == [
        (*r[:2], *r[4:]) for r in rows
    ]
    assert (
        os.fsencode("\udcff") == b"\xff"
        and b"\n7,\xff\x80.jpg,\xff\x80.jpg,4,3,1," in next(folder.glob("*.csv")).read_bytes()
    )


def test_the_files_that_packing_writes(tmp_path):
    rows = [
        packed_format.Row("a, b.jpg", "", 4, 3, 5, "00"),
        packed_format.Row("c.jpg", "cat", 8, 9, 7, "11"),
    ]
    shard = packed_format.write_manifest(tmp_path, "images-00012.arrayrecord", 100, rows)
    expected = (
        b'id,name,label,width,height,bytes,sha256\r\n100,"a, '
        b'b.jpg",,4,3,5,00\r\n101,c.jpg,cat,8,9,7,11\r\n'
    )
    assert (tmp_path / "images-00012.csv").read_bytes() == expected
    assert shard == ("images-00012.arrayrecord", 2, sha256(expected))
    packed_format.write_description(tmp_path, packed_format.Description(("cat",), 64, 80, (shard,)))
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "format": 1,
        "images": 2,
        "short_side": 64,
        "quality": 80,
        "class_names": ["cat"],
        "shards": [
            {"file": "images-00012.arrayrecord", "records": 2, "manifest_sha256": sha256(expected)}
        ],
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
    message = (
        "expected the classes in '.*set' to be among the training set's 2, got 'cat' besides: name "
        "the classes"
    )
    with pytest.raises(ValueError, match=message) as error:
        packed.open_packed(write(tmp_path / "set"), ("ant", "dog"))
    assert_one_sentence(error)


def test_fingerprint(tmp_path):
    """The same for the same images in the same order, wherever they lie and however they are cut
    into shards.
    """
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
