"""Open the images of a run, and resolve the settings that depend on them."""

import dataclasses
import pathlib

import numpy as np

from pic_tf.data.channel_statistics import measure_normalisation
from pic_tf.data.sources.joined import parts_of
from pic_tf.data.sources.named import describe, is_there, open_dataset
from pic_tf.data.sources.pixel_format import RGB
from pic_tf.data.sources.source import Source
from pic_tf.runs import checkpoint_files
from pic_tf.runs.initial_weights import with_fingerprint
from pic_tf.runs.run_folder import CHECKPOINTS, FLAGS_FILE, resolved
from pic_tf.settings import check, defaults, flag_files
from pic_tf.settings.config import Config


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of a run.

    Attributes:
      train: training images.
      labelled: images whose labels the monitors use.
      held_out: labelled images for the monitors to classify; None without any.
    """

    train: Source
    labelled: Source
    held_out: Source | None

    def describe(self) -> list[str]:
        """Describe in lines what was found."""
        if self.labelled is self.train:
            return [describe(self.train, self.held_out)]
        apart = f"{describe(self.labelled, self.held_out)}, for the monitors"
        return [describe(self.train, None), apart]


def open_data(
    config: Config, num_replicas: int = 1, plan_only: bool = False
) -> tuple[Config, Images | None]:
    """Open the data sets, and resolve the settings that depend on them.

    Settings left open are taken from the run in the output folder, if there is one to go on with.

    Args:
      config: the configuration.
      num_replicas: R.
      plan_only: take --num_instances where there is no data.

    Returns:
      (resolved configuration, images; None where `plan_only` went without).

    Raises:
      ValueError: for data or a setting that cannot be used.
    """
    # Of a checkpoint: a try with other flags that ended before its first has left its flags.txt.
    checkpoints = pathlib.Path(config.output_dir) / CHECKPOINTS
    if flagfile := checkpoint_files.newest_text(checkpoints, FLAGS_FILE):
        config = flag_files.inherit(config, flag_files.from_flagfile(str(flagfile)))
    if config.initial_weights and not plan_only:
        config = with_fingerprint(config)
    if plan_only and config.num_instances and not is_there(config.dataset):
        return defaults.resolve(config, config.num_instances, num_replicas), None
    images = open_images(config, num_replicas)
    if config.pixels != RGB and config.channel_mean is None and not plan_only:
        config = _with_normalisation(config, images.train)
    return defaults.resolve(config, len(images.train), num_replicas), images


def _with_normalisation(config: Config, train: Source) -> Config:
    """Measure mean and deviation of each channel of the training images."""
    check.check(config)
    mean, stddev = measure_normalisation(train, config.image_size, config.max_broken)
    return dataclasses.replace(config, channel_mean=mean, channel_stddev=stddev)


def open_images(config: Config, num_replicas: int = 1) -> Images:
    """Open the data sets, and check that the monitors and the output folder go with them.

    Args:
      config: the configuration.
      num_replicas: R.

    Returns:
      The images.

    Raises:
      ValueError: for data that cannot be used.
    """
    rest = config.eval_dataset, config.max_broken, config.split_folders, config.pixels
    train, held_out = open_dataset(config.dataset, *rest)
    labelled = train
    if name := config.labelled_dataset:
        # Their classes number the held-out images too.
        labelled, held_out = open_dataset(name, *rest)
    check_labels(config, labelled, held_out, num_replicas)
    output = resolved(config.output_dir)
    opened = [part for source in (train, labelled, held_out) for part in parts_of(source)]
    for source in opened:
        if source and source.folder and output.is_relative_to(resolved(source.folder)):
            raise ValueError(
                f"expected --output_dir outside the folder of images {source.folder!r}, got "
                f"{config.output_dir!r}: its pictures would be taken for images"
            )
    return Images(train, labelled, held_out)


def check_labels(
    config: Config, labelled: Source, held_out: Source | None, num_replicas: int = 1
) -> None:
    """Refuse a comparison that needs labels where they are missing, or no monitor uses them.

    Args:
      config: the configuration.
      labelled: images to learn from.
      held_out: images to classify; None without any.
      num_replicas: R.

    Raises:
      ValueError: where they do not go together.
    """
    unlabelled = held_out is None or labelled.labels is None or held_out.labels is None
    size, wanted = config.probe_batch_size, []
    wanted += ["the linear probe (--probe_batch_size)"] if size else []
    wanted += ["--label_curve"] if config.label_curve else []
    if wanted and (unlabelled or not config.knn_every):
        raise ValueError(
            "expected labelled images, held-out ones and --knn_every for "
            f"{' and '.join(wanted)}, got not all of them: name --labelled_dataset and "
            "--eval_dataset"
        )
    if config.label_curve and len(np.unique(labelled.labels)) < 2:
        raise ValueError(
            "expected labelled images of at least 2 classes for --label_curve, got 1: leave it out"
        )
    if size > len(labelled) or size % num_replicas:
        raise ValueError(
            f"expected --probe_batch_size of at most the {len(labelled)} labelled images, "
            f"a multiple of the {num_replicas} replicas, got {size}"
        )


def identity(train: Source) -> dict[str, str | int]:
    """Identify the images behind the ids."""
    return {"count": len(train), "fingerprint": train.fingerprint()}
