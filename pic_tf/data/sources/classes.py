"""Number the classes of images: by themselves, or as the training set numbers them."""

from collections.abc import Iterable, Sequence

import numpy as np


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


def labels_of(
    classes: Sequence[str], own_names: Sequence[str], class_names: Sequence[str], images: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Label images by their classes, where every image has one and there is a choice of classes.

    Args:
      classes: the class of each image, "" for none.
      own_names: these classes, in the order of their numbers.
      class_names: classes of the training set, to number by instead; () for `own_names`. One class
        alone is a choice among them.
      images: name of the images in messages.

    Returns:
      (labels int64 [N], class names), or (None, ()).

    Raises:
      ValueError: for a class that is not among `class_names`.
    """
    found = sorted(set(classes))
    if "" in found or (len(found) < 2 and not class_names):
        return None, ()
    names = tuple(class_names or own_names)
    numbers = class_numbers(found, names, images)
    return np.array([numbers[name] for name in classes], np.int64), names
