"""Read data sets in the folders of Pascal VOC: an XML file for each image."""

import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np

from pic_tf.evals.detection.annotations import Picture, picture_of_file
from pic_tf.evals.detection.voc_metric import Objects
from pic_tf.evals.transfer.datasets import VOC_CLASSES, PictureSet


def open_voc(folder: pathlib.Path, split: str) -> PictureSet[Picture]:
    """Read FOLDER/ImageSets/Main/SPLIT.txt, and for each image in it Annotations/IMAGE.xml.

    Classes are numbered as VOC's where all are among its 20, otherwise by name.

    Args:
      folder: VOC2007, VOC2012 or another one laid out like these.
      split: train, val, trainval or test.

    Raises:
      ValueError: for a file that is missing or cannot be read, an image without objects, or a box
        that does not fit its image.
    """
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listed.is_file():
        raise ValueError(
            f"expected the list of the images in {str(listed)!r}, got none: name a folder and a "
            "split of Pascal VOC, as VOCdevkit/VOC2007:trainval"
        )
    names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    if not names:
        raise ValueError(f"expected the names of images in {str(listed)!r}, got none: fill it")
    read = [_read(folder, name) for name in names]
    seen = {label for _, labels in read for label in labels}
    classes = VOC_CLASSES if seen <= set(VOC_CLASSES) else tuple(sorted(seen))
    number = {name: i for i, name in enumerate(classes)}
    pictures = []
    for picture, labels in read:
        numbers = np.array([number[label] for label in labels], np.int32)
        pictures.append(picture._replace(objects=picture.objects._replace(classes=numbers)))
    return PictureSet(f"{folder}:{split}", tuple(pictures), classes)


def _read(folder: pathlib.Path, name: str) -> tuple[Picture, list[str]]:
    """Read an image's description: (the image, still without classes, names of the classes)."""
    file = folder / "Annotations" / f"{name}.xml"
    try:
        root = ElementTree.parse(file).getroot()
        path = folder / "JPEGImages" / (root.findtext("filename") or f"{name}.jpg")
        height, width = (int(root.find("size").findtext(side)) for side in ("height", "width"))
        found = root.findall("object")
        labels = [entry.findtext("name").strip() for entry in found]
        hard = [(entry.findtext("difficult") or "0").strip() == "1" for entry in found]
        boxes = [[float(entry.find("bndbox").findtext(e)) for e in _EDGES] for entry in found]
    except (OSError, ElementTree.ParseError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected the size, names and boxes of an image in {str(file)!r}, got a file that "
            f"cannot be read so ({type(error).__name__}): correct it"
        ) from error
    if not found:
        raise ValueError(
            f"expected at least one object in {str(file)!r}, got none: leave the image out of the "
            "split"
        )
    if not path.is_file():
        raise ValueError(
            f"expected the image of {str(file)!r} at {str(path)!r}, got none: fetch it"
        )
    # Pixels count from 1 in the files, and belong to the box at both of its ends.
    edges = np.array(boxes, np.float32) - np.array([1, 1, 0, 0], np.float32)
    objects = Objects(edges, np.zeros(0, np.int32), np.array(hard))
    return picture_of_file(path, file, height, width, objects), labels


_EDGES = ("xmin", "ymin", "xmax", "ymax")
