"""Wrong command lines, and the sentence for each: the table of `test_wrong_input.py`."""

import dataclasses
import json
from typing import NamedTuple

from pic_tf.data.sources.formats import NAMES
from pic_tf.settings import config, setting


class Wrong(NamedTuple):
    """A command line after the flags of the digits, and what has to come of it.

    Attributes:
      arguments: flags; INPUTS stands for the folder that `inputs` makes, PORT for a port that is
        taken.
      sentence: regular expression for the beginning of the sentence.
      environment: variables, with the same placeholders.
      of_absl: whether absl says it in its own words.
    """

    arguments: str
    sentence: str
    environment: dict[str, str] = {}  # noqa: RUF012
    of_absl: bool = False


def absl(arguments: str, sentence: str) -> Wrong:
    return Wrong(arguments, sentence, of_absl=True)


def workers(sentence: str, text: str, arguments: str = "") -> Wrong:
    return Wrong(arguments, sentence, {"TF_CONFIG": text})


def cluster(*addresses, task=None) -> str:
    return json.dumps(
        {"cluster": {"worker": addresses}} | ({"task": task} if task is not None else {})
    )


def of_every_flag() -> list[Wrong]:
    """Values that no flag of a type may have, for all flags of this type."""
    rows = []
    for field in dataclasses.fields(config.Config):
        name, kind = field.name, setting.kind_of(field)
        if field.metadata["choices"]:
            rows.append(
                absl(f"--{name}=nonsense", f"flag --{name}=nonsense: value should be one of")
            )
        elif kind is bool:
            rows.append(absl(f"--{name}=maybe", f"flag --{name}=maybe: .*Non-boolean argument"))
        elif kind is int:
            rows += [
                Wrong(f"--{name}={x}", rf"expected (\d+ <= )?--{name} [<>]= .*, got {x}$")
                for x in (-1, 10**20)
            ]
        elif kind is float:
            rows += [
                Wrong(f"--{name}={x}", f"expected .*--{name} .* got {x}")
                for x in ("nan", "inf", "-1")
            ]
        elif kind is tuple:
            length = len(getattr(config.Config().preset(), name, (10, 30)))
            rows += [
                Wrong(f"--{name}={','.join([x] * length)}", f"expected --{name}=.*got")
                for x in ("nan", "inf", "-1")
            ]
            rows += [
                Wrong(f"--{name}={','.join(['.5'] * n)}", f"expected --{name}=.*got")
                for n in (1, length + 1)
            ]
            rows += [
                Wrong(f"--{name}={x}", f"expected numbers in --{name}, got '{x}'")
                for x in ("a,b", "0.1,,1")
            ]
    return rows


FLAGS = [
    *of_every_flag(),
    *[
        Wrong(f"--{name}=0", rf"expected (1 <= --{name} <= \S+|--{name} >= 1), got 0$")
        for name in "epochs batch_size window_size window_stride width hidden_dim embedding_dim image_size knn_k "
        "knn_images checkpoint_every keep_checkpoints max_skipped_steps steps_per_execution".split()
    ],
    *[
        Wrong(f"--{name}=0", f"expected .* --{name} <= .* got 0.0")
        for name in "learning_rate lars_trust_coefficient lamb_learning_rate temperature knn_temperature".split()
    ],
    *[
        Wrong(f"--{name}=1.01", f"expected 0 <= --{name} <= 1, got 1.01")
        for name in "flip_probability jitter_probability grayscale_probability blur_probability".split()
    ],
    Wrong("--eval_crop=0", "expected 0 < --eval_crop <= 1, got 0.0"),
    Wrong("--eval_crop=1.01", "expected 0 < --eval_crop <= 1, got 1.01"),
    Wrong("--momentum=1", "expected 0 <= --momentum < 1, got 1.0"),
    Wrong("--learning_rate=1e300", "expected 0 < --learning_rate <= 1e6, got 1e[+]300"),
    Wrong("--temperature=1e-30", "expected 1e-4 <= --temperature <= 1e6, got 1e-30"),
    Wrong("--seed=4294967296", "expected --seed <= 4294967295, got 4294967296"),
    Wrong("--image_size=8193", "expected 1 <= --image_size <= 8192, got 8193"),
    Wrong("--embedding_dim=65537", "expected 1 <= --embedding_dim <= 65536, got 65537"),
    Wrong("--epochs=1000001", "expected 1 <= --epochs <= 1e6, got 1000001"),
    Wrong("--intra_op_threads=1025", "expected 0 <= --intra_op_threads <= 1024, got 1025"),
    Wrong("--backbone=resnet19", "expected --backbone=resnetN with N of 18, 34, 50, 101, 152, got"),
    Wrong("--backbone=nonsense", "expected --backbone to be resnet18, 34, 50, 101 or 152, appl"),
    Wrong(
        "--initial_weights=INPUTS/nowhere",
        "expected weights at --initial_weights='.*/nowhere', got No such file .*: check the path",
    ),
    Wrong(
        "--initial_weights=INPUTS/file --initial_weights_sha256=ab",
        "expected the weights with SHA-256 ab in '.*/file', got [0-9a-f]{64}: bring the others",
    ),
    Wrong(
        "--crop_scale=0.5,0.4",
        "expected --crop_scale=LEAST,LARGEST with 0 < LEAST <= LARGEST <= 1, got",
    ),
    Wrong("--crop_scale=0.5,1.1", "expected --crop_scale=LEAST,LARGEST .* got .0.5, 1.1.$"),
    Wrong("--crop_scale=0,1", "expected --crop_scale=LEAST,LARGEST .* got .0.0, 1.0.$"),
    Wrong("--crop_scale=", r"expected --crop_scale=LEAST,LARGEST .* got \(\)"),
    Wrong("--blur_sigma=0.1,8.5", r"expected --blur_sigma=.* <= the side of a view \(8\), got"),
    Wrong("--blur_sigma=2,1", "expected --blur_sigma=LEAST,LARGEST with 0 < LEAST <= LARGEST"),
    Wrong(
        "--jitter=0,0,0,0.6",
        "expected --jitter=BRIGHTNESS,CONTRAST,SATURATION,HUE from 0 to 1, hue to 0.5, got",
    ),
    Wrong("--bit_depth=12", "expected --bit_depth=8 or 16, got 12"),
    Wrong("--channels=257", "expected 1 <= --channels <= 256, got 257"),
    Wrong(
        "--channels=1 --jitter=0.4,0.4,0,0",
        "expected images of 1 channel of 8 bits in 'digits.*', got 3 channels of 8 bits: name oth",
    ),
    Wrong(
        "--channels=1 --grayscale_probability=0.2",
        "expected no --grayscale_probability and no saturation or hue in --jit",
    ),
    Wrong(
        "--channels=1 --backbone=applications:VGG16 --stem=imagenet --width=64",
        "expected --channels=3 with --backbone=applications:VGG16, got 1",
    ),
    Wrong(
        "--channel_mean=0.5,0.5,0.5 --channel_stddev=0,1,1",
        "expected --channel_stddev=NUMBER,NUMBER,... from 1e-06 to 1",
    ),
    Wrong("--jitter=0,1.1,0,0", "expected --jitter=BRIGHTNESS,CONTRAST,SATURATION,HUE from 0 to 1"),
    *[
        Wrong(f"--crops={x}", "expected crops as COUNTxSIZE@LEAST-LARGEST .* got .* in --crops")
        for x in "160 1x160 0x8@0.1-1 1x0@0.1-1 1x8@0.5-0.1 1x8@0-1 1x8@0.1-1.5 1x8@.1-1, 1x8@.-1".split()
    ],
    Wrong(
        "--crops=65x8@0.1-1",
        "expected at most 64 views of at most 8192 pixels in --crops, got 65x8",
    ),
    Wrong(
        "--crops=1x8193@0.1-1",
        "expected at most 64 views of at most 8192 pixels in --crops, got 1x8193",
    ),
    Wrong(
        "--crops=1x8@0.1-1,1x4@0.1-1 --blur_sigma=1,5",
        r"expected --blur_sigma=.* side of a view \(4\), got",
    ),
    Wrong("--max_broken=1.01", "expected 0 <= --max_broken <= 1, got 1.01"),
    Wrong("--output_dir=", "expected a folder in --output_dir, got ''"),
    Wrong("--dataset=", "expected a folder in --dataset, got ''"),
    absl("--epochs=many", "flag --epochs=many: invalid literal"),
    absl("--epochs=1.5", "flag --epochs=1.5: invalid literal"),
    absl("--temperature=low", "flag --temperature=low: could not convert"),
    absl("--nonsense=1", "Unknown command line flag 'nonsense'"),
    absl("--epoch=3", "Unknown command line flag 'epoch'"),
    absl("--crop_scale", "Missing value for flag"),
    Wrong(
        "--flagfile=INPUTS/missing",
        "expected a flag file at '.*/missing', got No such file .* configs/in1k_200ep",
    ),
    Wrong(
        "--flagfile=INPUTS",
        "expected a flag file at '.*', got Is a directory: name a file, or one of the recipes",
    ),
    Wrong("--flagfile", "expected --flagfile=FILE, got no file: name one"),
    absl("--flagfile=INPUTS/unknown.flags", "Unknown command line flag 'nonsense'"),
    Wrong(
        "--flagfile=INPUTS/words.flags", "expected flags only, got 'some words': write --flag=value"
    ),
    Wrong("--flagfile=INPUTS/bytes.flags", "expected text in --flagfile, got"),
    Wrong("--flagfile=INPUTS/zero.flags", "expected 1 <= --epochs <= 1e6, got 0"),
    Wrong("epochs=3", "expected flags only, got 'epochs=3': write --flag=value"),
    Wrong("--tensorboard false", "expected flags only, got 'false'"),
]
# N is 1500 and B 64 in what follows, so W is 512 and K 256.
COMBINATIONS = [
    Wrong(
        "--batch_size=1501",
        r"expected --batch_size to be at most the number of training images \(1500\), got 1501",
    ),
    Wrong(
        "--num_instances=1499",
        r"expected 1499 training images \(--num_instances\), got 1500: check --dataset",
    ),
    Wrong(
        "--window_size=100",
        r"expected window_size to be a multiple of batch_size \(64\), got 100: use 64 or 128",
    ),
    Wrong(
        "--window_size=1536",
        r"expected batch_size \(64\) <= window_size <= number of instances \(1500\), got",
    ),
    Wrong(
        "--window_size=32",
        r"expected batch_size \(64\) <= window_size <= number of instances \(1500\), got",
    ),
    Wrong("--window_stride=513", r"expected 1 <= window_stride <= window_size \(512\), got 513"),
    Wrong(
        "--window_size=128 --window_stride=129",
        r"expected 1 <= window_stride <= window_size \(128\), got 129",
    ),
    Wrong(
        "--order=epoch --window_size=128",
        "expected no --window_size .* --order=epoch, got --window_size",
    ),
    Wrong(
        "--virtual_shards=3",
        r"expected virtual_shards to be .* divides window_size \(512\) and .* \(64\), got 3: use 0",
    ),
    Wrong(
        "--order=epoch --window_stride=64",
        "expected no --window_size .* --order=epoch, got --window_stride",
    ),
    Wrong(
        "--num_negatives=63",
        r"expected --num_negatives between --batch_size \(64\) and .* \(1500\), got 63",
    ),
    Wrong(
        "--num_negatives=1501",
        r"expected --num_negatives between --batch_size \(64\) and .* \(1500\), got 1501",
    ),
    Wrong(
        "--batch_size=1 --num_negatives=1", "expected at least 2 images in the soft-max .* got 1"
    ),
    Wrong("--warmup_epochs=120", r"expected 0 <= --warmup_epochs < --epochs \(120\), got 120"),
    Wrong("--epochs=2 --warmup_epochs=3", r"expected 0 <= --warmup_epochs < --epochs \(2\), got 3"),
    Wrong(
        "--keep_checkpoint_every=15",
        r"expected --keep_checkpoint_every to be a multiple of .* \(10\), got 15",
    ),
    Wrong(
        "--optimizer=lamb --precision=float16",
        "expected --precision=bfloat16 or float32 with .*, got float16",
    ),
    Wrong(
        "--optimizer=lamb",
        "expected tensorflow-addons .* got none .*no Keras",
        {"PYTHONPATH": "INPUTS/addons"},
    ),
]
DEVICES = [
    Wrong("--replicas=2", "expected --replicas with --strategy=mirrored only, got it with none"),
    Wrong(
        "--replicas=2 --strategy=tpu",
        "expected --replicas with --strategy=mirrored only, got it with tpu",
    ),
    Wrong(
        "--strategy=mirrored",
        "expected several GPUs for --strategy=mirrored, got none: name --replicas",
    ),
    Wrong(
        "--strategy=mirrored --replicas=65",
        r"expected --replicas of at most --batch_size \(64\), got 65",
    ),
    Wrong(
        "--strategy=mirrored --replicas=3",
        "expected --batch_size .* multiple of the 3 replicas, got 64: use 63 or 66",
    ),
    Wrong(
        "--strategy=mirrored --replicas=2 --num_negatives=65",
        "expected --num_negatives to be a multiple of the 2 replicas, got 65: use 64 or 66",
    ),
    Wrong(
        "--strategy=mirrored --replicas=2 --window_stride=65",
        r"expected window_stride to be a multiple of num_replicas \(2\), got 65: use 64 or 66",
    ),
    Wrong(
        "--strategy=mirrored --replicas=2 --jit_compile",
        "expected --jit_compile=false with 2 replicas, got true",
    ),
    Wrong(
        "--jit_compile --stem=imagenet",
        "expected --deterministic=false or --stem=small with --jit_compile, got a stem with max",
    ),
    Wrong(
        "--strategy=tpu", "expected a TPU, got none .*: set TPU_NAME, or choose another --strategy"
    ),
    Wrong("", "expected a TPU, got none .*refused", {"TPU_NAME": "grpc://localhost:1"}),
    Wrong("", "expected a TPU, got none", {"TPU_NAME": "grpc://localhost"}),
    Wrong(
        "--strategy=multi_worker",
        "expected a cluster in TF_CONFIG or a Slurm step .srun., got neither",
    ),
    Wrong("--strategy=multi_worker", "expected a Slurm step .* got", {"SLURM_PROCID": "0"}),
    Wrong("", "expected a Slurm step .* got", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}),
    Wrong(
        "", "expected a Slurm step .* got", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "many"}
    ),
    *[
        workers("expected TF_CONFIG like .* got", text)
        for text in (
            "not json",
            "[" * 100_000,
            "[1]",
            "3",
            '{"cluster": 3}',
            '{"cluster": {"worker": 3}}',
            '{"cluster": {"worker": "host:1"}}',
            cluster("host:1", 3, task={"type": "worker", "index": 0}),
            cluster("host:1", "other:1"),
            cluster("host:1", "other:1", task=0),
            cluster("host:1", "other:1", task={"type": "worker"}),
            cluster("host:1", "other:1", task={"type": "worker", "index": 2}),
            cluster("host:1", "other:1", task={"type": "worker", "index": -1}),
            cluster("host:1", "other:1", task={"type": "worker", "index": "first"}),
            cluster("host:1", "other:1", task={"type": "ps", "index": 0}),
            cluster("host:1", "host:1", task={"type": "worker", "index": 0}),
            cluster("host", "other", task={"type": "worker", "index": 0}),
            cluster("host:0", "other:0", task={"type": "worker", "index": 0}),
            cluster("host:65536", "other:1", task={"type": "worker", "index": 0}),
        )
    ],
    workers(
        "expected this worker to open its port .* got", cluster("host:1"), "--strategy=multi_worker"
    ),
    workers(
        "expected this worker to open its port in the cluster, got .*: check TF_CONFIG, and that "
        "nothing else uses",
        cluster("localhost:PORT", "other:1", task={"type": "worker", "index": 0}),
    ),
]
DATA = [
    Wrong(
        "--dataset=INPUTS/missing",
        "expected a folder of images at '.*missing', got nothing there: check the path",
    ),
    Wrong(
        "--dataset=digit",
        "expected a folder of images at 'digit', got nothing there: check the path",
    ),
    Wrong("--dataset=INPUTS/images,", "expected names between the commas, got '.*images,': leave"),
    Wrong(
        "--dataset=INPUTS/file",
        "expected a folder of images at '.*file', got a file there: check the path",
    ),
    Wrong(
        "--dataset=INPUTS/empty",
        r"expected images \(.jpg, .*\) in '.*empty', got none: check the path",
    ),
    Wrong(
        "--dataset=INPUTS/documents",
        r"expected images \(.jpg, .*\) in '.*documents', got none: check the path",
    ),
    Wrong(
        "--dataset=INPUTS/empty_train",
        r"expected images \(.jpg, .*\) in '.*train', got none: check the path",
    ),
    Wrong(
        "--dataset=INPUTS/text",
        f"expected a {NAMES} image in '.*a.jpg', got a file that starts with",
    ),
    Wrong(
        "--dataset=INPUTS/page",
        f"expected a {NAMES} image in '.*a.png', got a file that starts with",
    ),
    Wrong(
        "--dataset=INPUTS/no_bytes",
        f"expected a {NAMES} image in '.*a.png', got a file that starts with b''",
    ),
    Wrong(
        "--dataset=INPUTS/link",
        "expected a readable image at '.*a.png', got No such file or directory: remove",
    ),
    Wrong(
        "--dataset=INPUTS/locked_file",
        "expected a readable image at '.*0.png', got Permission denied: remove",
    ),
    Wrong(
        "--dataset=INPUTS/locked_folder",
        "expected a readable folder at '.*cat', got Permission denied",
    ),
    Wrong(
        "--dataset=INPUTS/images",
        r"expected --batch_size to be at most the number of training images \(12\), got 64",
    ),
    Wrong(
        "--dataset=INPUTS/one --batch_size=1", "expected at least 2 images in the soft-max .* got 1"
    ),
    Wrong(
        "--dataset=INPUTS/images --batch_size=4 --num_instances=13",
        r"expected 13 training images .*, got 12: check",
    ),
    Wrong(
        "--dataset=INPUTS/other_val",
        "expected the classes in '.*val' to be among the training set's 2, got 'wolf'",
    ),
    Wrong(
        "--dataset=INPUTS/empty_val",
        r"expected images \(.jpg, .*\) in '.*val', got none: check the path",
    ),
    Wrong("--dataset=INPUTS/packed", "expected .*packed.* got"),
    Wrong(
        "--dataset=tfds:no_such_data_set",
        "expected a data set that TensorFlow Datasets knows, .* got 'no_su",
    ),
    Wrong("--dataset=tfds:", "expected .* got"),
    Wrong(
        "--labelled_dataset=INPUTS/missing",
        "expected a folder of images at '.*missing', got nothing there",
    ),
    Wrong(
        "--probe_batch_size=2000",
        "expected --probe_batch_size of at most the 1500 labelled images, a multiple of the 1",
    ),
    Wrong(
        "--probe_batch_size=8 --knn_every=0",
        "expected labelled images, held-out ones and --knn_every for the linear",
    ),
    Wrong("--label_curve=10,2.5", "expected --label_curve=COUNT,.* whole numbers .*got 10,2.5$"),
    Wrong("--label_curve=1", "expected --label_curve=COUNT,.* whole numbers from 2 on, got 1$"),
    Wrong(
        "--label_curve=10 --knn_every=0",
        "expected labelled images, held-out ones and --knn_every for --label_curve, got not all",
    ),
    Wrong("--neighbours=101", "expected 0 <= --neighbours <= 100, got 101"),
    Wrong(
        "--eval_dataset=INPUTS/missing",
        "expected a folder of images at '.*missing', got nothing there",
    ),
    Wrong(
        "--eval_dataset=INPUTS/file", "expected a folder of images at '.*file', got a file there"
    ),
    Wrong("--eval_dataset=INPUTS/empty", r"expected images \(.jpg, .*\) in '.*empty', got none"),
    Wrong(
        "--eval_dataset=INPUTS/text",
        f"expected a {NAMES} image in '.*a.jpg', got a file that starts with",
    ),
    Wrong(
        "--eval_dataset=INPUTS/images",
        "expected the classes in '.*images' to be among .* 10, got 'cat' besides",
    ),
    Wrong(
        "--plan_only --dataset=INPUTS/missing",
        "expected a folder of images at '.*missing', got nothing there",
    ),
    Wrong(
        "--plan_only --num_instances=50 --dataset=INPUTS/missing",
        "expected --batch_size .* images .50., got 64",
    ),
    Wrong("--output_dir=INPUTS/file", "expected a folder to write to at '.*file', got File exists"),
    Wrong(
        "--dataset=INPUTS/images --batch_size=4 --output_dir=INPUTS/images/run",
        "expected --output_dir outside .*",
    ),
    Wrong(
        "--instance_store=disk --rows_dir=INPUTS/file",
        "expected a folder to write to at '.*file/.*', got Not a dir",
    ),
    Wrong("--output_dir=INPUTS/file/run", "expected a folder to write to at .* got Not a dir"),
    Wrong("--output_dir=/proc/nowhere/run", "expected a folder to write to at .* got"),
    Wrong("--output_dir=INPUTS/locked", "expected a folder to write to at .* got Permission"),
]
ROWS = [*FLAGS, *COMBINATIONS, *DEVICES, *DATA]
