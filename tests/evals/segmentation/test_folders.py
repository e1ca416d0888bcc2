"""Readers of folders with masks: golden values, and wrong input."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from pic_tf.evals.segmentation.folders import CITYSCAPES, open_masks
from pic_tf.evals.segmentation.masks import check_files, read_mask
from pic_tf.evals.transfer.datasets import VOC_CLASSES, check_classes

LEVELS = np.uint8([[0, 1, 2], [255, 1, 0]])


def save(path, levels=LEVELS, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(levels, np.uint8))
    if mode == "P":
        image.putpalette([7 * i % 256 for i in range(768)])
    image.save(path)
    return path


def plain(folder, masks, names="sky\ngrass\ntree\n"):
    """FOLDER/train/images beside masks, an image of 3 x 2 pixels for each mask."""
    for name, levels in masks.items():
        save(folder / f"train/images/{name}.png", np.zeros([2, 3, 3], np.uint8))
        if levels is not None:
            save(folder / f"train/masks/{name}.png", levels)
    (folder / "classes.txt").write_text(names)
    return folder


def test_cityscapes_has_19_classes_by_either_file(tmp_path):
    ids = np.uint8([[7, 8, 33], [0, 26, 7]])
    trained = np.uint8([[0, 1, 18], [255, 13, 0]])
    for name in ("bern_1", "ulm_2"):
        city = name.split("_")[0]
        save(tmp_path / f"leftImg8bit/val/{city}/{name}_leftImg8bit.png", np.zeros([2, 3, 3], "u1"))
        save(tmp_path / f"gtFine/val/{city}/{name}_gtFine_labelIds.png", ids)
    save(tmp_path / "gtFine/val/ulm/ulm_2_gtFine_labelTrainIds.png", trained)
    found = open_masks(tmp_path, "val")
    assert found.class_names == tuple(CITYSCAPES) and found.class_names[13] == "car"
    assert [p.path.name for p in found.pictures] == [
        f"{name}_leftImg8bit.png" for name in ("bern_1", "ulm_2")
    ]
    for picture in found.pictures:
        np.testing.assert_array_equal(read_mask(picture), trained)
    assert found.pictures[1].mask.name.endswith("labelTrainIds.png")
    # The published table, id -> number for training, of those with one.
    published = dict(zip([7, 8, *range(11, 14), 17, *range(19, 29), 31, 32, 33], range(19)))
    assert dict(zip(CITYSCAPES.values(), range(19))) == published
    check_files(found)
    with pytest.raises(ValueError, match=r"expected images in '.*leftImg8bit/train', got none"):
        open_masks(tmp_path, "train")
    save(tmp_path / "gtFine/val/bern/bern_1_gtFine_labelIds.png", [[34, 0, 0], [0, 0, 0]])
    save(tmp_path / "leftImg8bit/val/ulm/ulm_3_leftImg8bit.png")
    with pytest.raises(ValueError, match=r"the mask of '.*ulm_3.*' at '.*ulm_3_gtFine_labelIds"):
        open_masks(tmp_path, "val")


def test_masks_of_voc_are_numbers_in_a_palette(tmp_path):
    save(tmp_path / "SegmentationClass/a.png", [[0, 20, 15], [255, 1, 0]], "P")
    save(tmp_path / "JPEGImages/a.jpg", np.zeros([2, 3, 3], np.uint8))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    found = open_masks(tmp_path, "train")
    assert found.class_names == ("background", *VOC_CLASSES)
    np.testing.assert_array_equal(read_mask(found.pictures[0]), [[0, 20, 15], [255, 1, 0]])
    (tmp_path / "classes.txt").write_text("ground\nroad\n")
    with pytest.raises(
        ValueError, match=r"expected labels of 2 classes or 255 in '.*/a.png', got 20"
    ):
        check_files(open_masks(tmp_path, "train"))
    with pytest.raises(ValueError, match=r"expected the list of the images in '.*/val.txt', got"):
        open_masks(tmp_path, "val")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"expected the image 'b' of .* at '.*JPEGImages/b.jpg'"):
        open_masks(tmp_path, "train")


def test_images_beside_masks(tmp_path):
    found = open_masks(plain(tmp_path, {"b": LEVELS, "a": LEVELS}), "train")
    assert found.class_names == ("sky", "grass", "tree")
    assert [picture.path.name for picture in found.pictures] == ["a.png", "b.png"]
    np.testing.assert_array_equal(read_mask(found.pictures[0]), LEVELS)
    before = check_files(found)
    assert check_files(found) == before
    save(found.pictures[0].mask, LEVELS[::-1])
    assert check_files(found) != before


WRONG = {
    "another size": ({"a": LEVELS.T}, r"a mask of 3 x 2 pixels in '.*masks/a.png', .* got 2 x 3"),
    "a label too many": ({"a": LEVELS + 1}, r"labels of 3 classes or 255 in '.*a.png', got 3"),
    "colours": ({"a": np.zeros([2, 3, 3], "u1")}, r"one channel in '.*masks/a.png', got RGB"),
    "no mask": ({"a": LEVELS, "b": None}, r"the mask of '.*images/b.png' at '.*masks/b.png', got"),
    "no label": ({"a": LEVELS * 0 + 255}, r"expected pixels with a class in '.*:train', got none"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_masks(tmp_path, case):
    masks, sentence = WRONG[case]
    with pytest.raises(ValueError, match=sentence):
        check_files(open_masks(plain(tmp_path, masks), "train"))


def test_wrong_folders(tmp_path):
    folder = plain(tmp_path / "x", {"a": LEVELS})
    with pytest.raises(ValueError, match=r"expected images in '.*x/val/images', got none"):
        open_masks(folder, "val")
    for names, count in (("sky\n", 1), ("sky\nsky\n", 2)):
        (folder / "classes.txt").write_text(names)
        with pytest.raises(ValueError, match=f"different names of .*classes.txt', got {count}: "):
            open_masks(folder, "train")
    (folder / "classes.txt").unlink()
    with pytest.raises(ValueError, match=r"names of classes in '.*classes.txt', got 0: write one"):
        open_masks(folder, "train")
    (folder / "train/masks/a.png").write_bytes(b"no image")
    (folder / "classes.txt").write_text("sky\ngrass\ntree\n")
    one = open_masks(folder, "train")
    with pytest.raises(
        ValueError, match=r"expected a mask in '.*masks/a.png', got cannot identify"
    ):
        check_files(one)
    for names, got in (("tree\nsky\ngrass", "them in another order"), ("sky\nsea", "'grass' in")):
        other = dataclasses.replace(one, class_names=tuple(names.split()))
        with pytest.raises(ValueError, match=f"expected the same classes in .*, got {got}"):
            check_classes(one, other)
