"""Number the classes of images: by themselves, or as the training set numbers them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pic_tf.data.sources.source import Source


def class_numbers(found: Iterable[str], class_names: Sequence[str], images: str) -> dict[str, int]:
    """Number classes by their position among `class_names`.

    Args:
      found: classes of some images.
      class_names: classes of the training set, in the order of their numbers.
      images: name of the images in messages.

    Returns:
      The number of each of `class_names`.

    Raises:
      ValueError: for a class that is not among `class_names`.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    for name in found:
        if name not in numbers:
            raise ValueError(
                f"expected the classes in {images!r} to be among the training set's "
                f"{len(class_names)}, got {name!r} besides: name the classes alike"
            )
    return numbers


class Labels(NamedTuple):
    """Labels of images.

    Attributes:
      labels: int64 [N], or None.
      class_names: classes in the order of their numbers, or ().
      missing: the reason why there are none, in a few words; "" for images without folders.
    """

    labels: np.ndarray | None
    class_names: tuple[str, ...] = ()
    missing: str = ""


def labels_of(
    names: Sequence[str],
    classes: Sequence[str],
    own_names: Sequence[str],
    class_names: Sequence[str] | None,
    images: str,
) -> Labels:
    """Label images by their classes, where every image has one and there is a choice of classes.

    Args:
      names: name of each image.
      classes: the class of each image, "" for none.
      own_names: these classes, in the order of their numbers.
      class_names: classes of the training set, to number by instead; () for `own_names`, and None
        for those of one place among several. One class alone is then a choice too.
      images: name of the images in messages.

    Returns:
      The labels, or the reason why there are none.

    Raises:
      ValueError: for a class that is not among `class_names`.
    """
    found = sorted(set(classes))
    if "" in found:
        beside = [name for name, of_image in zip(names, classes) if not of_image]
        more = f" and {len(beside) - 1:,} more" if len(beside) > 1 else ""
        verb = "lie" if more else "lies"
        others = f"no labels, since {beside[0]!r}{more} {verb} beside the class folders"
        return Labels(None, missing=others if len(found) > 1 else "")
    if len(found) < 2 and class_names == ():
        return Labels(None, missing=f"no labels, since all images have one class, {found[0]!r}")
    numbered = tuple(class_names or own_names)
    numbers = class_numbers(found, numbered, images)
    return Labels(np.array([numbers[name] for name in classes], np.int64), numbered)


def classes_of(source: Source, instance_ids: Sequence[int] | np.ndarray) -> list[str]:
    """Name the classes of some images.

    Args:
      source: the images.
      instance_ids: integer [n].

    Returns:
      n names; "" for an image without a class, as those of label -1 in TensorFlow Datasets.
    """
    if source.labels is None:
        return [""] * len(instance_ids)
    labels = source.labels[np.asarray(instance_ids, np.int64)].tolist()
    return [source.class_names[label] if label >= 0 else "" for label in labels]
