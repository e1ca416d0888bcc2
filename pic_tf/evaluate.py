"""Judge an exported backbone by the protocols of the literature.

    python -m pic_tf.evaluate --protocol=knn --model=RUN --dataset=FOLDER
    python -m pic_tf.evaluate --protocol=linear --model=RUN --dataset=FOLDER
    python -m pic_tf.evaluate --protocol=finetune --model=RUN --dataset=FOLDER --label_fraction=0.01
    python -m pic_tf.evaluate --protocol=knn --model=pixels --dataset=FOLDER

It prints a row of a table. In the output folder: the numbers as JSON, a picture of what is taken for what, and the
features, which the next evaluation of the same backbone finds there. An interrupted training goes on with the same
command.
"""

import sys

from absl import app, logging

if __name__ == "__main__":
    from pic_tf.files.quiet import import_tensorflow

    import_tensorflow()

import tensorflow as tf

from pic_tf.evals import settings as evaluation
from pic_tf.evals.protocols import evaluate, open_labelled
from pic_tf.evals.report import HEADER
from pic_tf.files.command_line import only_flags
from pic_tf.replicas.devices import open_strategy
from pic_tf.serving.exported import open_exported
from pic_tf.settings import flag_files


def main(arguments: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TensorFlow reports its own doings through absl
    try:
        only_flags(arguments)
        settings = flag_files.from_flags(settings=evaluation.Settings)
        exported = None if settings.model == evaluation.PIXELS else open_exported(settings.model)
        settings = evaluation.resolve(settings, exported)
        if settings.intra_op_threads:
            tf.config.threading.set_intra_op_parallelism_threads(settings.intra_op_threads)
        tf.config.experimental.enable_op_determinism()
        tf.keras.utils.set_random_seed(settings.seed)
        strategy = open_strategy(settings.strategy, settings.replicas)
        found = evaluate(settings, exported, *open_labelled(settings), strategy)
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except (tf.errors.ResourceExhaustedError, MemoryError):
        sys.exit("error: expected the evaluation to fit into memory, got no room: lower --batch_size or --image_size")
    except OSError as error:
        sys.exit(f"error: expected to write to {settings.output_dir!r}, got {error}: make room, or name another folder")
    except KeyboardInterrupt:
        sys.exit(130)
    print(HEADER)
    print(found.line())
    print(f"results in {settings.output_dir}", file=sys.stderr)


if __name__ == "__main__":
    flag_files.define_flags(settings=evaluation.Settings)
    app.run(main, flags_parser=flag_files.parser_of(evaluation.Settings))
