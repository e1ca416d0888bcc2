"""Every command of README, CONTRIBUTING and docs runs, on tiny images: 60 of digits, 32 x 32
pixels.
"""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pic_tf.evals.belonging import judge_of
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.studies.definition import parsed
from tests.docs.documents import PAGES, ROOT, commands
from tests.processes import commands_that_fork

NOT_RUN = {  # how a command begins -> why not, and what stands in for it
    "python3 -m venv": "the gate itself begins with it (.ci/run)",
    ".venv/bin/pip": "the gate itself begins with it (.ci/run)",
    ".venv/bin/python -m pytest": "this is it",
    ".venv/bin/ruff": "the gate does (.ci/run)",
    "python tools/benchmark input": "tiny images miss its targets, which ends it with code 1: test_input.py",
    "python tools/benchmark/compiled_step.py": ".ci/jax exports and runs the settings to check",
    "python tools/NAME.py": "stands for every tool",
    "python -m pic_tf.study": "needs thousands of images: tests/studies/test_definition.py resolves it for 20,000",
    "python -m pic_tf.evaluate --flagfile=configs/voc_detection.flags": "needs Pascal VOC: tests/evals/detection",
    "python -m pic_tf.evaluate --flagfile=configs/scenes_segmentation.flags --model=RUN --dataset=FEW_SCENES:train": "needs more scenes than a test draws; the recipe itself is run",
    "python -m pic_tf.evaluate --flagfile=configs/cityscapes.flags": "needs Cityscapes: tests/evals/segmentation",
    "python tools/convert_weights.py --input=RUN/backbone --output=backbone.onnx": "needs tf2onnx: tests/serving/test_graph_files.py, where it is installed",
    "python -m pic_tf.tools.NAME": "stands for every tool; tests/test_house.py runs one of an installed wheel",
    "docker run": "needs TensorFlow Serving: tests/docs/test_snippets.py answers by the signature",
    "hf upload": "needs an account of the hub",
    "export": "sets a variable of the shell",
    "python tools/convert_weights.py --input=pic.pth": "needs PyTorch: tests/serving/test_convert.py, by .ci/torch",
}
# Runs of weeks, GPUs, TPUs and several machines: the plan of 1e5 images is printed, with all flags
# but the devices.
PLAN = [
    "--plan_only",
    "--strategy=none",
    "--output_dir=absent",
    "--dataset=absent",
    "--num_instances=100000",
]
SMALL = {  # flags that follow those of the page, by the last part of the module
    "benchmark": [
        *(
            "--repeats=1",
            "--dense_repeats=1",
            "--batch_size=8",
            "--num_negatives=64",
            "--embedding_dim=8",
        ),
        *("--instances=1000,2000", "--dense_instances=1000", "--checkpoint_instances=5000"),
        *("--checkpoint_rounds=1", "--replicas=1,2", "--replica_rounds=1"),
        *("--replica_instances=1000", "--backbone_ms=1"),
        *("--store_instances=10000", "--store_turns=1"),
    ],
    "draw_scenes": ["--train=12", "--test=4"],
    "preview": ["--image_size=32", "--count=2", "--views=2"],
    "long_run": ["--num_instances=512", "--sweeps=1", "--shrink=0.9"],
}
_CLASSIFIER = ["--image_size=32", "--batch_size=8", "--epochs=1"]
_BY_STEPS = ["--batch_size=8", "--steps=2", "--decay_steps=1", "--warmup_steps=1"]
SMALL_EVALUATION = {  # by the protocol
    "knn": ["--image_size=32"],
    "linear": _CLASSIFIER,
    "linear --solver=lbfgs": ["--image_size=32"],
    "finetune": _CLASSIFIER,
    "voc_detection": _BY_STEPS,
    "segmentation": _BY_STEPS,
}
TRAINING = [
    "--dataset=FOLDER",
    "--epochs=2",
    "--batch_size=8",
    "--window_size=16",
    "--window_stride=8",
]
TRAINING += [
    "--num_negatives=8",
    "--backbone=resnet18",
    "--width=8",
    "--image_size=32",
    "--hidden_dim=16",
]
TRAINING += ["--embedding_dim=8", "--knn_every=0", "--notensorboard", "--intra_op_threads=1"]
MADE_BY = {  # what a command reads -> the command of the docs that makes it
    "PACKED": "python tools/pack.py --source=FOLDER --output=PACKED",
    "RANDOM": "python -m pic_tf.export --run=RUN --output=RANDOM/backbone --untrained",
    "SCENES:train": "python tools/draw_scenes.py --photographs=FOLDER/train --output=SCENES",
    "LARGE_SCENES:train": "python tools/draw_scenes.py --photographs=FOLDER/train --output=LARGE_SCENES --size=128 --train=1000",
    "told.csv": "python -m pic_tf.predict --model=CLASSIFIER --dataset=FOLDER/val --output=told.csv",
    "features.parquet": "python -m pic_tf.embed --model=RUN --dataset=FOLDER --output=features.parquet",
    "NEW_IMAGES": "cp -al IMAGES NEW_IMAGES",
    "NEW_RUN/flags.txt": "python tools/change_images.py --run=RUN --dataset=NEW_IMAGES --output=NEW_RUN --epochs=12",
    "resnet50.safetensors": "python tools/convert_weights.py --input=RUN/backbone --output=resnet50.safetensors",
}

# A flag with a path in the docs' manner, in capitals or with the ending of a file that is written.
PATH = re.compile(
    r"^(--\w+=)([A-Z][A-Z0-9_]{2,}(?:/.*)?|[\w/]+\.(?:safetensors|keras|pkl|csv|png|parquet|npy))$"
)
ODD = "it's [a] {folder}, * ? ~ $HOME 100%"  # legal in a path; no shell or pattern means them here
MAKES_A_CLASSIFIER = (
    "python -m pic_tf.evaluate --protocol=linear --solver=lbfgs --model=RUN --dataset=FOLDER"
)


def is_slow(command: str) -> bool:
    """Whether it measures, or works on a trained network; of these the README's own run with the
    fast tests.
    """
    if "pic_tf.train" in command:
        return "NEW_RUN" in command
    if command.endswith(".keras"):  # in a process with Keras 3; tests/serving/test_convert.py
        return True
    of_a_run = re.search(
        r"RUN|RANDOM|CLASSIFIER|pixels|backbone|features\.", command
    ) and command not in commands(ROOT / "README.md")
    return bool(of_a_run or re.search("benchmark|long_run", command))


def all_commands():
    found = dict.fromkeys(command for page in PAGES for command in commands(page))
    for command in found:
        if not any(command.startswith(beginning) for beginning in NOT_RUN):
            yield pytest.param(command, marks=[pytest.mark.slow] if is_slow(command) else [])


def test_what_is_not_run_is_there():
    found = [command for page in PAGES for command in commands(page)]
    for beginning in NOT_RUN:
        assert any(command.startswith(beginning) for command in found), beginning


class World:
    """A folder with what the docs call FOLDER, IMAGES and RUN, in which commands run once each."""

    def __init__(self, fork, whole_paths: bool = False):
        self.fork, self.done, self.whole_paths = fork, set(), whole_paths
        for name in ("FOLDER", "IMAGES", "CIFAR10", "IMAGENET", "INAT18"):
            draw_digits(name)
        for name in ("configs", "tools"):
            os.symlink(ROOT / name, name)

    def run(self, command: str) -> None:
        """Run a command as the docs have it, after those that make what it reads."""
        words = [
            re.sub("=N$", "=100000", re.sub("=R$", "=8", word)) for word in shlex.split(command)
        ]
        words = [
            word.replace("NAME.flags", "digits.flags").replace(".venv/bin/python", "python")
            for word in words
        ]
        if "python" not in words:
            if command not in self.done:
                subprocess.run(words, check=True)
            self.done.add(command)
            return
        module, arguments = module_of(words)
        if module == "pic_tf.train":
            given = {word.split("=")[0] for word in arguments} & {"--num_instances"}
            left_out = {"--dataset", "--num_instances"} if "NEW_RUN" in command else given
            plan = [word for word in PLAN if word.split("=")[0] not in left_out]
            if "--help" not in arguments:  # of fewer blocks: each plan builds its network
                module, arguments = "tests.shallow_command", [module, *arguments, *plan]
        if module.endswith("collect_rows"):
            self.python(
                "pic_tf.train", [*TRAINING, "--output_dir=DISK_RUN", "--instance_store=disk"]
            )
            arguments = [word.replace("--run=RUN", "--run=DISK_RUN") for word in arguments]
        read = [word.split("=")[-1] for word in arguments if not word.startswith("--output")]
        if {"RUN", "RUN/backbone"} & set(read):
            self.python("pic_tf.train", [*TRAINING, "--output_dir=RUN"])
        for name, maker in MADE_BY.items():
            if name in read and "--dataset=absent" not in arguments:
                self.run(maker)
        if "CLASSIFIER" in read and not os.path.exists("CLASSIFIER"):
            self.run(MAKES_A_CLASSIFIER)
            made, *_ = pathlib.Path("RUN/evaluation").glob("linear_lbfgs_*_classifier")
            os.symlink(made, "CLASSIFIER")
        last = module.split(".")[-1]
        small = SMALL.get(last, [])
        if last == "evaluate":
            small = SMALL_EVALUATION[judge_of(parsed(arguments, EvaluationSettings, "here"))]
        self.python(module, arguments + small)

    def python(self, module: str, arguments: list[str]) -> None:
        """Run `python -m module` once."""
        if (module, *arguments) in self.done:
            return
        self.done.add((module, *arguments))
        if self.whole_paths:
            arguments = [PATH.sub(lambda m: m[1] + os.path.abspath(m[2]), a) for a in arguments]
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}",
            "MPLBACKEND": "agg",
        }
        ended = self.fork(module, arguments, environment, 400)
        assert ended.code == 0, (ended.stdout + ended.stderr)[-3000:]


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """The module that a command line starts, and its arguments; what stands before python is
    srun's.
    """
    words = words[words.index("python") + 1 :]
    if words[0] == "-m":
        return words[1], words[2:]
    return words[0].removesuffix(".py").replace("/", "."), words[1:]


def of_each_module():
    """The shortest command of each module that takes a path."""
    shortest = {}
    for parameter in sorted(all_commands(), key=lambda p: len(p.values[0])):
        words = shlex.split(parameter.values[0])
        if "python" in words and any(map(PATH.match, words)):
            shortest.setdefault(module_of(words)[0], parameter.values[0])
    return shortest.values()


@contextlib.contextmanager
def world_in(folder: pathlib.Path, whole_paths: bool):
    before = os.getcwd()
    folder.mkdir()
    os.chdir(folder)
    try:
        with commands_that_fork() as fork:
            yield World(fork, whole_paths)
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with world_in(tmp_path_factory.mktemp("here") / "world", whole_paths=False) as made:
        yield made


@pytest.fixture(scope="module")
def odd_world(tmp_path_factory):
    with world_in(tmp_path_factory.mktemp("there") / ODD, whole_paths=True) as made:
        yield made


def draw_digits(folder: str) -> None:
    """Write train/CLASS/*.jpg and val/CLASS/*.jpg of two classes."""
    if os.path.exists("FOLDER"):
        shutil.copytree("FOLDER", folder)
        return
    digits = load_digits(n_class=2)
    for number, (scan, label) in enumerate(zip(digits.images[:60], digits.target)):
        parent = os.path.join(folder, "val" if number >= 48 else "train", "zero one".split()[label])
        os.makedirs(parent, exist_ok=True)
        Image.fromarray((scan * 15).astype(np.uint8)).resize((32, 32)).save(
            f"{parent}/{number:02}.jpg"
        )


@pytest.mark.parametrize("command", all_commands())
def test_command_runs(world, command):
    world.run(command)


@pytest.mark.slow
@pytest.mark.parametrize("command", of_each_module())
def test_command_takes_every_path(odd_world, command):
    odd_world.run(command)
