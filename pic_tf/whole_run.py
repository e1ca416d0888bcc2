"""Take a run from its configuration to its pictures: check, open the images, plan, train, draw."""

from collections.abc import Sequence

import tf_keras as keras

from pic_tf.look.nearest_images import draw_nearest
from pic_tf.look.settings import RetrievalSettings
from pic_tf.replicas.devices import is_chief, set_up_tensorflow
from pic_tf.runs import open_data, run_folder
from pic_tf.settings import check, networks
from pic_tf.settings.config import Config
from pic_tf.training import loop


def start(
    config: Config,
    *,
    plan_only: bool = False,
    allow_changed_flags: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> loop.Result | None:
    """Train, or go on with the run in the output folder; print the plan before and a line after.

    Args:
      config: configuration, with None where a value depends on the data set.
      plan_only: print the plan and stop.
      allow_changed_flags: as of `loop.run`.
      callbacks: as of `loop.run`.

    Returns:
      End of the run; None behind a plan.

    Raises:
      ValueError, FloatingPointError, ConnectionError, OSError: as `loop.run`.
    """
    check.check(config)
    strategy = set_up_tensorflow(
        config.strategy, config.replicas, config.intra_op_threads, config.deterministic
    )
    config, images = open_data.open_data(config, strategy.num_replicas_in_sync, plan_only)
    chief = is_chief(strategy)
    if not plan_only:
        run_folder.make_output_folder(config.output_dir, config.rows_elsewhere)
    if chief:
        found = images.describe() if images else ()
        print(networks.describe(config, strategy, found), flush=True)
    if plan_only:
        return None
    result = loop.run(config, images, strategy, allow_changed_flags, callbacks)
    if not result.finished:
        print(f"stopped at step {result.step:,}; the same command goes on from there")
    elif chief:
        for line in result.lines:
            print(line)
        if config.neighbours:
            print(f"neighbours     {_draw_neighbours(config, len(images.train))}")
        pictures = [f"{config.output_dir}/{run_folder.PICTURE}"]
        pictures += [run_folder.LABEL_PICTURE] if config.label_curve else []
        pictures += [f"{run_folder.NEIGHBOURS}.png"] if config.neighbours else []
        print(f"done: backbone in {result.export}, curves in {', '.join(pictures)}")
    return result


def _draw_neighbours(config: Config, num_instances: int) -> str:
    """Draw held-out images beside their nearest training images, by the exported backbone."""
    settings = RetrievalSettings(
        model=config.output_dir,
        count=config.neighbours,
        neighbours=min(10, num_instances - 1),
        max_broken=config.max_broken,
        seed=config.seed,
        output=f"{config.output_dir}/{run_folder.NEIGHBOURS}",
    )
    return draw_nearest(settings)
