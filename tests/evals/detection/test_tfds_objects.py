"""Objects of TensorFlow Datasets: its own builders read what our readers of files read."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pic_tf.evals.detection import protocol
from pic_tf.evals.detection.coco_json import open_coco
from pic_tf.evals.detection.tfds_objects import open_tfds_objects
from pic_tf.evals.detection.voc_folder import VOC_CLASSES, open_voc
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.evals.transfer.datasets import PictureSet, open_both
from tests.data.sources.tfds_sets import prepare, prepare_features
from tests.evals.detection.test_readers import voc

BOXES = tfds.features.Sequence(
    {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=["a", "b"])}
)


def prepared(builder, root, splits):
    """The folder of a data set of a published builder, from files that are here."""
    body = {"code_path": None, "_split_generators": splits}
    with tfds.core.registered.skip_registration():
        own = type(builder.__name__, (builder,), body)
    return prepare(own(data_dir=root, file_format="array_record"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(folder of VOC, with objects of whole and broken corners, the same of TensorFlow Datasets)."""
    root, rng = tmp_path_factory.mktemp("voc"), np.random.default_rng(0)
    width, height, objects = 333, 251, {}
    for name in ("000001", "000002", "000003"):
        low = rng.integers(1, [width, height], [40, 2])
        high = rng.integers(low, [width + 1, height + 1])
        high[0], low[0] = (width, height), 1
        corners = np.concatenate([low, high], 1).tolist()
        corners[1] = [45.70000076293945, 1, 50.2, 2]  # as some of the published ones are
        objects[name] = [
            (VOC_CLASSES[rng.integers(20)], int(rng.integers(2)), *each) for each in corners
        ]
    folder = voc(root / "VOCdevkit/VOC2007", objects, (width, height))
    for path in (folder / "JPEGImages").iterdir():
        Image.fromarray(rng.integers(0, 256, [height, width, 3]).astype(np.uint8)).save(path)
    lists = folder / "ImageSets/Main"
    for split, names in {"train": "000001", "val": "000002\n000003", "test": "000002"}.items():
        (lists / f"{split}.txt").write_text(names)

    def splits(self, _):
        parts = {"train": "train", "validation": "val", "test": "test"}
        return {split: self._generate_examples(str(root), name) for split, name in parts.items()}

    return folder, prepared(tfds.object_detection.Voc, root / "tfds", splits)


def encoded(picture):
    with picture.open() as file:
        return file.read()


def in_order_of(data, other):
    """The images of a data set in the order of another one of the same files."""
    there = {encoded(picture): picture for picture in data.pictures}
    pictures = tuple(there.pop(encoded(picture)) for picture in other.pictures)
    assert not there
    return PictureSet(data.name, pictures, data.class_names)


def check_same(found, expected):
    assert found.class_names == expected.class_names
    for one, other in zip(in_order_of(found, expected).pictures, expected.pictures):
        assert (one.height, one.width) == (other.height, other.width)
        assert other.crowds is not None or not len(one.crowds.classes)
        theirs = (*other.objects, *(other.crowds or ()))
        for own, true in zip((*one.objects, *one.crowds), theirs):
            assert own.dtype == true.dtype
            np.testing.assert_array_equal(own, true)
        np.testing.assert_array_equal(one.areas, other.areas)


def test_voc_is_that_of_its_folder(folders):
    folder, prepared = folders
    found, expected = open_tfds_objects(prepared, "train+validation"), open_voc(folder, "trainval")
    assert found.name == f"tfds:{prepared}:train+validation"
    check_same(found, expected)
    boxes = np.concatenate([picture.objects.boxes for picture in found.pictures])
    assert boxes.min() == 0 and boxes[:, 2].max() == 333  # corners that count from 1 are edges
    assert {bool(d) for p in found.pictures for d in p.objects.difficult} == {False, True}


def test_lists_of_data_sets_name_places_and_splits(folders):
    folder, prepared = folders
    settings = EvaluationSettings(
        "voc_detection",
        dataset=f"tfds:{prepared}:train,tfds:{prepared}:validation[:50%],{folder}:val",
        eval_dataset=f"tfds:{prepared}:test",
        batch_size=4,
    )
    train, test = open_both(settings, protocol._open_part)
    assert [len(data.pictures) for data in (train, test)] == [4, 1]
    for name in ("tfds:voc/2007", f"tfds:{prepared}", "tfds::test"):
        with pytest.raises(ValueError, match=f"expected FOLDER:SPLIT .*, got '{name}': write it"):
            protocol._open_part(name)


def test_coco_is_that_of_its_file(tmp_path):
    rng, width, height = np.random.default_rng(0), 640, 427
    annotations, images = [], []
    (tmp_path / "val").mkdir()
    for i in (7, 3, 5):
        name = f"{i:012d}.jpg"
        Image.fromarray(rng.integers(0, 256, [height, width, 3]).astype(np.uint8)).save(
            tmp_path / "val" / name
        )
        images.append({"id": i, "file_name": name, "height": height, "width": width})
        for _ in range(50 if i < 7 else 0):  # one image without objects
            low = rng.uniform(0, [width, height])
            box = np.round([*low, *rng.uniform(0, [width, height] - low)], 2)
            annotations.append({"image_id": i, "category_id": int(rng.integers(11, 91))})
            annotations[-1] |= {
                "id": len(annotations),
                "bbox": box.tolist(),
                "area": float(len(annotations)),
            }
            annotations[-1]["iscrowd"] = int(len(annotations) % 7 == 0)
    annotations[0]["bbox"][3] = 0.0
    categories = [{"id": i, "name": f"class{i}"} for i in range(11, 91)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations/instances_val.json"
    file.write_text(json.dumps(content))

    def splits(self, _):
        kind = self.builder_config.splits[0].annotation_type
        folder = str(tmp_path)
        return {"validation": self._generate_examples(folder, folder, "val", kind, None)}

    folder = prepared(tfds.object_detection.Coco, tmp_path / "tfds", splits)
    found, expected = open_tfds_objects(folder, "validation"), open_coco(file, tmp_path / "val")
    check_same(found, expected)
    assert sum(len(picture.objects.classes) for picture in found.pictures) == 85
    assert sum(len(picture.crowds.classes) for picture in found.pictures) == 14


PIXELS = np.zeros([20, 30, 3], np.uint8)
WRONG = {
    "no objects": (
        {"objects": BOXES},
        {"objects": []},
        r"expected objects in 'tfds:.*:train', got none: name another split",
    ),
    "no boxes": (
        {"label": tfds.features.ClassLabel(num_classes=2)},
        {"label": 1},
        r"expected 'objects' with 'bbox' .* in the records of '.*', got .*'label' \(ClassLabel\)",
    ),
    "boxes without classes": (
        {"objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()})},
        {"objects": []},
        r"expected 'objects' with 'bbox' .*, got .*'objects' \(Sequence\)",
    ),
    "boxes of pixels": (
        {
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.BBoxFeature(bbox_format="XYXY"),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
            )
        },
        {"objects": []},
        r"expected 'objects' with 'bbox' \(shares of the sides",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_records(tmp_path, case):
    features, record, sentence = WRONG[case]
    folder = prepare_features(
        tmp_path, {"image": tfds.features.Image()} | features, {"image": PIXELS} | record
    )
    with pytest.raises(ValueError, match=sentence):
        open_tfds_objects(folder, "train")


def test_only_the_published_builder_counts_from_one(tmp_path):
    objects = [{"bbox": tfds.features.BBox(0.1, 0.2, 0.5, 1.0), "label": "b"}]
    features = {"image": tfds.features.Image(), "objects": BOXES}
    folder = prepare_features(tmp_path, features, {"image": PIXELS, "objects": objects})
    [picture] = open_tfds_objects(folder, "train").pictures
    assert picture.objects.boxes.tolist() == [[6, 2, 30, 10]]
    assert picture.objects.classes.tolist() == [1] and not picture.objects.difficult.any()
    assert picture.path.name.endswith("array_record-00000-of-00001[0]")
