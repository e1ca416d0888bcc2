"""Compare variants of a recipe, each trained and evaluated with several seeds.

    python -m pic_tf.study --study=configs/studies/window.toml --dataset=FOLDER --output_dir=STUDY
    python -m pic_tf.study --study=STUDY.toml --output_dir=STUDY --shard=1/2

A study is a TOML file: a list of named variants (a recipe and flags of pic_tf.train), seeds, and
evaluations (flags of pic_tf.evaluate). Its runs are taken one after another. The same command again
goes on with an interrupted study; runs that are there are not taken again, and get only the
evaluations that are new in the study, or have other flags. Several machines share the list by
--shard and a common output folder. The output folder holds a folder for each run, and results.md
and results.png of all runs taken so far.

Exit codes: 0 done; 1 wrong input, or a run failed; 75 stopped by a signal: start again, it goes on.
"""

import pathlib
import re
import sys

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line, recipes
from pic_tf.studies import report
from pic_tf.studies.check import check
from pic_tf.studies.definition import read
from pic_tf.studies.run import Place, Stopped, figures_of, missing_evaluations, take

FLAGS = flags.FLAGS


def main() -> int:
    study = read(recipes.find(FLAGS.study))
    place = Place(pathlib.Path(FLAGS.output_dir), FLAGS.dataset, FLAGS.eval_dataset)
    held_out = check(study, place)
    runs = study.runs[shard(FLAGS.shard, len(study.runs))]
    if FLAGS.plan_only:
        for variant, seed in runs:
            print(f"{variant.name}, seed {seed}: {' '.join(place.words(variant, seed))}")
        return 0
    failed = []
    for number, (variant, seed) in enumerate(runs, start=1):
        figures = figures_of(place.folder(variant, seed))
        if figures and not missing_evaluations(study, figures):
            continue
        headline = f"run {number} of {len(runs)}: {variant.name}, seed {seed}"
        print(headline, file=sys.stderr)
        try:
            figures = take(study, place, variant, seed, held_out[variant.name])
        except Stopped:
            print("stopped; the same command goes on from there")
            return command_line.START_AGAIN
        except RuntimeError as error:
            print(f"{headline}: {error}", file=sys.stderr)
            failed.append(f"{variant.name}, seed {seed}")
            continue
        accuracy = ", ".join(f"{name} {x:.1f} %" for name, x in figures["accuracy"].items())
        print(f"{headline}: {accuracy}", file=sys.stderr)
        report.write(study, place)
    print(report.write(study, place), end="")
    print(f"table and picture in {place.output}", file=sys.stderr)
    if failed:
        raise ValueError(
            f"expected every run to finish, got a failure of {'; '.join(failed)}: see above, and "
            "start again"
        )
    return 0


def shard(text: str, count: int) -> slice:
    """Choose the part i of n of a list: "2/3" takes the items 1, 4, 7, ...

    Raises:
      ValueError: for another form.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"expected --shard=i/n with 1 <= i <= n, got {text!r}")
    return slice(int(found[1]) - 1, count, int(found[2]))


if __name__ == "__main__":
    flags.DEFINE_string(
        "study",
        None,
        "Study to run, a TOML file; configs/studies/NAME.toml comes with the package.",
        required=True,
    )
    flags.DEFINE_string(
        "output_dir", "runs/study", "Folder of all runs, the table and the picture."
    )
    flags.DEFINE_string(
        "dataset", "", "Training images of all runs. The default '' takes those of the recipe."
    )
    flags.DEFINE_string(
        "eval_dataset",
        "",
        "Held-out images of all runs. The default '' takes the held-out part of --dataset.",
    )
    flags.DEFINE_string(
        "shard", "1/1", "Part i/n of the runs to take: this process takes every n-th run from i on."
    )
    flags.DEFINE_bool("plan_only", False, "Check the study, list its runs and stop.")
    command_line.run(main, output="output_dir")
