"""Tell split folders from class folders: the one rule for training, packing, evaluations, pictures.

FOLDER/train/..., FOLDER/val/...     a training and a held-out part
FOLDER/cat/..., FOLDER/train/...     class folders, one of which is called train
FOLDER/archive/train/...             a wrapper around the parts
"""

import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from pic_tf.data.sources.formats import IMAGE_EXTENSIONS
from pic_tf.data.sources.packed import is_packed
from pic_tf.data.sources.walk import walk

SPLIT_FOLDERS = ("auto", "none")  # values of --split_folders
_TRAIN = ("train", "training")
_HELD_OUT = ("val", "validation", "valid", "dev", "test", "testing")  # the first one is taken
# A year or a plain word may follow, as in val2017, test_images; anything may in train_masks.
_NAME = re.compile(r"({})([-_ ]?(\d+|set|images|imgs|data))?".format("|".join(_TRAIN + _HELD_OUT)))
_SPLIT_LIKE = re.compile(r"(train|val|test|extra|unlabell?ed|unsup)([-_ \d]|$)")


def is_part(name: str) -> bool:
    """Tell whether a folder's name is that of a training or a held-out part."""
    return bool(_stem(name))


class Layout(NamedTuple):
    """Parts of a folder of images.

    Attributes:
      train: folder of the training images.
      held_out: folder of the held-out images, or None.
      unused: names beside these parts that hold images too.
    """

    train: pathlib.Path
    held_out: pathlib.Path | None = None
    unused: tuple[str, ...] = ()

    def report(self, root: pathlib.Path) -> None:
        """Say on standard error what of a folder is in neither part."""
        if self.unused:
            print(
                f"left out: {_some(self.unused)} beside the parts of {str(root)!r}", file=sys.stderr
            )


def find_layout(root: pathlib.Path, split_folders: str = "auto") -> Layout:
    """Find the training and the held-out part of a folder.

    Folders are parts if their names say so (train or training; val, validation, valid, dev, test or
    testing; in capitals too, and with a year or "images" behind), unless a class of that name is
    more likely: a folder of images beside two other folders of images, and none held out.

    Args:
      root: the folder.
      split_folders: "auto" for this rule, "none" to take every folder inside for a class.

    Returns:
      The parts; the folder itself where there are no split folders.

    Raises:
      ValueError: for another value of `split_folders`, or a folder that can be read in two ways.
    """
    if split_folders not in SPLIT_FOLDERS:
        raise ValueError(
            f"expected --split_folders to be one of {', '.join(SPLIT_FOLDERS)}, "
            f"got {split_folders!r}"
        )
    if split_folders == "none" or not os.path.isdir(root):  # of any name, too long ones as well
        return Layout(root)
    folders, loose = _inside(root)
    train = [name for name in folders if _stem(name) in _TRAIN]
    held_out = [name for name in folders if _stem(name) in _HELD_OUT]
    if is_packed(root):
        if packed := [name for name in train if is_packed(root / name)]:
            _refuse(root, packed, ["images that are packed in the folder itself"])
        return Layout(root)
    others = [f for f in folders if f not in train + held_out and _holds_images(root / f)]
    if not train:
        return _without_train(root, held_out, others, loose)
    ambiguous = len(train) > 1 or len(_firsts(held_out)) > 1
    if others and not ambiguous:
        nested = is_packed(root / train[0]) or any(_nested(root / train[0]))
        if not nested and not held_out and len(others) > 1 and _are_classes(root, others):
            return Layout(root)
        named_as_parts = all(_SPLIT_LIKE.match(name.lower()) for name in others)
        ambiguous = not (named_as_parts or (nested and (held_out or len(others) == 1)))
    if ambiguous:
        _refuse(root, train + held_out, others)
    part = root / _firsts(held_out)[0] if held_out else None
    return Layout(root / train[0], part, (*others, *loose))


def _without_train(
    root: pathlib.Path, held_out: list[str], others: list[str], loose: list[str]
) -> Layout:
    """Look for the parts inside of a wrapper; refuse held-out images among those to train on."""
    if held_out and (others or len(held_out) > 1):
        _refuse(root, held_out, others)
    if len(others) == 1 and not loose and not held_out:
        inside = find_layout(root / others[0])
        return inside if inside.train != root / others[0] else Layout(root)
    for other in others:
        inside = {_stem(name): name for name in _inside(root / other)[0]}
        train = [inside[stem] for stem in _TRAIN if stem in inside]
        held_out = [inside[stem] for stem in _HELD_OUT if stem in inside]
        if train and held_out:
            _refuse(root, [os.path.join(other, name) for name in train + held_out], others)
    return Layout(root)


def _refuse(root: pathlib.Path, parts: list[str], others: list[str]) -> None:
    beside = f" beside {_some(others)}" if others else ""
    raise ValueError(
        f"expected split folders or class folders in {str(root)!r}, got {_some(parts)}{beside}: "
        f"name the folder of one part, such as {str(root / parts[0])!r}, or take all folders for "
        "classes (--split_folders=none)"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) if " " not in name else name for name in names[:4])
    return shown + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")


def _stem(name: str) -> str:
    """ "train" of "Train2017", "" of a name that is none of a part."""
    found = _NAME.fullmatch(name.lower())
    return found[1] if found else ""


def _firsts(held_out: list[str]) -> list[str]:
    """Folders of the first kind of held-out part that is there."""
    stems = [_stem(name) for name in held_out]
    return next(
        ([n for n, s in zip(held_out, stems) if s == kind] for kind in _HELD_OUT if kind in stems),
        [],
    )


def _inside(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Names of (folders, image files) directly in a folder, without hidden ones, sorted."""
    try:
        shown = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return [], []
    images = [name for name in shown if name.lower().endswith(IMAGE_EXTENSIONS)]
    folders = [name for name in shown if os.path.isdir(folder / name)]
    return folders, [name for name in images if name not in folders]


def _holds_images(folder: pathlib.Path) -> bool:
    """Tell whether there is an image anywhere below a folder."""
    try:
        images = (file.path.lower().endswith(IMAGE_EXTENSIONS) for file in walk(folder))
        return is_packed(folder) or any(images)
    except ValueError:  # it cannot be read: it is refused where its images are needed
        return False


def _nested(folder: pathlib.Path) -> list[str]:
    """Names of the folders in a folder that hold images."""
    return [name for name in _inside(folder)[0] if _holds_images(folder / name)]


def _are_classes(root: pathlib.Path, names: list[str]) -> bool:
    """Tell whether folders hold images themselves, and none has the name of a part."""
    return all(_inside(root / n)[1] and not _SPLIT_LIKE.match(n.lower()) for n in names)
