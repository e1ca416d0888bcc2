"""Put data sets of detection or segmentation together, and compare their classes."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

# In the order of the devkit, which the published networks number them by.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


class PictureSet(Protocol):
    """A named tuple with a name, pictures, and names of the classes."""

    name: str
    pictures: tuple
    class_names: tuple[str, ...]
    _replace: Callable[..., Any]


Kind = TypeVar("Kind", bound=PictureSet)


def open_both(dataset: str, eval_dataset: str, open_part: Callable[[str], Kind]) -> list[Kind]:
    """Open the images to train on and those of the test.

    Args:
      dataset, eval_dataset: names, each of one or several data sets separated by commas.
      open_part: opens one by its name.

    Raises:
      ValueError: where a data set cannot be opened, or classes differ.
    """
    both = [joined([open_part(n) for n in names.split(",")]) for names in (dataset, eval_dataset)]
    check_classes(*both)
    return both


def joined(parts: Sequence[Kind]) -> Kind:
    """Put data sets of the same classes together.

    Raises:
      ValueError: where their classes differ.
    """
    for part in parts[1:]:
        check_classes(parts[0], part)
    pictures = tuple(picture for part in parts for picture in part.pictures)
    return parts[0]._replace(name=", ".join(part.name for part in parts), pictures=pictures)


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
