"""Packing from folders, zip files and TFDS, once and again, and what wrong input gets."""

import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.packing.processes import pack_source
from pic_tf.data.packing.verify import verify
from pic_tf.data.sources import packed
from pic_tf.files.lock import exclusive
from tests.data.packing.pictures import (
    SIDE,
    decoded,
    left_out,
    records,
    save,
    smooth,
    write_classes,
)
from tests.data.packing.test_shards import shard as write_shard
from tests.data.sources.test_sources import assert_one_sentence
from tests.data.sources.tfds_sets import PICTURE, prepare_features


def test_a_mended_file_is_packed_later(pack, tmp_path):
    save(tmp_path / "in" / "b.png", smooth(9, 9))
    (tmp_path / "in" / "a.png").write_bytes(b"")
    pack(tmp_path / "in", tmp_path / "out")
    before = records(tmp_path / "out")
    save(tmp_path / "in" / "a.png", smooth(9, 9, seed=1))
    pack(tmp_path / "in", tmp_path / "out")
    after = records(tmp_path / "out")
    assert (
        list(before) == ["b.png"]
        and list(after) == ["b.png", "a.png"]
        and left_out(tmp_path / "out") == {}
    )


def test_classes_are_those_of_a_folder(pack, tmp_path):
    """As of `open_folder`, which reads the same files; a class is not made by a folder without
    images.
    """
    names = ["dog/b.png", "cat/z.jpg", "cat/deep/er/a.png", "cat-2/x.png", "dog/a.png"]
    write_classes(tmp_path / "in", *names)
    for name in ("README", "apes/README"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("text")
    pack(tmp_path / "in", tmp_path / "out", images_per_shard=2)
    source = packed.open_packed(tmp_path / "out")
    assert source.names == (
        "cat-2/x.png",
        "cat/deep/er/a.png",
        "cat/z.jpg",
        "dog/a.png",
        "dog/b.png",
    )
    assert source.class_names == ("cat", "cat-2", "dog") and source.labels.tolist() == [
        1,
        0,
        0,
        2,
        2,
    ]
    # What would have been the first shard, README and apes/README, has no images.
    assert [shard[:2] for shard in source.shards] == [
        (f"images-0000{i}.arrayrecord", n) for i, n in ((1, 2), (2, 2), (3, 1))
    ]


def test_tar_files(pack, tmp_path):
    """Samples of WebDataset; later tar files are appended."""
    folder = write_classes(tmp_path / "in", "0.png", "1.png", "2.webp")
    given = [(folder / name).read_bytes() for name in ("0.png", "1.png", "2.webp")]
    write_shard(str(tmp_path / "s-0.tar"), {"0.png": given[0], "0.cls": "9", "1.jpg": b"none"})
    write_shard(str(tmp_path / "s-1.tar"), {"0.png": given[1], "0.cls": "10", "1.webp": given[2]})
    pack(tmp_path / "s-0.tar", tmp_path / "out")
    pack(tmp_path / "s-{0..1}.tar", tmp_path / "out")
    assert list(records(tmp_path / "out").items()) == [
        *zip(("s-0.tar/0.png", "s-1.tar/0.png", "s-1.tar/1.webp"), given)
    ]
    assert left_out(tmp_path / "out") == {"s-0.tar/1.jpg": "no image that Pillow can read"}
    source = packed.open_packed(tmp_path / "out")
    assert source.unlabelled == "no labels, since 's-1.tar/1.webp' lies beside the class folders"


def test_appending_renumbers_nothing(pack, tmp_path):
    write_classes(tmp_path / "in", "cat/1.png", "cat/3.png", "dog/1.png", "dog/2.png")
    pack(tmp_path / "in", tmp_path / "out")
    before, first = (
        records(tmp_path / "out"),
        (tmp_path / "out" / "images-00000.arrayrecord").read_bytes(),
    )
    write_classes(tmp_path / "in", "ant/1.png", "cat/2.png")
    said = pack(tmp_path / "in", tmp_path / "out")
    assert "already there by name 4, left out 0, see" in said
    source = packed.open_packed(tmp_path / "out")
    assert source.names == (
        "cat/1.png",
        "cat/3.png",
        "dog/1.png",
        "dog/2.png",
        "ant/1.png",
        "cat/2.png",
    )
    assert source.class_names == ("cat", "dog", "ant") and source.labels.tolist() == [
        0,
        0,
        1,
        1,
        2,
        0,
    ]
    assert list(records(tmp_path / "out").items())[:4] == list(before.items())
    assert (tmp_path / "out" / "images-00000.arrayrecord").read_bytes() == first
    assert "packed 2 images in 1 shards" in said and "holds 6 images" in said
    (tmp_path / "in" / "cat" / "1.png").unlink()  # what is packed stays packed
    assert "packed 0 images" in pack(tmp_path / "in", tmp_path / "out")
    assert packed.open_packed(tmp_path / "out").fingerprint() == source.fingerprint()


@pytest.mark.parametrize("held_out", ["val", "validation", "test", None])
def test_a_folder_with_a_held_out_part(pack, tmp_path, held_out):
    write_classes(
        tmp_path / "in", "train/cat/a.png", "train/dog/b.png", f"{held_out or 'other'}/dog/c.png"
    )
    pack(tmp_path / "in", tmp_path / "out")
    assert list(records(tmp_path / "out" / "train")) == ["cat/a.png", "dog/b.png"]
    assert packed.is_packed(tmp_path / "out" / "val") == bool(held_out)
    if held_out:
        source = packed.open_packed(tmp_path / "out" / "val", ("cat", "dog"))
        assert source.names == ("dog/c.png",) and source.labels.tolist() == [1]


def write_zip(path, label_map, method=zipfile.ZIP_STORED):
    """n images "x/I.png" of labels 10, 9, 2, 9; a hidden file, one that is not in the list, and
    one that only is.
    """
    contents = {}
    with zipfile.ZipFile(path, "w", method) as archive:
        for i in range(4):
            buffer = io.BytesIO()
            Image.fromarray(smooth(20, 20 + i, i)).save(buffer, "BMP" if i == 3 else "PNG")
            contents[f"x/{i}.png"] = buffer.getvalue()
            archive.writestr(f"x/{i}.png", buffer.getvalue())
        archive.writestr("x/", b"")
        archive.writestr("__MACOSX/._0.png", b"hidden")
        archive.writestr("unlisted.png", buffer.getvalue())
    label_map.write_text("x/0.png\t10\nx/1.png\t9\r\nx/2.png\t2\n\nx/3.png\t9\nlost.png\t7\n")
    return contents


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_file_with_labels(pack, tmp_path, method):
    contents = write_zip(tmp_path / "a.zip", tmp_path / "a.txt", method)
    pack(tmp_path / "a.zip", tmp_path / "out", label_map=tmp_path / "a.txt")
    source = packed.open_packed(tmp_path / "out")
    assert source.class_names == ("2", "9", "10") and source.labels.tolist() == [2, 1, 0, 1]
    got = records(tmp_path / "out")
    assert list(got) == list(contents)
    assert [got[f"x/{i}.png"] for i in range(3)] == list(contents.values())[:3]
    assert decoded(got["x/3.png"]).shape == (23, 20, 3)
    assert left_out(tmp_path / "out") == {
        "lost.png": "ValueError: in a.txt, but not in a.zip",
        "unlisted.png": "ValueError: in a.zip, but not in a.txt",
    }


def test_a_folder_with_zip_files(pack, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for part in ("train", "val"):
        write_zip(folder / f"{part}.zip", folder / f"{part}_map.txt")
    pack(folder, tmp_path / "out")
    for part in ("train", "val"):
        assert packed.open_packed(tmp_path / "out" / part).labels.tolist() == [2, 1, 0, 1]


def test_damage_inside_a_zip_file(pack, tmp_path):
    contents = write_zip(tmp_path / "a.zip", tmp_path / "a.txt")
    archive = bytearray((tmp_path / "a.zip").read_bytes())
    archive[archive.index(contents["x/1.png"]) + 60] ^= 1
    (tmp_path / "a.zip").write_bytes(archive)
    pack(tmp_path / "a.zip", tmp_path / "out", label_map=tmp_path / "a.txt")
    assert list(records(tmp_path / "out")) == ["x/0.png", "x/2.png", "x/3.png"]
    assert left_out(tmp_path / "out")["x/1.png"].startswith("ValueError: damaged in a.zip")


class FakeSplit:
    """What `open_split` returns, as far as packing looks at it."""

    folder, class_names = "/data/fake/1.0.0", ("cat", "dog")

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def path(self, instance_id):
        return f"{self.folder}/fake-train.array_record-00000-of-00001[{instance_id}]"

    def read(self, ids):
        return tf.gather(tf.constant(self.images), ids)


def test_a_tfds_data_set(pack, tmp_path, monkeypatch):
    from pic_tf.data.sources import tfds_builder, tfds_source

    images = [save(tmp_path / f"{i}.png", smooth(9, 9, i)).read_bytes() for i in range(4)]
    splits = {
        "train": FakeSplit(images[:3], np.array([1, 0, 1])),
        "test": FakeSplit(images[3:], np.array([1])),
    }
    splits["mixed"] = FakeSplit(images, np.array([0, 1, 0, -1]))  # -1: no label
    splits["plain"] = FakeSplit(images, None)
    monkeypatch.setattr(tfds_source, "open_split", lambda name, split: splits[split])
    monkeypatch.setattr(tfds_builder, "held_out_split", lambda name: "test")
    pack("tfds:fake", tmp_path / "out")
    source = packed.open_packed(tmp_path / "out" / "train")
    assert source.names == tuple(f"fake-train.array_record-00000-of-00001[{i}]" for i in range(3))
    assert source.class_names == ("cat", "dog") and source.labels.tolist() == [1, 0, 1]
    assert list(records(tmp_path / "out" / "train").values()) == images[:3]
    assert packed.open_packed(tmp_path / "out" / "val", ("cat", "dog")).labels.tolist() == [1]
    for split in ("mixed", "plain"):
        pack(f"tfds:fake:{split}", tmp_path / split)
        assert (
            packed.open_packed(tmp_path / split).labels is None
            and len(records(tmp_path / split)) == 4
        )


def test_a_tfds_data_set_of_gifs(pack, tmp_path):
    """Training refuses it with the command that packs it."""
    picture = Image.fromarray(smooth(9, 9)).quantize(64)
    encoded = save(tmp_path / "a.gif", picture).read_bytes()
    folder = prepare_features(tmp_path / "tfds", {"image": PICTURE}, {"image": io.BytesIO(encoded)})
    pack(f"tfds:{folder}:train", tmp_path / "out")
    [record] = packed.open_packed(tmp_path / "out").read(tf.constant([0]))
    np.testing.assert_array_equal(tf.io.decode_png(record, channels=3), picture.convert("RGB"))


def zip_file(name, lines=None):
    """Makes a zip file, and a list of labels beside it that is wrong in its second line."""

    def make(folder):
        write_zip(folder / name, folder / "a.txt")
        if lines is not None:
            (folder / "a.txt").write_text(f"x/0.png\t1\n{lines}\n")

    return make


def text(name):
    return lambda folder: save_text(folder / name, "text\t1")


def save_text(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)


LINE = r"NAME<tab>NUMBER in line 2 of '.*a\.txt', each name once, got "
WRONG = {  # what is in the folder `in`, --source, --map, what is expected
    "nothing": (
        None,
        "in/nowhere",
        "",
        "a folder, a zip file, tar files or tfds:NAME, got nothing at '.*nowhere'",
    ),
    "empty": (None, "in", "", "images in '.*in', got no files: check the path"),
    "empty train": (
        text("train/.hidden"),
        "in",
        "",
        "images in '.*in', got no files in train: check",
    ),
    "no image": (
        text("a.png"),
        "in",
        "",
        "images to pack, got none in 1 files: .*left_out.csv says why",
    ),
    "no list": (zip_file("a.zip"), "in/a.zip", "", "--map with the zip file '.*a.zip', got none"),
    "a table": (
        text("a.csv"),
        "in/a.csv",
        "",
        "a folder, a zip file, tar files or tfds:NAME, got another file at 'in/a.csv': name a f",
    ),
    "missing list": (
        zip_file("train.zip"),
        "in",
        "",
        "a list of labels at '.*train_map.txt', got No such file",
    ),
    "no zip": (
        text("a.txt"),
        "in/a.txt",
        "in/a.txt",
        "a zip file at '.*a.txt', got File is not a zip file",
    ),
    "no tab": (zip_file("a.zip", "x/1.png 9"), "in/a.zip", "in/a.txt", LINE + r"'x/1\.png 9'"),
    "no number": (
        zip_file("a.zip", "x/1.png\tcat"),
        "in/a.zip",
        "in/a.txt",
        LINE + r"'x/1\.png\\tcat'",
    ),
    "twice": (zip_file("a.zip", "x/0.png\t2"), "in/a.zip", "in/a.txt", LINE + r"'x/0\.png\\t2'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_sources_are_one_sentence(pack, tmp_path, monkeypatch, name):
    prepare, source, label_map, sentence = WRONG[name]
    (tmp_path / "in").mkdir()
    if prepare:
        prepare(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="expected " + sentence) as error:
        pack(source, tmp_path / "out", label_map=label_map)
    assert_one_sentence(error)
    assert not packed.is_packed(tmp_path / "out")


def test_other_settings_are_refused(pack, tmp_path):
    write_classes(tmp_path / "in", "a.png")
    pack(tmp_path / "in", tmp_path / "out")
    write_classes(tmp_path / "in", "b.png")
    for settings in ({"short_side": 33}, {"quality": 94}):
        with pytest.raises(
            ValueError, match=r"expected --short_side=32 --quality=95, by which .* got "
        ) as error:
            pack(tmp_path / "in", tmp_path / "out", **settings)
        assert_one_sentence(error)
    assert len(records(tmp_path / "out")) == 1


def test_an_output_that_is_in_use_or_inside_the_source(tmp_path):
    write_classes(tmp_path / "in", "a.png")
    how = {"short_side": SIDE, "quality": 95, "images_per_shard": 3, "workers": 1}
    with pytest.raises(ValueError, match="expected --output outside of --source, got ") as error:
        list(pack_source(str(tmp_path / "in"), "", tmp_path / "in" / "out", **how))
    assert_one_sentence(error)
    (tmp_path / "out").mkdir()
    with (
        exclusive(tmp_path / "out" / ".lock"),
        pytest.raises(ValueError, match="another run in it") as error,
    ):
        list(pack_source(str(tmp_path / "in"), "", tmp_path / "out", **how))
    assert_one_sentence(error)


def test_verify(pack, tmp_path, capsys):
    write_classes(
        tmp_path / "in", *[f"{part}/{i}.png" for part in ("train", "val") for i in range(5)]
    )
    pack(tmp_path / "in", tmp_path / "out")
    verify(tmp_path / "out", workers=2)
    assert capsys.readouterr().out.count("5 images read from ") == 2
    shard = tmp_path / "out" / "val" / "images-00001.arrayrecord"
    content = bytearray(shard.read_bytes())
    content[content.index(b"IHDR", content.index(b"IHDR") + 1) + 20] ^= (
        1  # in the second of its two images
    )
    shard.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"^expected all records as they were packed, got 1 that differ"
    ):
        verify(tmp_path / "out", workers=2)
    assert f"damaged: '4.png (record 1 of {shard})'" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"expected a packed data set at '.*in', got none"):
        verify(tmp_path / "in", workers=2)
