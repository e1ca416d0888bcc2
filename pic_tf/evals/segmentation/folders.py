"""Read the folders of Cityscapes, of Pascal VOC, and images/ beside masks/."""

import pathlib

from pic_tf.evals.segmentation.masks import Picture, labels_of
from pic_tf.evals.transfer.datasets import VOC_CLASSES, PictureSet

# In the order of their numbers for training, with their ids in the files labelIds.
CITYSCAPES = {
    **{"road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17},
    **{"traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23},
    **{"person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31},
    **{"motorcycle": 32, "bicycle": 33},
}
_CITYSCAPES_IDS = 34  # ids of the files labelIds, of which 19 are classes
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_CLASSES = "classes.txt"


def open_masks(folder: pathlib.Path, split: str) -> PictureSet[Picture]:
    """Read the images of a split, by the form of the folder.

    With FOLDER/leftImg8bit it is Cityscapes', with FOLDER/ImageSets/Segmentation VOC's, otherwise
    FOLDER/SPLIT/images/NAME.jpg has its mask in FOLDER/SPLIT/masks/NAME.png. Names of classes are
    the published ones, or in FOLDER/classes.txt, one a line, the first of level 0.

    Args:
      folder: folder of the data set.
      split: such as train or val.

    Raises:
      ValueError: for a folder without images, an image without a mask, or classes without names.
    """
    if (folder / "leftImg8bit").is_dir():
        pictures, names = _cityscapes(folder, split), tuple(CITYSCAPES)
    elif (folder / "ImageSets" / "Segmentation").is_dir():
        names = _names(folder, ("background", *VOC_CLASSES))
        pictures = _voc(folder, split, names)
    else:
        names = _names(folder)
        pictures = _plain(folder, split, names)
    return PictureSet(f"{folder}:{split}", tuple(pictures), names)


def _cityscapes(folder: pathlib.Path, split: str) -> list[Picture]:
    trained, ids = labels_of(range(len(CITYSCAPES))), list(CITYSCAPES.values())
    every = labels_of(ids, sorted(set(range(_CITYSCAPES_IDS)) - set(ids)))
    images, pictures = folder / "leftImg8bit" / split, []
    for path in _some(sorted(images.glob("*/*_leftImg8bit.png")), images):
        name = path.name.removesuffix("_leftImg8bit.png")
        beside = folder / "gtFine" / split / path.parent.name
        of_training = beside / f"{name}_gtFine_labelTrainIds.png"
        of_ids = beside / f"{name}_gtFine_labelIds.png"
        if of_training.is_file():
            pictures.append(Picture(path, of_training, trained))
        else:
            pictures.append(Picture(path, _there(of_ids, path), every))
    return pictures


def _voc(folder: pathlib.Path, split: str, names: tuple[str, ...]) -> list[Picture]:
    listed = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listed.is_file():
        raise ValueError(
            f"expected the list of the images in {str(listed)!r}, got none: name a folder and a "
            "split of Pascal VOC, as VOCdevkit/VOC2012:train"
        )
    labels, pictures = labels_of(range(len(names))), []
    for name in _some(listed.read_text().split(), listed):
        path = folder / "JPEGImages" / f"{name}.jpg"
        if not path.is_file():
            raise ValueError(
                f"expected the image {name!r} of {str(listed)!r} at {str(path)!r}, got none: fetch "
                "it"
            )
        mask = folder / "SegmentationClass" / f"{name}.png"
        pictures.append(Picture(path, _there(mask, path), labels))
    return pictures


def _plain(folder: pathlib.Path, split: str, names: tuple[str, ...]) -> list[Picture]:
    images, labels = folder / split / "images", labels_of(range(len(names)))
    found = sorted(path for path in images.glob("*") if path.suffix.lower() in _IMAGES)
    masks = folder / split / "masks"
    return [
        Picture(path, _there(masks / f"{path.stem}.png", path), labels)
        for path in _some(found, images)
    ]


def _names(folder: pathlib.Path, usual: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the classes in classes.txt, or the usual ones."""
    file = folder / _CLASSES
    if not file.is_file() and usual:
        return usual
    names = file.read_text().splitlines() if file.is_file() else []
    names = tuple(line.strip() for line in names if line.strip())
    if not 2 <= len(set(names)) == len(names) <= 255:
        raise ValueError(
            f"expected 2 to 255 different names of classes in {str(file)!r}, got {len(names)}: "
            "write one a line, the first that of level 0 in the masks"
        )
    return names


def _some(found: list, where: pathlib.Path) -> list:
    if not found:
        raise ValueError(f"expected images in {str(where)!r}, got none: name another split")
    return found


def _there(mask: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    if not mask.is_file():
        raise ValueError(
            f"expected the mask of {str(path)!r} at {str(mask)!r}, got none: add it, or leave the "
            "image out"
        )
    return mask
