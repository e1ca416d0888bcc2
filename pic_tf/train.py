"""Pretrain a backbone.

    python -m pic_tf.train --flagfile=configs/quickstart.flags
    python -m pic_tf.train --flagfile=configs/in1k_200ep.flags --dataset=FOLDER --output_dir=RUN

The same command again goes on with an interrupted run. In the output folder: checkpoints, flags.txt
(a flag file that repeats the run), metrics.csv, tensorboard, training.png, and the backbone.

Exit codes: 0 done; 1 wrong input, or a run that cannot go on; 75 stopped by SIGTERM or SIGINT with the state saved,
or a worker was lost: start again, it goes on; 130 and 143 stopped at once by a second signal, or before training.
"""

import re
import sys

from absl import app, flags, logging

if __name__ == "__main__":
    from pic_tf.files.quiet import import_tensorflow

    import_tensorflow()

import tensorflow as tf

from pic_tf.files.command_line import only_flags
from pic_tf.replicas.devices import is_chief
from pic_tf.runs import open_data, run_folder
from pic_tf.settings import check, flag_files, networks
from pic_tf.training import build, loop

START_AGAIN = 75  # exit code (EX_TEMPFAIL of sysexits.h)


def main(arguments: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TensorFlow reports its own doings through absl
    plan_only = flags.FLAGS.plan_only
    try:
        only_flags(arguments)
        config = flag_files.from_flags()
        check.check(config)
        strategy = build.set_up_tensorflow(config)
        config, train, monitored = open_data.open_data(config, strategy.num_replicas_in_sync, plan_only)
        chief = is_chief(strategy)
        if not plan_only:
            run_folder.make_output_folder(config)
        if chief:
            print(networks.describe(config, strategy), flush=True)
        if plan_only:
            return
        result = loop.run(config, train, monitored, strategy, flags.FLAGS.allow_changed_flags)
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        tensor = re.search(r"shape ?([\[(][\d, ]*[\])])", str(error))
        sys.exit(
            f"error: expected the run to fit into memory, got no room for {tensor[1] if tensor else 'more'}: lower "
            "--batch_size, --image_size or --width; --plan_only tells what needs how much"
        )
    except ConnectionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(START_AGAIN)
    except OSError as error:
        sys.exit(
            f"error: expected to write to {config.output_dir!r}, got {error}: checkpoints that were complete are still "
            "there; make room, and the same command goes on"
        )
    except KeyboardInterrupt:
        sys.exit(130)
    if not result.finished:
        print(f"stopped at step {result.step:,}; the same command goes on from there")
        sys.exit(START_AGAIN)
    if chief:
        print(f"done: backbone in {result.export}, curves in {config.output_dir}/{run_folder.PICTURE}")


if __name__ == "__main__":
    flag_files.define_flags()
    flags.DEFINE_bool("plan_only", False, "Print the plan and stop. With --num_instances no data is needed.")
    flags.DEFINE_bool(
        "allow_changed_flags", False, "Go on with the run in --output_dir although its flags were others."
    )
    app.run(main, flags_parser=flag_files.parser_of())
