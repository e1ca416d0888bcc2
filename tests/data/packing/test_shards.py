"""Tar files of samples and folders in a bucket, listed for packing, against what is in them."""

import io
import json
import pathlib
import pickle
import sys
import tarfile

import fsspec
import pytest

from pic_tf.data.packing import places
from pic_tf.data.packing.files import list_files
from pic_tf.data.sources.named import open_source
from tests.data.sources.test_sources import assert_one_sentence


def shard(path: str, members: dict[str, bytes | str]) -> None:
    """Write a tar file, to a path or an address."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members.items():
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with fsspec.open(path, "wb") as file:
        file.write(content.getvalue())


def content(files) -> dict[str, tuple[bytes, str]]:
    """name -> (bytes, class), or the reason; a worker gets `fetch` pickled."""
    fetch, found = pickle.loads(pickle.dumps(files.fetch)), {}
    for name, key in files.named:
        try:
            file, label = fetch(key)
            found[name] = file.read(), label
        except ValueError as error:
            found[name] = str(error)
    return found


@pytest.fixture(params=["path", "address"])
def place(request, tmp_path):
    return str(tmp_path) if request.param == "path" else f"memory://{tmp_path.name}"


def test_images_and_labels_of_samples(place):
    shard(
        f"{place}/s/shard-08.tar",
        {
            "x/0.jpg": b"zero",
            "x/0.cls": "10\n",
            "x/1.cls": "9",
            "x/1.Input.PNG": b"one",
            "2.jpg": b"two" * 999,
            "2.json": json.dumps({"label": 9, "caption": "a"}),
        },
    )
    shard(
        f"{place}/s/shard-10.tar",
        {
            "3.webp": b"three",
            "3.json": json.dumps({"class": "owl"}),
            "3.txt": "a caption",
            "4.json": json.dumps({"caption": "none"}),
            "4.jpg": b"four",
            "5.cls": "1",
            "5.mp4": "",
            "._6.jpg": "",
            "x/0.jpg": b"another",
        },
    )
    first = {
        "shard-08.tar/x/0.jpg": (b"zero", "10"),
        "shard-08.tar/x/1.Input.PNG": (b"one", "9"),
        "shard-08.tar/2.jpg": (b"two" * 999, "9"),
    }
    second = {
        "shard-10.tar/3.webp": (b"three", "owl"),
        "shard-10.tar/4.jpg": (b"four", ""),
        "shard-10.tar/5": "no image beside 5.cls, 5.mp4",
        "shard-10.tar/x/0.jpg": (b"another", ""),
    }
    files = list_files(f"{place}/s/shard-08.tar")[""]
    assert content(files) == first and files.class_names == ("9", "10")
    files = list_files(f"{place}/s/shard-*.tar")[""]
    assert list(content(files).items()) == [*first.items(), *second.items()]
    assert files.class_names == ("10", "9", "owl")
    shard(f"{place}/s/shard-09.tar", {"a.jpg": b"a"})
    files = list_files(f"{place}/s/shard-{{08..10}}.tar")[""]
    assert list(content(files)) == [*first, "shard-09.tar/a.jpg", *second]
    nested = [f"s/{name}" for name in ["shard-09.tar/a.jpg", *second]]
    files = list_files(f"{place}/*/shard-{{09..10}}.tar")[""]
    assert [name for name, _ in files.named] == nested
    alone = list_files(f"{place}/*/shard-09.tar")[""]  # more folders may come
    assert [name for name, _ in alone.named] == nested[:1]


def test_listing_keeps_no_images(tmp_path, monkeypatch):
    """Nothing but headers and labels is read, and no list of all members grows."""
    shard(str(tmp_path / "a.tar"), {f"{i}.jpg": b"x" * 9999 for i in range(50)})
    most, given = [], tarfile.TarFile.next

    def counted(archive):
        most.append(len(archive.members))
        return given(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", counted)
    monkeypatch.setattr(tarfile.TarFile, "extractfile", None)
    assert len(list_files(str(tmp_path / "a.tar"))[""].named) == 50
    assert max(most) <= 1 and len(most) > 50


@pytest.mark.parametrize(
    "source, message",
    [
        ("gone-{0..2}.tar", "expected tar files at '.*', got nothing at '.*gone-0.tar': check the"),
        ("gone*.tar", "expected tar files at '.*gone.*', got nothing at .*: check the path"),
        ("a.tar.gz", "expected tar files that are not compressed, got '.*a.tar.gz': unpack them"),
        (
            "cut.tar",
            "expected a tar file at '.*cut.tar', got unexpected end of data: copy it again",
        ),
        ("odd.tar", "expected whole blocks in '.*odd.tar', got .* bytes: cut off"),
        ("text.tar", "expected a tar file at '.*text.tar', got invalid header: copy it again"),
        ("twice.tar", "expected each name once in '.*twice.tar', got 'twice.tar/0.jpg' 2 times"),
        ("label.tar", "expected JSON in '0.json' of '.*label.tar', got .*: mend or remove it"),
        ("none.tar", "expected images in '.*none.tar', got no files: check the path"),
        ("folder", r"expected images in '.*', got 1 tar files: name them, --source='.*\*.tar'"),
    ],
)
def test_wrong_tar_files(tmp_path, source, message):
    shard(str(tmp_path / "a.tar"), {"0.jpg": b"x" * 9999})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:1024])
    (tmp_path / "odd.tar").write_bytes(whole[:-5])
    (tmp_path / "text.tar").write_bytes(b"text" * 256)
    (tmp_path / "twice.tar").write_bytes(whole[: 512 + 20 * 512] + whole)
    shard(str(tmp_path / "label.tar"), {"0.json": "{"})
    shard(str(tmp_path / "none.tar"), {})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.tar").write_bytes(whole)
    with pytest.raises(ValueError, match=message) as error:
        list_files(str(tmp_path / source))
    assert_one_sentence(error)


def test_folders_of_a_bucket():
    bucket = "memory://bucket/pets"
    for name in ("cat/0.jpg", "cat/1.jpg", "dog/0.jpg", ".hidden/0.jpg"):
        with fsspec.open(f"{bucket}/{name}", "wb") as file:
            file.write(name.encode())
    files = list_files(bucket)[""]
    assert files.class_names == ("cat", "dog")
    names = ("cat/0.jpg", "cat/1.jpg", "dog/0.jpg")
    assert content(files) == {name: (name.encode(), name[:3]) for name in names}
    with fsspec.open(f"{bucket}/train/0.jpg", "wb") as file:
        file.write(b"")
    assert list_files(bucket, split_folders="none")[""].class_names == ("cat", "dog", "train")
    with pytest.raises(ValueError, match=r"expected the folder of one part .*=memory.*/train, or"):
        list_files(bucket)
    with pytest.raises(ValueError, match="got another file: copy it here"):
        list_files(f"{bucket}/cat/0.jpg")
    with pytest.raises(ValueError, match="expected images in 'memory://none', got no files"):
        list_files("memory://none")


def test_wrong_addresses(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(
        ValueError, match=r"expected a package for gs://, got none: pip install '\.\[g"
    ):
        list_files("gs://bucket/folder")
    with pytest.raises(
        ValueError, match=r"expected readable files at 'xyz://y', got ValueError \("
    ):
        list_files("xyz://y")
    for name in ("gs://bucket/folder", "shard-{000..009}.tar"):
        with pytest.raises(
            ValueError, match=r"expected images on this machine.* --source=.* --out"
        ):
            open_source(name)


def test_faults_of_the_network_are_no_faults_of_the_image(tmp_path):
    class Failing:
        def cat_file(self, path, start, end):
            raise RuntimeError("no route")

    with pytest.raises(OSError, match=r"RuntimeError \(no route\)") as error:
        places.read(Failing(), "a", 0, 1)
    assert error.value.errno
    pathlib.Path(tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(ValueError, match="cut off after 1 of 2 bytes"):
        places.read(fsspec.filesystem("file"), str(tmp_path / "a"), 2, 2)
