"""Pretrain a backbone.

    python -m pic_tf.train --flagfile=configs/quickstart.flags
    python -m pic_tf.train --flagfile=configs/in1k_200ep.flags --dataset=FOLDER --output_dir=RUN

The same command again goes on with an interrupted run. In the output folder: checkpoints, flags.txt
(a flag file that repeats the run), metrics.csv, tensorboard, training.png, and the backbone; with
--label_curve and --neighbours also labels.png and neighbours.png.

Exit codes: 0 done; 1 wrong input, or a run that cannot go on; 75 stopped by a signal (SIGTERM,
SIGINT, SIGHUP, SIGUSR1, SIGUSR2) with the state saved, or a worker was lost: start again, it goes
on; 130 and 143 stopped at once by a second signal, or before training.
"""

import functools

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.look.nearest_images import draw_nearest
from pic_tf.look.settings import RetrievalSettings
from pic_tf.replicas.devices import is_chief, set_up_tensorflow
from pic_tf.runs import open_data, run_folder
from pic_tf.settings import check, flag_files, networks
from pic_tf.settings.config import Config
from pic_tf.settings.help import help_text
from pic_tf.training import loop


def main() -> int:
    plan_only = flags.FLAGS.plan_only
    config = flag_files.from_flags()
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
        return 0
    result = loop.run(config, images, strategy, flags.FLAGS.allow_changed_flags)
    if not result.finished:
        print(f"stopped at step {result.step:,}; the same command goes on from there")
        return command_line.START_AGAIN
    if chief:
        for line in result.lines:
            print(line)
        if config.neighbours:
            print(f"neighbours     {_draw_neighbours(config, len(images.train))}")
        pictures = [f"{config.output_dir}/{run_folder.PICTURE}"]
        pictures += [run_folder.LABEL_PICTURE] if config.label_curve else []
        pictures += [f"{run_folder.NEIGHBOURS}.png"] if config.neighbours else []
        print(f"done: backbone in {result.export}, curves in {', '.join(pictures)}")
    return 0


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


if __name__ == "__main__":
    flag_files.define_flags()
    flags.DEFINE_bool(
        "plan_only", False, "Print the plan and stop. With --num_instances no data is needed."
    )
    flags.DEFINE_bool(
        "allow_changed_flags",
        False,
        "Go on with the run in --output_dir although its flags were others.",
    )
    command_line.run(
        main,
        functools.partial(help_text, Config),
        output="output_dir",
        no_room="complete checkpoints are still there; make room, and the same command goes on",
        no_memory="lower --batch_size, --image_size or --width; --plan_only says what each needs",
    )
