"""A pretraining run from its configuration to the exported backbone. Read it from top to bottom."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
import sys

import tensorflow as tf
import tf_keras as keras

from pic_tf import config as configuration
from pic_tf import plan, state_files, validation
from pic_tf.callbacks import (
    BrokenWatch,
    EventFiles,
    Interrupted,
    KeepState,
    MetricsFile,
    ProgressBar,
    RowHealth,
    last_figures,
)
from pic_tf.checkpoint import Checkpoints, metric_variables, restore_backbone
from pic_tf.config import Config
from pic_tf.data.broken import BrokenImages
from pic_tf.data.crops import Crop
from pic_tf.data.datasets import open_dataset
from pic_tf.data.order import SlidingWindow
from pic_tf.data.pipeline import find_unreadable, labelled_batches, pretraining_batches
from pic_tf.data.presets import augmentation_of
from pic_tf.data.sources import Source
from pic_tf.evals.exported import CHECKPOINTS, EXPORT
from pic_tf.evals.monitor import KnnMonitor, copy_weights
from pic_tf.evals.probe import LinearProbe
from pic_tf.export import export_backbone
from pic_tf.instances.lineage import Lineage
from pic_tf.instances.pager import Pager
from pic_tf.instances.pages import Pages
from pic_tf.lock import exclusive
from pic_tf.models.projection import projection_head
from pic_tf.models.resnet import resnet
from pic_tf.nan_guard import NanGuard
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.pic import PIC
from pic_tf.plots import plot_training
from pic_tf.replaced_file import replaced
from pic_tf.replicas import distribute, local_indices, numbers_of_workers, values_of
from pic_tf.strategy import describe as describe_devices
from pic_tf.strategy import is_chief, open_strategy, several_workers

_READ_AHEAD = 64  # more batches than the input pipeline prepares in advance
FLAGS_FILE, METRICS_FILE, PICTURE, LOCK_FILE = "flags.txt", "metrics.csv", "training.png", ".lock"
NAN_REPORTS = "nan_reports"
FIGURES = ("epoch", "loss", "accuracy", "knn", "probe")  # of the model card: what equal runs have in common
IMAGES_FILE = "images.json"  # beside a checkpoint: which images the rows belong to
TEXTS = (FLAGS_FILE, METRICS_FILE, IMAGES_FILE)  # what is beside a checkpoint
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# What the others see of a worker that is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run ended with.

    Attributes:
      step: updates applied.
      finished: False where a signal ended it early.
      export: folder of the SavedModel, None where it did not finish or another worker has it.
    """

    step: int
    finished: bool
    export: pathlib.Path | None


def open_data(
    config: Config, num_replicas: int = 1, plan_only: bool = False
) -> tuple[Config, Source | None, tuple[Source, Source | None] | None]:
    """Open the data sets and fill in what depends on them.

    What is left open is taken from the run in the output folder, if there is one to go on with.

    Args:
      config: the configuration.
      num_replicas: R.
      plan_only: take --num_instances where there is no data.

    Returns:
      (resolved configuration, training images, (images whose labels the monitors use, held-out ones or None)); no
      images where `plan_only` went without.

    Raises:
      ValueError: for data or a setting that cannot be used.
    """
    flagfile = pathlib.Path(config.output_dir) / FLAGS_FILE
    if flagfile.exists() and state_files.states(flagfile.parent / CHECKPOINTS):
        config = configuration.inherit(config, configuration.from_flagfile(str(flagfile)))
    if plan_only and config.num_instances and not (config.dataset == "digits" or os.path.isdir(config.dataset)):
        return validation.resolve(config, config.num_instances, num_replicas), None, None
    train, monitored = open_images(config, num_replicas)
    return validation.resolve(config, len(train), num_replicas), train, monitored


def open_images(config: Config, num_replicas: int = 1) -> tuple[Source, tuple[Source, Source | None]]:
    """Open the data sets, and see that the monitors and the output folder go with them.

    Args:
      config: the configuration.
      num_replicas: R.

    Returns:
      (training images, (images whose labels the monitors use, held-out ones or None)).

    Raises:
      ValueError: for data that cannot be used.
    """
    train, held_out = open_dataset(config.dataset, config.eval_dataset, config.max_broken)
    labelled = train
    if config.labelled_dataset:
        # Their classes number the held-out images too.
        labelled, held_out = open_dataset(config.labelled_dataset, config.eval_dataset, config.max_broken)
    if config.probe_batch_size:
        _check_probe(config, labelled, held_out, num_replicas)
    for source in (train, labelled, held_out):
        if source and source.folder and _resolved(config.output_dir).is_relative_to(_resolved(source.folder)):
            raise ValueError(
                f"expected --output_dir outside the folder of images {source.folder!r}, got {config.output_dir!r}: its "
                "pictures would be taken for images"
            )
    return train, (labelled, held_out)


def _check_probe(config: Config, labelled: Source, held_out: Source | None, num_replicas: int) -> None:
    size = config.probe_batch_size
    if labelled.labels is None or held_out is None or held_out.labels is None or not config.knn_every:
        raise ValueError(
            "expected labelled images, held-out ones and --knn_every for the linear probe (--probe_batch_size), got "
            "not all of them: name --labelled_dataset and --eval_dataset"
        )
    if size > len(labelled) or size % num_replicas:
        raise ValueError(
            f"expected --probe_batch_size of at most the {len(labelled)} labelled images, a multiple of the "
            f"{num_replicas} replicas, got {size}"
        )


def build_model(config: Config, strategy: tf.distribute.Strategy, probe_classes: int = 0) -> PIC:
    """The compiled model that a resolved configuration describes; its initial weights follow from the seed.

    With `probe_classes` it has a linear probe for so many classes.
    """
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(_POLICIES[config.precision])
    augmentation = augmentation_of(config.preset())
    on_device = config.augment_on == "device"
    rate = plan.learning_rates(config)
    lars = config.lars_trust_coefficient if config.optimizer == "lars" else None
    with strategy.scope():
        backbone = resnet(config.depth, config.stem, config.width)
        probe = None
        if probe_classes:
            probe = LinearProbe(backbone.output_shape[-1], probe_classes, config.probe_learning_rate)
        model = PIC(
            backbone,
            config.num_instances,
            config.num_negatives,
            config.head,
            config.hidden_dim,
            config.embedding_dim,
            config.temperature,
            config.similarity,
            config.weight_correction,
            config.min_row_norm,
            augment=(lambda groups: tuple(augmentation(*group) for group in groups)) if on_device else None,
            small_crops_move_rows=config.small_crops_move_rows,
            seed=config.seed,
            rows_on_device=plan.rows_on_device(config, strategy.num_replicas_in_sync),
            probe=probe,
        )
        model.compile(
            LazySGD(rate, config.momentum, config.weight_decay, plan.total_steps(config), trust_coefficient=lars),
            lamb(WarmupCosine(config.lamb_learning_rate, rate.total_steps, rate.warmup_steps), config)
            if config.optimizer == "lamb"
            else None,
            jit_compile=config.jit_compile,
            steps_per_execution=config.steps_per_execution,
        )
    keras.mixed_precision.set_global_policy("float32")
    return model


def lamb(rate: WarmupCosine, config: Config) -> keras.optimizers.Optimizer:
    """tensorflow-addons' LAMB (You et al. 2019, https://arxiv.org/abs/1904.00962)."""
    import tensorflow_addons as tfa

    plain = ["bias", "gamma", "beta"]
    return tfa.optimizers.LAMB(
        rate, weight_decay=config.weight_decay, exclude_from_weight_decay=plain, exclude_from_layer_adaptation=plain
    )


def plain_backbone(config: Config) -> keras.Model:
    """The backbone on one device and in float32, for weights that come from elsewhere."""
    return resnet(config.depth, config.stem, config.width)


def describe(config: Config, strategy: tf.distribute.Strategy) -> str:
    """The plan of a resolved configuration as text; builds its network, allocates no rows."""
    backbone = plain_backbone(config)
    head = projection_head(config.head, backbone.output_shape[-1], config.hidden_dim, config.embedding_dim)
    return plan.describe(config, backbone, head, describe_devices(strategy), strategy.num_replicas_in_sync)


def _resolved(path: str) -> pathlib.Path:
    return pathlib.Path(path).resolve()


def make_output_folder(config: Config) -> pathlib.Path:
    """Make the folder for what a run leaves, and that for rows on disk, and see that they can be written to.

    Args:
      config: the configuration.

    Returns:
      The folder.

    Raises:
      ValueError: where there cannot be such a folder.
    """
    output = pathlib.Path(config.output_dir)
    for folder in (*([rows_folder(config)] if config.instance_store == "disk" and config.rows_dir else []), output):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise ValueError(f"expected a folder to write to at {str(folder)!r}, got {error.strerror}") from error
    return output


def run(
    config: Config,
    train: Source,
    monitored: tuple[Source, Source | None],
    strategy: tf.distribute.Strategy,
    allow_changed_flags: bool = False,
) -> Result:
    """Train, or go on with what is in the output folder, and export the backbone.

    Args:
      config: resolved configuration.
      train: training images.
      monitored: images whose labels the monitors use, and held-out ones or None.
      strategy: from `set_up_tensorflow`. With several workers each calls this; the first one writes.
      allow_changed_flags: go on with a run that began with other flags, where its state fits.

    Returns:
      What the run ended with.

    Raises:
      ValueError: for an output folder of another run, or an image that cannot be read.
      FloatingPointError: where a loss or gradient is not finite, see --on_nan.
      ConnectionError: where another worker is gone.
      OSError: where the last checkpoint or the export could not be written.
    """
    output = make_output_folder(config)
    try:
        with exclusive(output / LOCK_FILE) if is_chief(strategy) else contextlib.nullcontext():
            found = _state_to_go_on_with(config, train, strategy, allow_changed_flags)
            return _train(config, train, monitored, strategy, found)
    except _LOST as error:
        if not several_workers(strategy):
            raise
        raise ConnectionError(
            "expected all workers to train together, lost one: start all again with the same command, and training "
            "goes on from the newest checkpoint"
        ) from error


def _state_to_go_on_with(
    config: Config, train: Source, strategy: tf.distribute.Strategy, allow_changed_flags: bool
) -> pathlib.Path | None:
    """The newest checkpoint that is well, if there is any, once it is clear that it belongs to this run.

    Damaged ones are set aside; the first worker looks for all.
    """
    directory, chief = pathlib.Path(config.output_dir) / CHECKPOINTS, is_chief(strategy)
    path = None
    if chief:
        state_files.remove_partial(directory)
        path, damaged = state_files.newest(directory)
        if damaged and path is None:
            raise ValueError(
                f"expected a good checkpoint in {str(directory)!r}, got {len(damaged)} damaged ones (the newest: "
                f"{next(iter(damaged.values()))}): bring one back, or move the folder away to begin anew"
            )
        for bad, reason in damaged.items():
            print(f"damaged checkpoint: {reason}; moved to {state_files.set_aside(bad)}", file=sys.stderr)
    step = int(numbers_of_workers(state_files.step_of(path) if path else 0, strategy)[0])
    if not step:
        return None
    path = state_files.states(directory).get(step)
    if path is None:
        raise ValueError(
            f"expected --output_dir {config.output_dir!r} to be one folder for all workers, got none of its "
            f"checkpoint of step {step:,} here: use a disk that all share"
        )
    images = json.loads(state_files.read_text(path, IMAGES_FILE))
    if images != identity(train):
        raise ValueError(
            f"expected the {images['count']:,} images of the run in {config.output_dir!r}, got {len(train):,} of which "
            "some have other names or places: their rows would go to the wrong images; bring the old ones back, or "
            "use another --output_dir"
        )
    changed = configuration.changed(configuration.from_flagfile(str(path / FLAGS_FILE)), config)
    if changed and not allow_changed_flags:
        raise ValueError(
            f"expected the flags of the run in {config.output_dir!r}, got {', '.join(changed)}: use another "
            "--output_dir, or --allow_changed_flags to go on with these"
        )
    if chief:
        print(f"resuming from step {step:,} of {plan.total_steps(config):,} ({path})")
        for flag in changed:
            print(f"changed: {flag}")
    return path


def _train(
    config: Config,
    train: Source,
    monitored: tuple[Source, Source | None],
    strategy: tf.distribute.Strategy,
    found: pathlib.Path | None,
) -> Result:
    """Train from the state found, or from the start."""
    output, chief, alone = pathlib.Path(config.output_dir), is_chief(strategy), not several_workers(strategy)
    labelled = monitored[0]
    if config.instance_store == "host" and not alone:
        raise ValueError("expected --instance_store=device or disk with several workers, got host: use disk")
    probe_classes = len(labelled.class_names) if config.probe_batch_size else 0
    model, plain = build_model(config, strategy, probe_classes), plain_backbone(config)
    pager = _pager(config, model, strategy)
    checkpoint_size = plan.checkpoint_size(config, plain, model.projection, strategy.num_replicas_in_sync)
    _check_room(config, checkpoint_size if chief else 0, pager, strategy)
    broken = BrokenImages(train, output / _broken_file(strategy))
    knn = _knn_monitor(config, model, plain, chief, *monitored)
    total, per_epoch = plan.total_steps(config), plan.steps_per_epoch(config)
    kept_for_good = config.keep_checkpoint_every * per_epoch
    checkpoints = Checkpoints(output / CHECKPOINTS, model, config.keep_checkpoints, kept_for_good, pager)
    step = checkpoints.restore(found) if found else 0
    if pager and not found:
        pager.open(0)
        pager.forget()
    within_epoch = values_of(metric_variables(model), strategy) if step % per_epoch else []
    orders = config.sliding_windows(strategy.num_replicas_in_sync)
    if chief:
        _begin_files(config, output, found)

    on_host = augmentation_of(config.preset()).of_one if config.augment_on == "host" else None

    def batches(replica: int, start_step: int, stop_step: int) -> tf.data.Dataset:
        return pretraining_batches(
            train,
            orders[replica],
            crops=config.views(),
            seed=config.seed,
            start_step=start_step,
            stop_step=stop_step,
            broken=broken,
            augment=on_host,
        )

    def with_labelled(replica: int, start_step: int, stop_step: int) -> tf.data.Dataset:
        of_run = batches(replica, start_step, stop_step)
        if not model.probe:
            return of_run
        n, replicas = len(labelled), strategy.num_replicas_in_sync
        of_probe = labelled_batches(
            labelled,
            SlidingWindow(n, config.probe_batch_size, n, n, config.seed + 1, replica, replicas),
            crop=Crop(config.image_size, config.crop_scale),
            seed=config.seed + 1,  # other crops than those of training
            start_step=start_step,
            stop_step=stop_step,
            broken=BrokenImages(labelled),
        )
        return tf.data.Dataset.zip((of_run, of_probe)).map(lambda run, probe: (*run, probe))

    bar = ProgressBar(total, step, config.batch_size, chief)
    reports, most = output / NAN_REPORTS, config.max_skipped_steps
    guard = NanGuard(config.on_nan, most, reports, train, batches, plan.learning_rates(config), chief)
    every = config.checkpoint_every
    images = json.dumps(identity(train))  # once: it looks at every name, or pixel
    state = KeepState(checkpoints, every, lambda: texts_beside(config, images), within_epoch, guard.look, alone)
    files = [MetricsFile(output / METRICS_FILE)] if chief else []
    if config.tensorboard:
        files += [RowHealth(), *([EventFiles(output / "tensorboard")] if chief else [])]
    # The rows of a window come before anything that keeps the state.
    callbacks = [
        bar,
        *([pager] if pager else []),
        BrokenWatch(broken, config.max_broken, alone),
        guard,
        *([knn] if knn else []),
        *files,
        state,
    ]

    def fit(step: int) -> None:
        """The rest of an epoch that was interrupted, or all that is left."""
        epoch, done = divmod(step, per_epoch)
        epochs = epoch + 1 if done else config.epochs
        model.fit(
            distribute(strategy, lambda replica, _: with_labelled(replica, step, epochs * per_epoch)),
            initial_epoch=epoch,
            epochs=epochs,
            steps_per_epoch=per_epoch - done,
            callbacks=callbacks,
            verbose=0,
        )

    with contextlib.ExitStack() as stack:
        for thing in (pager, checkpoints, bar):
            if thing:
                stack.callback(thing.close)
        stack.enter_context(state)
        try:
            while checkpoints.step < total:
                fit(checkpoints.step)
            if step < total:
                state.save()
        except Interrupted:
            checkpoints.wait()
            return Result(checkpoints.step, False, None)
        except tf.errors.ResourceExhaustedError:
            raise  # memory, not an image
        except tf.errors.OpError as error:
            if not alone and isinstance(error, _LOST):
                raise
            first = checkpoints.step  # the batches read ahead of this step hold the image
            steps = range(first, min(first + _READ_AHEAD, total))
            ids = (i for t in steps for order in orders for i in order.instance_ids(t).numpy())
            unreadable = find_unreadable(train, ids)
            if unreadable is None:
                raise
            # The step that failed has changed nothing; but with several replicas one may have begun it.
            if first and len(orders) == 1:
                state.save()
                checkpoints.wait()
            raise unreadable from error
        copy_weights(model.backbone, plain)
        checkpoints.wait()
    if not chief:
        return Result(total, True, None)
    references = {"raw pixels": knn.raw_pixels, "random init": knn.random_init} if knn else {}
    plot_training(output / METRICS_FILE, output / PICTURE, references)
    _export(config, plain, output / EXPORT, total, output / METRICS_FILE)
    return Result(total, True, output / EXPORT)


def export_run(run_dir: str, path: str, untrained: bool = False) -> int:
    """Export the backbone of a run's newest checkpoint.

    Args:
      run_dir: output folder of the run.
      path: folder to write the SavedModel to.
      untrained: export it as it was before the first step instead.

    Returns:
      The step of the checkpoint; 0 for the untrained one.

    Raises:
      ValueError: where there is no run or no checkpoint.
    """
    checkpoints = pathlib.Path(run_dir) / CHECKPOINTS
    found, damaged = state_files.newest(checkpoints)
    if found is None:
        got = f"{len(damaged)} damaged ones" if damaged else "none"
        raise ValueError(
            f"expected a checkpoint in {run_dir!r}, got {got}: name the output folder of a run that has reached "
            "--checkpoint_every"
        )
    config = configuration.from_flagfile(str(found / FLAGS_FILE))
    validation.check(config)
    keras.utils.set_random_seed(config.seed)  # an untrained one is what training began with
    plain, step = plain_backbone(config), 0
    if not untrained:
        restore_backbone(found, plain)
        step = state_files.step_of(found)
    _export(config, plain, path, step, found / METRICS_FILE)
    return step


def _export(config: Config, plain: keras.Model, path: str | os.PathLike, step: int, metrics: pathlib.Path) -> None:
    """Export the backbone, with a card of what decided its training and of the last figures."""
    flags = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.metadata["trajectory"]}
    training = {
        "dataset": pathlib.Path(config.dataset).name,
        "images": config.num_instances,
        "step": step,
        "total_steps": plan.total_steps(config),
        "figures": last_figures(metrics, FIGURES) if step else {},
        "flags": flags,
    }
    size = max(view.size for view in config.views())
    export_backbone(plain, path, trained_size=size, eval_crop=config.eval_crop, training=training)


def set_up_tensorflow(config: Config) -> tf.distribute.Strategy:
    """Threads, determinism and devices for the whole process; to be called before TensorFlow's first operation.

    Args:
      config: the configuration.

    Returns:
      The strategy.

    Raises:
      ValueError: for devices that are not there.
    """
    if config.intra_op_threads:
        tf.config.threading.set_intra_op_parallelism_threads(config.intra_op_threads)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return open_strategy(config.strategy, config.replicas)


def _pager(config: Config, model: PIC, strategy: tf.distribute.Strategy) -> Pager | None:
    """What moves rows between the devices and where they rest."""
    if config.instance_store == "device":
        return None
    in_memory, orders = config.instance_store == "host", config.sliding_windows(strategy.num_replicas_in_sync)
    pages = [Pages(order, config.num_negatives) for order in orders]
    here = [orders[replica] for replica in local_indices(strategy)]
    blocks = [Lineage(order, None if in_memory else rows_folder(config)) for order in here]
    return Pager(model.classifier, pages, blocks, strategy, in_memory)


def rows_folder(config: Config) -> pathlib.Path:
    """Where rows on disk are: in the output folder, or, in --rows_dir, in a folder named after it."""
    if not config.rows_dir:
        return pathlib.Path(config.output_dir) / "rows"
    output = _resolved(config.output_dir)
    return pathlib.Path(config.rows_dir) / f"{output.name}-{hashlib.sha256(os.fsencode(output)).hexdigest()[:12]}"


def _check_room(config: Config, size: int, pager: Pager | None, strategy: tf.distribute.Strategy) -> None:
    """Refuse a disk on which checkpoints of `size` bytes, 0 for none, or this worker's rows will not fit.

    Checkpoints to keep count, and one more while it is written.
    """
    output, keep = pathlib.Path(config.output_dir), config.keep_checkpoints
    will_go = list(state_files.states(output / CHECKPOINTS).values())[-keep:] if size else []
    checkpoints = (keep + 1) * size - sum(file.stat().st_size for path in will_go for file in path.iterdir())
    needed, rows = {output: checkpoints}, config.instance_store == "disk"
    if rows:
        folder = rows_folder(config)
        folder.mkdir(parents=True, exist_ok=True)
        own_share = len(local_indices(strategy)) / strategy.num_replicas_in_sync
        more = plan.rows_on_disk(config) * own_share - pager.bytes_there()
        same = os.stat(folder).st_dev == os.stat(output).st_dev
        needed = {output: checkpoints + more} if same else needed | {folder: more}
    for folder, size in needed.items():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise ValueError(
                f"expected {plan.as_text(size)} free in {str(folder)!r} for {keep + 1} checkpoints"
                f"{' and the rows' if rows else ''}, got {plan.as_text(free)}: make room, keep fewer "
                "(--keep_checkpoints), or use another --output_dir"
            )


def _begin_files(config: Config, output: pathlib.Path, found: pathlib.Path | None) -> None:
    """Flags and figures in the output folder as they were at the state found, whatever else is there."""
    with replaced(output / FLAGS_FILE) as file:
        file.write(configuration.to_flagfile(config))
    (output / METRICS_FILE).unlink(missing_ok=True)
    if found:
        with replaced(output / METRICS_FILE) as file:
            file.write(state_files.read_text(found, METRICS_FILE))


def texts_beside(config: Config, images: str) -> dict[str, str]:
    """What is kept beside a checkpoint, so that it needs nothing else."""
    metrics = pathlib.Path(config.output_dir) / METRICS_FILE
    return {
        FLAGS_FILE: configuration.to_flagfile(config),
        METRICS_FILE: metrics.read_text() if metrics.exists() else "",
        IMAGES_FILE: images,
    }


def identity(train: Source) -> dict[str, str | int]:
    """Which images the ids stand for."""
    return {"count": len(train), "fingerprint": train.fingerprint()}


def _broken_file(strategy: tf.distribute.Strategy) -> str:
    """Each worker lists the broken images that it meets."""
    return "broken_images.csv" if is_chief(strategy) else f"broken_images_{strategy.cluster_resolver.task_id}.csv"


def _knn_monitor(
    config: Config, model: PIC, plain: keras.Model, chief: bool, labelled: Source, held_out: Source | None
) -> KnnMonitor | None:
    if not config.knn_every:
        return None
    if labelled.labels is None or held_out is None or held_out.labels is None:
        if not chief:
            return None
        print(
            "kNN monitor: off, it needs training images in one folder a class (or --labelled_dataset) and held-out "
            "ones likewise (--eval_dataset, or train and val inside --dataset)",
            file=sys.stderr,
        )
        return None
    return KnnMonitor(
        model.backbone,
        plain,
        chief,
        labelled,
        held_out,
        every=config.knn_every,
        epochs=config.epochs,
        image_size=config.image_size,
        eval_crop=config.eval_crop,
        images=config.knn_images,
        k=config.knn_k,
        temperature=config.knn_temperature,
        max_broken=config.max_broken,
        seed=config.seed,
        probe=model.probe,
    )
