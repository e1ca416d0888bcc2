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
from pic_tf.settings import flag_files
from pic_tf.settings.config import Config
from pic_tf.settings.help import help_text
from pic_tf.whole_run import start


def main() -> int:
    values = flags.FLAGS
    result = start(
        flag_files.from_flags(),
        plan_only=values.plan_only,
        allow_changed_flags=values.allow_changed_flags,
    )
    return command_line.START_AGAIN if result and not result.finished else 0


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
