"""Pretrain a backbone.

    python -m pic_tf.train --flagfile=configs/quickstart.flags
    python -m pic_tf.train --flagfile=configs/in1k_200ep.flags --dataset=FOLDER --output_dir=RUN

The same command again goes on with an interrupted run. In the output folder: checkpoints, flags.txt
(a flag file that repeats the run), metrics.csv, tensorboard, training.png, and the backbone.
"""

import sys

from absl import app, flags, logging

if __name__ == "__main__":
    from pic_tf.quiet import import_tensorflow

    import_tensorflow()

from pic_tf import config as configuration
from pic_tf import pretrain
from pic_tf.strategy import is_chief

LOST_WORKER = 75  # exit code: start again, it may work then (EX_TEMPFAIL of sysexits.h)


def main(_) -> None:
    logging.set_verbosity(logging.ERROR)  # TensorFlow reports its own doings through absl
    plan_only = flags.FLAGS.plan_only
    try:
        config = configuration.from_flags()
        configuration.check(config)
        strategy = pretrain.set_up_tensorflow(config)
        config, train, held_out = pretrain.open_data(config, strategy.num_replicas_in_sync, plan_only)
        chief = is_chief(strategy)
        if chief:
            print(pretrain.describe(config, strategy), flush=True)
        if plan_only:
            return
        result = pretrain.run(config, train, held_out, strategy)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except ConnectionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(LOST_WORKER)
    except KeyboardInterrupt:
        sys.exit(130)
    if not result.finished:
        print(f"stopped at step {result.step:,}; the same command goes on from there")
        sys.exit(130)
    if chief:
        print(f"done: backbone in {result.export}, curves in {config.output_dir}/{pretrain.PICTURE}")


if __name__ == "__main__":
    configuration.define_flags()
    flags.adopt_module_key_flags(configuration)  # so that --help shows them
    flags.DEFINE_bool("plan_only", False, "print the plan and stop; with --num_instances, no data is needed")
    app.run(main)
