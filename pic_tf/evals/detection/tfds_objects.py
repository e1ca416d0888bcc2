"""Read images with objects that TensorFlow Datasets has prepared, such as its voc and coco."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from pic_tf.data.sources import tfds_builder
from pic_tf.data.sources.named import TFDS
from pic_tf.data.sources.tfds_source import open_records
from pic_tf.evals.detection.annotations import Picture, checked, chosen
from pic_tf.evals.detection.voc_metric import Objects
from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.files.progress import drawing_interval

_DECIMALS = 3  # of a pixel; float32 shares of a side of up to 8,192 pixels keep as many
# The builder of this name divides VOC's corners as they are, which count from 1:
# https://github.com/tensorflow/datasets/blob/v4.9.9/tensorflow_datasets/object_detection/voc.py
_VOC, _VOC_START = "voc", (1, 1, 0, 0)
_FORMATS = (None, "REL_YXYX")  # of boxes; None is what older files say of themselves


def open_tfds_objects(name: str, split: str) -> PictureSet[Picture]:
    """Read the objects of one split of a prepared data set; images are read when they are needed.

    A record has an image, and "objects" with "bbox" and "label", perhaps "is_difficult",
    "is_crowd" and "area". As of COCO's own files, boxes without an area are left out, and images
    without objects are kept.

    Args:
      name: as of `pic_tf.data.sources.tfds_source.open_split`.
      split: such as "train+validation".

    Raises:
      ValueError: as of `open_split`, and for records without boxes or classes, a split without any
        object, or an image that cannot be read.

    Source: https://www.tensorflow.org/datasets/catalog/voc.
    """
    import tensorflow_datasets as tfds

    builder = tfds_builder.array_record_builder(name)
    info, title = builder.info, f"{TFDS}{name}:{split}"
    image = tfds_builder.image_feature(info.features, name)
    classes = _classes(info.features, name)
    records = open_records(tfds_builder.record_files(info.splits, name, split))
    folder, encoded = pathlib.Path(str(builder.data_dir)), {image: tfds.decode.SkipDecoding()}
    start = np.array(_VOC_START if info.name == _VOC else (0, 0, 0, 0), np.float32)

    def example(i: int) -> dict[str, Any]:
        [record] = records.read(np.array([i]))
        return info.features.deserialize_example_np(record, decoders=encoded)

    def picture_of(i: int) -> Picture:
        file, number = records.locate(i)
        place, content = pathlib.Path(f"{file.path}[{number}]"), example(i)
        try:
            with Image.open(io.BytesIO(content[image])) as opened:
                width, height = opened.size
        except OSError as error:
            raise ValueError(
                f"expected an image in {str(place)!r}, got {error}: prepare the data set again"
            ) from error
        objects, crowds, areas = _objects(content["objects"], height, width, start)
        read = lambda: io.BytesIO(example(i)[image])  # noqa: E731
        return checked(Picture(place, folder, height, width, objects, read, crowds, areas))

    bar = tqdm(range(len(records)), title, unit=" images", mininterval=drawing_interval())
    pictures = tuple(picture_of(i) for i in bar)
    if not any(len(picture.objects.classes) for picture in pictures):
        raise ValueError(f"expected objects in {title!r}, got none: name another split")
    return PictureSet(title, pictures, classes)


def _classes(features: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Names of the classes, of records that have boxes and classes."""
    import tensorflow_datasets as tfds

    of_object = getattr(dict(features).get("objects"), "feature", {})
    box, label = (dict(of_object).get(key) for key in ("bbox", "label"))
    if isinstance(box, tfds.features.BBoxFeature) and isinstance(label, tfds.features.ClassLabel):
        bbox_format = getattr(box, "bbox_format", None)
        if getattr(bbox_format, "value", bbox_format) in _FORMATS:
            return tuple(label.names)
    got = ", ".join(f"{key!r} ({type(x).__name__})" for key, x in features.items())
    raise ValueError(
        "expected 'objects' with 'bbox' (shares of the sides: ymin, xmin, ymax, xmax) and 'label' "
        f"(ClassLabel) in the records of {name!r}, got {got}: choose another data set"
    )


def _objects(
    found: Mapping[str, Sequence], height: int, width: int, start: np.ndarray
) -> tuple[Objects, Objects, np.ndarray | None]:
    """Objects, crowds and areas of a record, as of `Picture`; `start` is taken off from boxes."""
    shares = np.array(found["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    pixels = np.round(shares * [width, height, width, height], _DECIMALS)
    boxes, none = pixels.astype(np.float32) - start, np.zeros(len(shares), bool)
    crowd, difficult = (np.array(found.get(k, none), bool) for k in ("is_crowd", "is_difficult"))
    objects = Objects(boxes, np.array(found["label"], np.int32), difficult | crowd)
    fine = (boxes[:, 2:] > boxes[:, :2]).all(1)
    areas = np.array(found["area"], np.float32)[fine & ~crowd] if "area" in found else None
    return chosen(objects, fine & ~crowd), chosen(objects, fine & crowd), areas
