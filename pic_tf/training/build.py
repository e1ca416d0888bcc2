"""Build the compiled model, the pager and the monitors of a configuration."""

import dataclasses
import pathlib
import sys

import tensorflow as tf
import tf_keras as keras

from pic_tf.data.augment import Augmentation
from pic_tf.data.crops import Crop
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.order import SlidingWindow
from pic_tf.data.presets import augmentation_of
from pic_tf.data.sources.shared import in_both
from pic_tf.data.sources.source import Source
from pic_tf.evals.feature_health import ViewPairs
from pic_tf.evals.monitor import FeatureMonitor
from pic_tf.evals.some_images import SomeImages
from pic_tf.instances.guarded_model import GuardedModel
from pic_tf.instances.paging.pager import Pager
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.instances.paging.segments import BlockStore
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.replicas.collectives import local_indices
from pic_tf.replicas.devices import is_chief
from pic_tf.runs.checkpoint import Checkpoints
from pic_tf.runs.open_data import Images
from pic_tf.runs.room import check_room
from pic_tf.runs.run_folder import CHECKPOINTS, broken_file
from pic_tf.settings import quantities
from pic_tf.settings.config import Config
from pic_tf.settings.networks import plain_backbone
from pic_tf.training.inputs import Inputs
from pic_tf.training.model import build_model


@dataclasses.dataclass(frozen=True)
class Parts:
    """Parts of a run.

    Attributes:
      model: compiled model.
      plain_backbone: copy of the backbone for evaluation and export, on one device, in float32.
      pager: mover of rows between device and disk; None where all of them are on the device.
      checkpoints: of the model.
      inputs: batches.
      monitor: of the features; None without one.
      learning_rate: of a step.
      epochs: of the whole run.
      frozen_epochs: of these, those at the beginning in which the backbone is frozen.
    """

    model: GuardedModel
    plain_backbone: keras.Model
    pager: Pager | None
    checkpoints: Checkpoints
    inputs: Inputs
    monitor: FeatureMonitor | None
    learning_rate: WarmupCosine
    epochs: int
    frozen_epochs: int = 0

    @property
    def total_steps(self) -> int:
        """T, updates of the whole run."""
        return self.learning_rate.total_steps

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch, floor(N / B)."""
        return self.total_steps // self.epochs

    @property
    def frozen_steps(self) -> int:
        """Steps at the beginning in which the backbone is frozen."""
        return self.frozen_epochs * self.steps_per_epoch


def build(
    config: Config,
    rate: WarmupCosine,
    images: Images,
    output: pathlib.Path,
    rows: pathlib.Path,
    strategy: tf.distribute.Strategy,
) -> Parts:
    """Build all parts of a run, and see that the disk has room for their files.

    Args:
      config: resolved configuration.
      rate: learning rate of all that has no optimizer of its own.
      images: the images of the run.
      output: its output folder.
      rows: its folder of rows on disk.
      strategy: devices.

    Returns:
      The parts.

    Raises:
      ValueError: for a disk without room.
    """
    replicas, chief = strategy.num_replicas_in_sync, is_chief(strategy)
    orders, schedules = config.sliding_windows(replicas), []
    if config.instance_store == "disk":
        schedules = [WindowSchedule(order, config.num_negatives) for order in orders]
    rows_on_device = schedules[0].rows_on_device if schedules else None
    probe_classes = len(images.labelled.class_names) if config.probe_batch_size else 0
    model = build_model(config, rate, strategy, rows_on_device, probe_classes)
    plain = plain_backbone(config)
    size, rows_size, pager = 0, 0, None
    if chief:
        size = quantities.checkpoint_size(config, plain, model.projection, replicas)
    if schedules:
        stores = [BlockStore(orders[replica], rows) for replica in local_indices(strategy)]
        pager = Pager(model.classifier, schedules, stores, strategy)
        own_share = len(stores) / replicas
        rows_size = quantities.rows_on_disk(config) * own_share - pager.bytes_there()
    check_room(output, config.keep_checkpoints, size, rows if pager else None, rows_size)
    checkpoints = Checkpoints(
        output / CHECKPOINTS,
        model,
        config.keep_checkpoints,
        config.keep_checkpoint_every * (rate.total_steps // config.epochs),
        pager,
    )
    inputs = _inputs(config, orders, images, output / broken_file(strategy))
    monitor = _monitor(config, model, plain, chief, images)
    epochs = config.epochs, config.freeze_backbone_epochs
    return Parts(model, plain, pager, checkpoints, inputs, monitor, rate, *epochs)


def _inputs(
    config: Config, orders: list[SlidingWindow], images: Images, broken: pathlib.Path
) -> Inputs:
    return Inputs(
        images.train,
        orders,
        config.views(),
        config.seed,
        BrokenImages(images.train, broken),
        _augmentation(config).of_one if config.augment_on == "host" else None,
        images.labelled if config.probe_batch_size else None,
        config.probe_batch_size,
        Crop(config.image_size, config.crop_scale),
        config.normalisation,
    )


def _monitor(
    config: Config, model: GuardedModel, plain: keras.Model, chief: bool, images: Images
) -> FeatureMonitor | None:
    """Make the monitor; say where kNN lacks labels, or images held out."""
    if not config.knn_every:
        return None
    labelled, held_out = images.labelled, images.held_out
    with_labels = not (labelled.labels is None or held_out is None or held_out.labels is None)
    if chief and not with_labels:
        print(
            "kNN monitor: off, it needs training images in one folder a class (or "
            "--labelled_dataset) and held-out ones likewise (--eval_dataset, or train and val "
            "inside --dataset)",
            file=sys.stderr,
        )
    elif chief and (shared := in_both(labelled, held_out)):
        print(
            f"warning: held-out images are among the labelled ones, {len(shared):,} such as "
            f"{shared[0]!r}: they find themselves, and kNN means nothing; name others with "
            "--eval_dataset",
            file=sys.stderr,
        )

    def some(source: Source) -> SomeImages:
        return SomeImages(
            source,
            config.knn_images,
            config.seed,
            image_size=config.image_size,
            eval_crop=config.eval_crop,
            max_broken=config.max_broken,
        )

    return FeatureMonitor(
        model.backbone,
        plain,
        chief,
        some(labelled if with_labels else images.train),
        some(held_out) if with_labels else None,
        ViewPairs(images.train, config.views()[0], _augmentation(config), config.seed),
        every=config.knn_every,
        epochs=config.epochs,
        k=config.knn_k,
        temperature=config.knn_temperature,
        label_counts=config.label_counts,
        probe=model.probe,
        beginning="initial weights" if config.initial_weights else "random network",
        normalisation=config.normalisation,
    )


def _augmentation(config: Config) -> Augmentation:
    return augmentation_of(config.preset(), config.normalisation)
