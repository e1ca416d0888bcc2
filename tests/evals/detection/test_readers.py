"""Readers of VOC's folders and COCO's files: golden values, and wrong input."""

import json

import numpy as np
import pytest
from PIL import Image

from pic_tf.evals.detection.annotations import fingerprint
from pic_tf.evals.detection.coco_json import open_coco
from pic_tf.evals.detection.voc_folder import VOC_CLASSES, open_voc
from pic_tf.evals.transfer.datasets import joined

OBJECT = (
    "<object><name>{}</name><pose>Frontal</pose><truncated>0</truncated><difficult>{}</difficult>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)
OBJECTS = {
    "000001": [("dog", 0, 1, 1, 30, 20), ("person", 1, 5, 2, 11, 9)],
    "000002": [("cat", 0, 3, 4, 7, 8)],
}


def voc(folder, objects=OBJECTS, size=(30, 20)):
    """A folder like VOC2007, of images `size` (width, height)."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name, entries in objects.items():
        Image.new("RGB", size).save(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename>"
            f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
            + "".join(OBJECT.format(*entry) for entry in entries)
            + "</annotation>"
        )
    names = "".join(f"{name}\n" for name in objects)
    (folder / "ImageSets/Main/trainval.txt").write_text(names)
    return folder


def test_voc(tmp_path):
    found = open_voc(voc(tmp_path / "VOC2007"), "trainval")
    assert found.class_names == VOC_CLASSES and found.name.endswith("VOC2007:trainval")
    first, second = found.pictures
    assert (first.height, first.width, first.path.name) == (20, 30, "000001.jpg")
    # From inclusive corners that count from 1 to edges that count from 0.
    assert first.objects.boxes.tolist() == [[0, 0, 30, 20], [4, 1, 11, 9]]
    assert [VOC_CLASSES[c] for c in first.objects.classes] == ["dog", "person"]
    assert first.objects.difficult.tolist() == [False, True]
    assert second.objects.boxes.tolist() == [[2, 3, 7, 8]]


def test_other_classes_are_numbered_by_name(tmp_path):
    one = open_voc(
        voc(tmp_path / "a", {"x": [("seven", 0, 1, 1, 3, 3), ("nine", 0, 1, 1, 3, 3)]}), "trainval"
    )
    assert one.class_names == ("nine", "seven") and one.pictures[0].objects.classes.tolist() == [
        1,
        0,
    ]
    both = joined([one, one])
    assert len(both.pictures) == 2 and fingerprint(both) != fingerprint(one)
    other = open_voc(voc(tmp_path / "b", {"x": [("seven", 0, 1, 1, 3, 3)]}), "trainval")
    with pytest.raises(
        ValueError,
        match=r"expected the same classes in '.*a:trainval' and '.*b:trainval', got 'nine'",
    ):
        joined([one, other])


WRONG_VOC = {
    "a box beyond the image": (
        {"x": [("dog", 0, 1, 1, 31, 20)]},
        r"expected boxes with an area inside of the image of 30 x 20 pixels in '.*x.xml'",
    ),
    "a box before the image": (
        {"x": [("dog", 0, 0, 1, 5, 5)]},
        "expected boxes with an area inside",
    ),
    "a box inside out": (
        {"x": [("dog", 0, 9, 1, 5, 5)]},
        r"expected boxes .* got edges \[8.0, 0.0, 5.0, 5.0\] for x.jpg",
    ),
    "no objects": ({"x": []}, "expected at least one object in '.*x.xml', got none"),
    "no number": (
        {"x": [("dog", 0, "one", 1, 5, 5)]},
        r"expected the size, .* in '.*x.xml', got a file .*\(ValueError\)",
    ),
}


@pytest.mark.parametrize("case", WRONG_VOC)
def test_wrong_files_of_voc(tmp_path, case):
    objects, sentence = WRONG_VOC[case]
    with pytest.raises(ValueError, match=sentence):
        open_voc(voc(tmp_path / "v", objects), "trainval")


def test_missing_files_of_voc(tmp_path):
    folder = voc(tmp_path / "v")
    with pytest.raises(
        ValueError, match=r"expected the list of the images in '.*test.txt', got none"
    ):
        open_voc(folder, "test")
    (folder / "JPEGImages/000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"expected the image of '.*000002.xml' at '.*000002.jpg'"):
        open_voc(folder, "trainval")
    (folder / "Annotations/000001.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"expected the size, .*000001.xml.*\(ParseError\)"):
        open_voc(folder, "trainval")
    (folder / "ImageSets/Main/trainval.txt").write_text("\n")
    with pytest.raises(ValueError, match="expected the names of images in"):
        open_voc(folder, "trainval")


def coco(folder, **changes):
    folder.mkdir()
    for i in (7, 3):
        Image.new("RGB", (30, 20)).save(folder / f"{i}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 30} for i in (7, 3)],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {
                "image_id": 7,
                "category_id": 90,
                "bbox": [1.5, 2, 3, 4.25],
                "iscrowd": 0,
                "area": 7.5,
            },
            {"image_id": 7, "category_id": 1, "bbox": [20, 10, 10.004, 10], "iscrowd": 0},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 0, 9], "iscrowd": 0},
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content | changes))
    return folder / "instances.json"


def test_coco(tmp_path):
    found = open_coco(coco(tmp_path / "c"), tmp_path / "c")
    assert found.class_names == ("person", "toothbrush")
    assert [picture.path.name for picture in found.pictures] == ["3.jpg", "7.jpg"]
    assert found.pictures[0].objects.boxes.shape == (0, 4)  # nothing in it
    objects = found.pictures[1].objects
    np.testing.assert_array_equal(
        objects.boxes, np.float32([[1.5, 2, 4.5, 6.25], [20, 10, 30, 20]])
    )
    assert objects.classes.tolist() == [1, 0] and not objects.difficult.any()
    crowds = found.pictures[1].crowds
    assert crowds.boxes.tolist() == [[0, 0, 9, 9]] and crowds.difficult.all()
    # The area that the file has, else that of the box.
    np.testing.assert_array_equal(found.pictures[1].areas, np.float32([7.5, 10.004 * 10]))


def test_wrong_files_of_coco(tmp_path):
    far = [{"image_id": 7, "category_id": 1, "bbox": [20, 10, 11, 10]}]
    cases = {
        "a": ({"annotations": far}, "expected boxes with an area inside of the image of 30 x 20"),
        "b": ({"annotations": []}, "expected objects in '.*instances.json', got none"),
        "c": ({"categories": []}, r"expected images, annotations .*\(KeyError: 90\)"),
        "d": (
            {"images": [{"id": 1, "file_name": "1.jpg", "height": 2, "width": 3}]},
            "got no 1.jpg",
        ),
    }
    for name, (changes, sentence) in cases.items():
        with pytest.raises(ValueError, match=sentence):
            open_coco(coco(tmp_path / name, **changes), tmp_path / name)
    with pytest.raises(ValueError, match="FileNotFoundError"):
        open_coco(tmp_path / "none.json", tmp_path)
