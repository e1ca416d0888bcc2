"""Read data sets in COCO's form: one JSON file for all images."""

import json
import pathlib
from collections import defaultdict

import numpy as np

from pic_tf.evals.detection.annotations import Picture, chosen, picture_of_file
from pic_tf.evals.detection.voc_metric import Objects
from pic_tf.evals.transfer.datasets import PictureSet

_ROUNDING = 0.1  # pixels


def open_coco(file: pathlib.Path, folder: pathlib.Path) -> PictureSet[Picture]:
    """Read objects from `file`, of images in `folder`.

    Classes are numbered in the order of their ids. Boxes without an area, of which the published
    files have some, are left out. Images without objects are kept: there is nothing to find in
    them.

    Args:
      file: such as instances_val2017.json.
      folder: such as val2017.

    Raises:
      ValueError: for a file that is missing or of another form, a data set without any object, or
        a box that does not fit its image.
    """
    try:
        content = json.loads(file.read_text())
        categories = sorted(content["categories"], key=lambda c: c["id"])
        number = {category["id"]: i for i, category in enumerate(categories)}
        of_image = defaultdict(list)
        for entry in content["annotations"]:
            kind, (x, y, width, height) = number[entry["category_id"]], map(float, entry["bbox"])
            area = entry.get("area")
            area = width * height if area is None else float(area)
            rest = kind, area, bool(entry.get("iscrowd", 0))
            if width > 0 and height > 0:
                of_image[entry["image_id"]].append((x, y, x + width, y + height, *rest))
        images = sorted(content["images"], key=lambda image: image["id"])
        sizes = [(image["height"], image["width"]) for image in images]
        paths = [folder / image["file_name"] for image in images]
        names = tuple(category["name"] for category in categories)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"expected images, annotations and categories of COCO in {str(file)!r}, got a file "
            f"that cannot be read so ({type(error).__name__}: {error}): fetch it again"
        ) from error
    if all(crowd for entries in of_image.values() for *_, crowd in entries):
        raise ValueError(f"expected objects in {str(file)!r}, got none: name another file")
    missing = next((path for path in paths if not path.is_file()), None)
    if missing:
        raise ValueError(
            f"expected the images of {str(file)!r} in {str(folder)!r}, got no {missing.name}: "
            "fetch them"
        )
    pictures = []
    for image, path, (height, width) in zip(images, paths, sizes):
        rows = np.array(of_image[image["id"]], np.float32).reshape(-1, 7)
        # Boxes of the published files end up to a hundredth of a pixel beyond their image.
        inside = np.clip(rows[:, :4], 0, [width, height, width, height])
        edges = np.where(abs(rows[:, :4] - inside) < _ROUNDING, inside, rows[:, :4])
        edges = edges.astype(np.float32)
        crowd = rows[:, 6] > 0
        objects = Objects(edges, rows[:, 4].astype(np.int32), crowd)
        picture = picture_of_file(path, file, height, width, chosen(objects, ~crowd))
        pictures.append(picture._replace(crowds=chosen(objects, crowd), areas=rows[~crowd, 5]))
    return PictureSet(file.name, tuple(pictures), names)
