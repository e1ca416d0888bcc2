"""Pack images into a few large files: quick to find, read at random, and little to decode.

    python tools/pack.py --source=FOLDER --output=PACKED
    python tools/pack.py --source=tfds:NAME --output=PACKED
    python tools/pack.py --source=train.zip --map=train_map.txt --output=PACKED
    python tools/pack.py --source='shard-{000..009}.tar' --output=PACKED
    python tools/pack.py --source=gs://BUCKET/FOLDER --output=PACKED
    python tools/pack.py --verify --output=PACKED

FOLDER is nested as you like; where all images lie in sub-folders, of which there are two at least,
the first names the class. With `train` and `val`, `validation` or `test` inside (--split_folders),
or with train.zip, train_map.txt, val.zip and val_map.txt, PACKED/train and PACKED/val are made.
Every file is tried, in any format that Pillow reads; what is no image, or a damaged one, is named
in left_out.csv.

Tar files are WebDataset's: the members of a sample stand together, an image with .cls or .json
(`label` or `class` in it) beside it. gs:// needs the package gcsfs, s3:// needs s3fs; other
addresses are those of fsspec.

JPEGs, PNGs and WebPs whose short side is at most --short_side stay as they are, or become PNGs of
the same picture (GIFs, alpha, palettes, CMYK, animations). All others are shrunk to it and stored
as JPEGs of --quality. What the quality costs, on 200 photographs of ImageNet (short
side 256, mean size of the originals 117 KB), against the pictures before they were compressed:

    --quality    mean size    PSNR       decoding
    85             21.6 KB    35.8 dB    0.82 ms
    90             26.9 KB    37.2 dB    0.82 ms
    95             38.3 KB    39.3 dB    1.02 ms

The same command goes on with a packing that was stopped, and appends images that are new; the ids
of those that are packed never change.

Exit codes: 0 done; 1 wrong input, a packing that cannot go on, or a damaged data set; 130 stopped
by Ctrl-C.
"""

import os
import pathlib
from concurrent.futures.process import BrokenProcessPool

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.data.packing.processes import pack_source
from pic_tf.data.packing.verify import verify
from pic_tf.data.sources.layout import SPLIT_FOLDERS
from pic_tf.data.sources.pixel_format import BIT_DEPTHS, PixelFormat
from pic_tf.files import command_line


def main() -> int:
    values = flags.FLAGS
    output, workers = pathlib.Path(values.output), values.workers or os.cpu_count()
    try:
        if values.verify:
            verify(output, workers)
        elif not values.source:
            raise ValueError(
                "expected --source, got none: name a folder of images, a zip file, tar files or "
                "tfds:NAME"
            )
        else:
            names = ("short_side", "quality", "images_per_shard", "split_folders")
            settings = {name: values[name].value for name in names}
            pixels = PixelFormat(values.channels, values.bit_depth)
            if values.bit_depth not in BIT_DEPTHS:
                raise ValueError(f"expected --bit_depth=8 or 16, got {values.bit_depth}")
            rest = {"workers": workers, "pixels": pixels, **settings}
            parts = pack_source(values.source, values.map, output, **rest)
            for packed in parts:
                print(packed, flush=True)
    except BrokenProcessPool as error:
        raise ValueError(
            "expected all processes to go on, "
            "got one that ended by itself, often for want of memory: "
            "the same command goes on from what is packed, --workers=1 needs the least memory"
        ) from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is packed")
        return command_line.INTERRUPTED
    return 0


def define_flags() -> None:
    flags.DEFINE_string(
        "source",
        "",
        "Images to pack: a folder, a zip file with --map, WebDataset's tar files (shard-000.tar, "
        "'shard-{000..009}.tar' or 'shard-*.tar'), or tfds:NAME[:SPLIT]. Folder and tar files may "
        "be in a bucket: gs://..., s3://....",
    )
    flags.DEFINE_string(
        "map", "", "Text file for a zip file, with a line NAME<tab>LABEL_NUMBER for each image."
    )
    flags.DEFINE_enum(
        "split_folders",
        "auto",
        SPLIT_FOLDERS,
        "Folders such as train and val inside of --source: parts, each to be packed for itself "
        "(auto), or classes as all others (none). Folders that can be read in both ways are "
        "refused with auto.",
    )
    flags.DEFINE_string(
        "output", None, "Folder of the packed data set, to make or to append to.", required=True
    )
    flags.DEFINE_integer(
        "short_side",
        256,
        "Short side in pixels to shrink larger images to; 0 to keep the sizes.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "quality",
        90,
        "Quality of the JPEGs that are made, 1 to 100.",
        lower_bound=1,
        upper_bound=100,
    )
    flags.DEFINE_integer(
        "channels",
        3,
        "Channels of the images, 1 to 256. Into 3 channels of 8 bits all files are made; for "
        "others, files that differ are left out.",
        lower_bound=1,
        upper_bound=256,
    )
    flags.DEFINE_integer(
        "bit_depth",
        8,
        "Bits of a level of the images, 8 or 16; as for --channels.",
        lower_bound=8,
        upper_bound=16,
    )
    flags.DEFINE_integer(
        "images_per_shard", 8192, "Largest number of images in a file.", lower_bound=1
    )
    flags.DEFINE_integer("workers", 0, "Number of processes; 0 for one a core.", lower_bound=0)
    flags.DEFINE_bool(
        "verify",
        False,
        "Read all of --output and compare it with its checksums, instead of packing.",
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main, no_room="what is packed stays; make room, and the same command goes on")
