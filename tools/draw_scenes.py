"""Draw scenes with known objects: digits on pieces of photographs, in the folders of Pascal VOC.

    python tools/draw_scenes.py --photographs=FOLDER --output=SCENES --train=400 --test=100
    python -m pic_tf.evaluate --protocol=voc_detection --model=RUN --dataset=SCENES:train ...

A detector can be tried on them in minutes. Boxes and masks are exact, and no two objects touch:
JPEGImages, Annotations (boxes), SegmentationClass (masks: 0 for the background, 1 + the number of
the class), classes.txt (their names), ImageSets. The same seed gives the same scenes.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags
from PIL import Image
from sklearn.datasets import load_digits

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.data.sources.folder import open_folder
from pic_tf.files import command_line

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TRIES = 50  # places to try for an object
_INK = 0.5  # level of a digit's pixel from which on it covers the background


class Scene(NamedTuple):
    """An image with objects.

    Attributes:
      image: uint8 [size, size, 3].
      boxes: int [n, 4], edges (x1, y1, x2, y2) in pixels.
      digits: int [n].
      mask: uint8 [size, size], 0 for the background, 1 + the digit.
    """

    image: np.ndarray
    boxes: np.ndarray
    digits: np.ndarray
    mask: np.ndarray


def draw_scene(
    photograph: Image.Image,
    samples: dict[int, np.ndarray],
    size: int,
    most: int,
    rng: np.random.Generator,
) -> Scene:
    """Paste 1 to `most` digits on a piece of a photograph.

    Args:
      photograph: in colours.
      samples: digit -> float [n, 8, 8] in [0, 1], scans of it.
      size: side of the scene in pixels.
      most: largest number of objects.
      rng: source of all draws.

    Returns:
      The scene.
    """
    width, height = photograph.size
    side = int(rng.integers(min(width, height) // 2, min(width, height) + 1))
    x, y = (int(rng.integers(0, extent - side + 1)) for extent in (width, height))
    piece = photograph.resize([size, size], Image.Resampling.BILINEAR, (x, y, x + side, y + side))
    image = np.asarray(piece).astype(np.float64)
    mask, boxes, digits = np.zeros([size, size], np.uint8), [], []
    for _ in range(int(rng.integers(1, most + 1))):
        digit = int(rng.choice(list(samples)))
        scan = samples[digit][rng.integers(len(samples[digit]))]
        ink = _enlarged(scan, int(rng.integers(size // 4, size // 2 + 1)))
        colour = rng.choice([0.0, 255.0], 3)
        for _ in range(_TRIES):
            left, top = (int(rng.integers(0, size - extent + 1)) for extent in ink.shape[::-1])
            place = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
            margin = np.s_[
                max(top - 1, 0) : top + ink.shape[0] + 1, max(left - 1, 0) : left + ink.shape[1] + 1
            ]
            if not mask[margin].any():
                image[place] = np.where(ink[..., None], colour, image[place])
                mask[place] = np.where(ink, digit + 1, mask[place])
                boxes.append([left, top, left + ink.shape[1], top + ink.shape[0]])
                digits.append(digit)
                break
    return Scene(image.astype(np.uint8), np.array(boxes), np.array(digits), mask)


def _enlarged(scan: np.ndarray, side: int) -> np.ndarray:
    """bool mask of a scan that is `side` pixels wide, cut to its ink."""
    picture = Image.fromarray(scan.astype(np.float32))
    ink = np.asarray(picture.resize([side, side], Image.Resampling.BICUBIC)) > _INK
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def write_scene(scene: Scene, folder: pathlib.Path, name: str) -> None:
    """Write a scene as VOC does: corners count from 1 and belong to the box."""
    size = len(scene.image)
    Image.fromarray(scene.image).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
    Image.fromarray(scene.mask).save(folder / "SegmentationClass" / f"{name}.png")
    objects = "".join(
        f"<object><name>{NAMES[digit]}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for (x1, y1, x2, y2), digit in zip(scene.boxes.tolist(), scene.digits)
    )
    (folder / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename><size><width>{size}</width>"
        f"<height>{size}</height><depth>3</depth></size>\n{objects}</annotation>\n"
    )


def draw_scenes(
    photographs: str,
    output: pathlib.Path,
    counts: dict[str, int],
    digits: list[int],
    size: int,
    most: int,
    seed: int,
) -> str:
    """Draw scenes, every split from photographs and scans of its own.

    Args:
      photographs: folder of images.
      output: folder to write; it must be new.
      counts: split -> number of scenes.
      digits: digits to paste.
      size, most: as of `draw_scene`.
      seed: seed of all draws.

    Returns:
      A line about the folder.

    Raises:
      ValueError: for a folder that is there already, or fewer photographs than splits.
    """
    source = open_folder(photographs)
    if len(source) < len(counts):
        raise ValueError(
            f"expected at least {len(counts)} photographs in {photographs!r}, got {len(source)}"
        )
    if output.exists():
        raise ValueError(f"expected a new folder as --output, got {str(output)!r}: name another")
    for part in (
        "JPEGImages",
        "Annotations",
        "SegmentationClass",
        "ImageSets/Main",
        "ImageSets/Segmentation",
    ):
        (output / part).mkdir(parents=True)
    (output / "classes.txt").write_text("".join(f"{name}\n" for name in ("background", *NAMES)))
    scans = load_digits()
    for number, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng([seed, number])
        samples = {
            digit: scans.images[scans.target == digit][number :: len(counts)] / 16
            for digit in digits
        }
        names = [f"{split}_{i:05d}" for i in range(count)]
        for name in names:
            i = number + len(counts) * int(
                rng.integers((len(source) - number - 1) // len(counts) + 1)
            )
            with Image.open(source.path(i)) as photograph:
                scene = draw_scene(photograph.convert("RGB"), samples, size, most, rng)
            write_scene(scene, output, name)
        for task in ("Main", "Segmentation"):
            listed = "".join(f"{name}\n" for name in names)
            (output / "ImageSets" / task / f"{split}.txt").write_text(listed)
    total = ", ".join(f"{count:,} of {split}" for split, count in counts.items())
    return f"scenes: {total}: {output}"


def main() -> None:
    values = flags.FLAGS
    counts = {"train": values.train, "test": values.test}
    digits = [int(digit) for digit in values.digits]
    if not digits or set(digits) - set(range(10)):
        raise ValueError(f"expected --digits from 0 to 9, got {','.join(values.digits)}")
    sizes = (values.size, values.most, values.seed)
    print(draw_scenes(values.photographs, pathlib.Path(values.output), counts, digits, *sizes))


def define_flags() -> None:
    flags.DEFINE_string("photographs", None, "Folder of photographs.", required=True)
    flags.DEFINE_string("output", None, "Folder to write; it must be new.", required=True)
    flags.DEFINE_integer("train", 400, "Number of training scenes, >= 1.", lower_bound=1)
    flags.DEFINE_integer("test", 100, "Number of test scenes, >= 0.", lower_bound=0)
    flags.DEFINE_list("digits", ["0", "1", "4"], "Digits to paste, separated by commas.")
    flags.DEFINE_integer("size", 64, "Side of a scene in pixels, 32 to 4096.", 32, 4096)
    flags.DEFINE_integer("most", 3, "Largest number of objects in a scene, >= 1.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of all draws, >= 0.", lower_bound=0)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
