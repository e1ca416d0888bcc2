"""No name from a data set leads out of the output folder, or breaks the line that names it."""

import os
import pathlib
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.pipeline import find_unreadable
from pic_tf.data.sources.folder import open_folder
from pic_tf.data.sources.source import Source
from pic_tf.runs import open_data, run_folder
from pic_tf.settings import flag_files
from pic_tf.settings.config import Config
from pic_tf.training import loop
from tests.short_runs import metrics_of, one_epoch, picture_folder

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")
NAMES = [
    *(
        "a..png",
        "-rf.png",
        "--seed=7.png",
        " a .png",
        "a\nb.png",
        "a\rb.png",
        "\x1b[2Ja.png",
        "%s%n%d.png",
        "{x}.png",
    ),
    *(
        "~.png",
        "$(touch a).png",
        "`a`.png",
        "a;b.png",
        "*?.png",
        "\\..\\a.png",
        "ü画像.png",
        "\u202egnp.png",
    ),
    *("x" * 251 + ".png", "events.out.tfevents.0.png", "checkpoint.png", ".jpg.png", "..evil.png"),
    os.fsdecode(b"\xff\xfe.png"),
]
FOLDERS = [
    "..evil",
    "..jpg",
    "-rf",
    "a\n--seed=7",
    "%s",
    "y" * 255,
    "a.png",
    os.fsdecode(b"\xff"),
    "~",
    "C:",
]


def everything(folder: pathlib.Path, but: pathlib.Path) -> dict[bytes, tuple]:
    """Kind, size and time of change of every file and folder, but for one folder and what is in
    it.
    """
    found = {}
    for directory, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if os.path.join(directory, name) != os.fsencode(but)]
        for path in [directory, *(os.path.join(directory, name) for name in [*folders, *files])]:
            status = os.lstat(path)
            # The output folder itself is new in its parent.
            changed = None if path == os.fsencode(but.parent) else status.st_mtime_ns
            found[path] = status.st_mode, status.st_size, changed
    return found


class Run(NamedTuple):
    """A run on a data set whose files, folders and links have the strangest names.

    Attributes:
      settings: resolved.
      train: its training images.
      result: what it ended with.
      before: `everything` but the output folder.
      after: the same afterwards.
    """

    settings: Config
    train: Source
    result: loop.Result
    before: dict[bytes, tuple]
    after: dict[bytes, tuple]


@pytest.fixture(scope="module")
def run_on_strange_names(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    data, output, outside = picture_folder(root / "data"), root / "runs" / "run", root / "outside"
    for folder in (outside, output.parent, root / "here"):
        folder.mkdir()
    picture = (data / "train" / "class0" / "18.jpg").read_bytes()
    for name in NAMES:
        (data / "train" / "class0" / name).write_bytes(picture)
    for folder in FOLDERS:
        (data / "train" / folder).mkdir()
        for name in ("..jpg", "a.jpg"):
            (data / "train" / folder / name).write_bytes(picture)
    (outside / "target.jpg").write_bytes(picture)
    (data / "train" / "class1" / "link.jpg").symlink_to(outside / "target.jpg")
    (data / "train" / "class1" / "folder").symlink_to(outside)
    (data / "train" / "class1" / "loop").symlink_to(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root / "here")
        before = everything(root, but=output)
        settings, images = open_data.open_data(one_epoch(data, output, knn_every=1))
        result = loop.run(settings, images, tf.distribute.get_strategy())
        return Run(settings, images.train, result, before, everything(root, but=output))


def test_names_of_a_data_set_lead_nowhere(run_on_strange_names):
    settings, train, result, before, after = run_on_strange_names
    shown = [name for name in NAMES if not name.startswith(".")]
    assert {os.path.basename(path) for path in train.paths} >= {*shown, "link.jpg", "target.jpg"}
    assert {"-rf", "a\n--seed=7", "%s", "y" * 255, os.fsdecode(b"\xff")} <= set(train.class_names)
    assert result.finished and result.step == len(train) // 8
    assert metrics_of(settings.output_dir)[-1]["knn"]
    assert after == before
    output = pathlib.Path(settings.output_dir)
    for path in output.rglob("*"):
        assert path.name.isprintable() and path.name.isascii() and not path.is_symlink()
    assert flag_files.from_flagfile(str(output / run_folder.FLAGS_FILE)) == settings


def test_the_listing_sees_every_change(tmp_path):
    output, beside = tmp_path / "runs" / "run", tmp_path / "runs" / "beside"
    beside.mkdir(parents=True)
    (beside / "file").write_text("a")
    listings = [everything(tmp_path, but=output)]
    output.mkdir()
    (output / "file").write_text("a")
    assert everything(tmp_path, but=output) == listings[0]
    for change in (
        lambda: (beside / "file").write_text("b"),
        lambda: (beside / "other").write_text("a"),
        lambda: (beside / "link").symlink_to(output),
        lambda: (beside / "file").unlink(),
        lambda: (tmp_path / "runs" / "run2").mkdir(),
    ):
        change()
        listings.append(everything(tmp_path, but=output))
        assert listings[-1] != listings[-2]


@pytest.mark.parametrize("name", ["a\nb.jpg", "\x1b[2J.jpg", os.fsdecode(b"\xff.jpg")])
def test_a_broken_file_is_named_in_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\xff\xd8\xff")
    source = open_folder(tmp_path)
    broken = BrokenImages(source, tmp_path / "broken.csv")
    broken.add(np.array([0]), np.array([path.read_bytes()], object))
    (said,) = broken.new()
    assert said == f"{str(path)!r}: its header is damaged" and said.isprintable()
    assert BrokenImages(source, tmp_path / "broken.csv").reasons == {0: "its header is damaged"}
    with pytest.raises(ValueError) as error:
        broken.check(0.01)
    assert repr(str(path)) in str(error.value) and str(error.value).isprintable()
    path.unlink()
    said = str(find_unreadable(source, [0]))
    assert said.startswith(f"expected an image in {str(path)!r}, got one that cannot be read (")
    assert said.isprintable()
