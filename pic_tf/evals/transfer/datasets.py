"""Put data sets of detection or segmentation together, and compare their classes."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from pic_tf.evals.subset import share
from pic_tf.evals.transfer.settings import check_batch

# In the order of the devkit, which the published networks number them by.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


Picture = TypeVar("Picture")


@dataclasses.dataclass(frozen=True)
class PictureSet(Generic[Picture]):
    """A data set of images with what is known of each: its objects, or its mask.

    Attributes:
      name: the name of the data set in messages.
      pictures: the images, in order.
      class_names: names of the classes, by their numbers.
    """

    name: str
    pictures: tuple[Picture, ...]
    class_names: tuple[str, ...]

    def only(self, ids: Iterable[int]) -> "PictureSet[Picture]":
        """Choose some of the images."""
        return dataclasses.replace(self, pictures=tuple(self.pictures[i] for i in ids))


def open_both(
    settings: Any,
    open_part: Callable[[str], PictureSet[Picture]],
    teaches: Callable[[Picture], bool] = lambda picture: True,
) -> tuple[PictureSet[Picture], PictureSet[Picture]]:
    """Open the images to train on, or the share of them that is asked for, and those of the test.

    Args:
      settings: `EvaluationSettings`; each data set is named, or several with commas between them.
      open_part: opens one by its name.
      teaches: tells whether there is something to learn from an image.

    Returns:
      (images to train on, images of the test).

    Raises:
      ValueError: where a data set cannot be opened, classes differ, or a batch needs more images.
    """
    train, test = (
        joined([open_part(name) for name in names.split(",")])
        for names in (settings.dataset, settings.eval_dataset)
    )
    check_classes(train, test)
    useful = [i for i, picture in enumerate(train.pictures) if teaches(picture)]
    chosen = share(len(useful), settings.label_fraction, settings.seed)
    train = train.only(useful[i] for i in chosen)
    check_batch(settings, len(train.pictures))
    return train, test


def joined(parts: Sequence[PictureSet[Picture]]) -> PictureSet[Picture]:
    """Put data sets of the same classes together.

    Raises:
      ValueError: where their classes differ.
    """
    for part in parts[1:]:
        check_classes(parts[0], part)
    pictures = tuple(picture for part in parts for picture in part.pictures)
    return PictureSet(", ".join(part.name for part in parts), pictures, parts[0].class_names)


def check_classes(one: PictureSet, other: PictureSet) -> None:
    """Raise ValueError unless two data sets have the same classes in the same order."""
    if one.class_names == other.class_names:
        return
    apart = sorted(set(one.class_names) ^ set(other.class_names))
    got = f"{apart[0]!r} in one of them alone" if apart else "them in another order"
    raise ValueError(
        f"expected the same classes in {one.name!r} and {other.name!r}, got {got}: name data sets "
        "that belong together"
    )
