"""Find data sets prepared on this machine by TensorFlow Datasets, and their features.

Nothing is downloaded: where something is missing, the error names the command that makes it.
TensorFlow Datasets is imported when a data set is looked for, not before.
"""

import difflib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pic_tf.data.sources.formats import NAMES
from pic_tf.data.sources.records import RecordFile

_VERSION = r":(?:\d+|\*)(?:\.(?:\d+|\*)){2}"


def parse(text: str) -> tuple[str, str | None]:
    """Split NAME or NAME:SPLIT into (name, split or None).

    NAME may hold a version, as in "cifar10:3.0.2:train[:90%]".
    """
    return re.fullmatch(rf"([^:]*(?:{_VERSION})?)(?::(.*))?", text, re.DOTALL).groups()


def held_out_split(name: str) -> str | None:
    """Choose the split to evaluate on: "validation", else "test", else None.

    Args:
      name: as of `open_tfds`, whose errors about it are raised here as well.
    """
    splits = _builder(name).info.splits
    return next((split for split in ("validation", "test") if split in splits), None)


def _builder(name: str) -> Any:
    """Find the tfds.core.DatasetBuilder of a data set prepared here, without the network."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming, read_only_builder
    from tensorflow_datasets.core.utils import file_utils

    folder = pathlib.Path(name).expanduser()
    if (folder / "dataset_info.json").is_file():
        return tfds.builder_from_directory(folder)
    places = ", ".join(str(place) for place in file_utils.list_data_dirs())
    if naming.is_valid_dataset_name(name):
        try:
            # Of whatever version; tfds.builder insists on its own.
            return read_only_builder.builder_from_files(name)
        except tfds.core.DatasetNotFoundError:
            pass
        except ValueError as error:
            raise ValueError(
                f"expected {name!r} in one place, got it in several of {places}: "
                "name one of the folders instead"
            ) from error
    known = tfds.list_builders(with_community_datasets=False)
    plain = re.split("[/:]", name)[0]
    if plain in known:
        raise ValueError(
            f"expected {name!r} prepared in {places}, got nothing there: set TFDS_DATA_DIR to "
            "where it is, or prepare it with `pip install importlib_resources` and "
            '`python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder({name!r}, file_format='array_record').download_and_prepare()\"`"
        )
    catalog = "https://www.tensorflow.org/datasets/catalog"
    close = difflib.get_close_matches(plain, known) or [catalog]
    raise ValueError(
        f"expected a data set that TensorFlow Datasets knows, one prepared in {places}, or a "
        f"folder with a dataset_info.json, such as /data/cifar10/3.0.2, got {name!r}: "
        f"see {', '.join(close)}"
    )


def array_record_builder(name: str) -> Any:
    """Find the tfds.core.DatasetBuilder of a data set in ArrayRecord files.

    No other files are read at random.

    Args:
      name: as of `tfds_source.open_tfds`.

    Raises:
      ValueError: for one that is unknown, not prepared, or in other files.
    """
    builder = _builder(name)
    folder, info = str(builder.data_dir), builder.info
    formats = {file_format.value for file_format in info.available_file_formats()}
    if "array_record" not in formats:
        # tfds 4.9.10 imports what pip brings here and above, but does not require it.
        raise ValueError(
            f"expected {name!r} in ArrayRecord files, got {', '.join(sorted(formats))} in "
            f"{folder!r}: convert it with `pip install apache-beam mlcroissant` and "
            f"`tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record`"
        )
    info.set_file_format("array_record", override=True, override_if_initialized=True)
    return builder


def record_files(splits: Any, name: str, split: str) -> list[RecordFile]:
    """List the files of a split.

    Args:
      splits: tfds.core.SplitDict of the data set.
      name: name of the data set in messages.
      split: such as "train" or "train[:90%]+test".

    Raises:
      ValueError: for a split that is unknown or empty.
    """
    try:
        found = splits[split].file_instructions
        files = [RecordFile(str(x.filename), x.skip, x.take, x.examples_in_shard) for x in found]
    except (ValueError, KeyError, AssertionError) as error:
        known = [f"{key} ({value.num_examples:,} records)" for key, value in splits.items()]
        raise ValueError(
            f"expected a split of {name!r}, got {split!r}: "
            f"name one of {', '.join(known)}, or a part such as 'train[:90%]'"
        ) from error
    if not files:
        raise ValueError(f"expected images in {split!r} of {name!r}, got none: name a larger part")
    return files


def image_feature(features: Mapping[str, Any], name: str) -> str:
    """Find the one image in the records of a data set, or that named "image".

    Args:
      features: tfds.features.FeaturesDict.
      name: name of the data set in messages.

    Raises:
      ValueError: for no image, several, or pixels that are no whole numbers.
    """
    import tensorflow_datasets as tfds

    images = {key: x for key, x in features.items() if isinstance(x, tfds.features.Image)}
    image = _only(images, "image")
    if image is None:
        others = sorted((images or features).items())
        got = ", ".join(f"{key!r} ({type(x).__name__})" for key, x in others)
        raise ValueError(
            f"expected one Image in the records of {name!r}, or one that is called 'image', got "
            f"{got}: choose another data set, or another configuration of it"
        )
    dtype = np.dtype(features[image].np_dtype)
    # The bytes of floats would be hidden in the colours of a PNG.
    if not np.issubdtype(dtype, np.integer):
        raise ValueError(
            f"expected {NAMES} images in {image!r} of {name!r}, "
            f"got pixels of {dtype.name}: choose another data set"
        )
    return image


def label_feature(features: Mapping[str, Any]) -> str | None:
    """Find the one label in the records of a data set, or that named "label"; None for none.

    Args:
      features: tfds.features.FeaturesDict.
    """
    import tensorflow_datasets as tfds

    labels = {key: x for key, x in features.items() if isinstance(x, tfds.features.ClassLabel)}
    return _only(labels, "label")


def _only(found: dict[str, Any], preferred: str) -> str | None:
    """The one key, or the preferred one of several."""
    if len(found) == 1:
        return next(iter(found))
    return preferred if preferred in found else None
