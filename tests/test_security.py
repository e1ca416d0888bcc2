"""Nothing that is loaded can execute, and no name from a data set leads out of the output folder."""

import ast
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow.core.protobuf import saved_model_pb2
from tf_keras.protobuf import saved_metadata_pb2

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.pipeline import find_unreadable
from pic_tf.data.sources.folder import open_folder
from pic_tf.data.sources.source import Source
from pic_tf.runs import open_data, run_folder
from pic_tf.settings import check, defaults, flag_files
from pic_tf.settings.config import Config
from pic_tf.training import loop
from tests.short_runs import one_epoch, picture_folder

pytestmark = pytest.mark.usefixtures("shallow_networks")

ROOT = pathlib.Path(__file__).parent.parent

# ---------------------------------------------------------------- a run to look at

NAMES = [
    *("a..png", "-rf.png", "--seed=7.png", " a .png", "a\nb.png", "a\rb.png", "\x1b[2Ja.png", "%s%n%d.png", "{x}.png"),
    *("~.png", "$(touch a).png", "`a`.png", "a;b.png", "*?.png", "\\..\\a.png", "ü画像.png", "\u202egnp.png"),
    *("x" * 251 + ".png", "events.out.tfevents.0.png", "checkpoint.png", ".jpg.png", "..evil.png"),
    os.fsdecode(b"\xff\xfe.png"),
]
FOLDERS = ["..evil", "..jpg", "-rf", "a\n--seed=7", "%s", "y" * 255, "a.png", os.fsdecode(b"\xff"), "~", "C:"]


def everything(folder: pathlib.Path, but: pathlib.Path) -> dict[bytes, tuple]:
    """Kind, size and time of change of every file and folder, but for one folder and what is in it."""
    found = {}
    for directory, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if os.path.join(directory, name) != os.fsencode(but)]
        for path in [directory, *(os.path.join(directory, name) for name in [*folders, *files])]:
            status = os.lstat(path)
            # The output folder itself is new in its parent.
            changed = None if path == os.fsencode(but.parent) else status.st_mtime_ns
            found[path] = status.st_mode, status.st_size, changed
    return found


class Run(NamedTuple):
    """A run on a data set whose files, folders and links have the strangest names.

    Attributes:
      settings: resolved.
      train: its training images.
      result: what it ended with.
      before: `everything` but the output folder.
      after: the same afterwards.
    """

    settings: Config
    train: Source
    result: loop.Result
    before: dict[bytes, tuple]
    after: dict[bytes, tuple]


@pytest.fixture(scope="module")
def run_on_strange_names(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    data, output, outside = picture_folder(root / "data"), root / "runs" / "run", root / "outside"
    for folder in (outside, output.parent, root / "here"):
        folder.mkdir()
    picture = (data / "train" / "class0" / "18.jpg").read_bytes()
    for name in NAMES:
        (data / "train" / "class0" / name).write_bytes(picture)
    for folder in FOLDERS:
        (data / "train" / folder).mkdir()
        for name in ("..jpg", "a.jpg"):
            (data / "train" / folder / name).write_bytes(picture)
    (outside / "target.jpg").write_bytes(picture)
    (data / "train" / "class1" / "link.jpg").symlink_to(outside / "target.jpg")
    (data / "train" / "class1" / "folder").symlink_to(outside)
    (data / "train" / "class1" / "loop").symlink_to(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root / "here")
        before = everything(root, but=output)
        settings, images = open_data.open_data(one_epoch(data, output, knn_every=1))
        result = loop.run(settings, images, tf.distribute.get_strategy())
        return Run(settings, images.train, result, before, everything(root, but=output))


# ---------------------------------------------------------------- our own code

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}  # load code with data
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"enable_unsafe_deserialization", "unsafe_load", "full_load", "read_pickle", "to_pickle", "system", "popen"}


def dangers(source: str) -> list[str]:
    """What in a Python file could run code that comes with data, as "line: what"."""
    return [f"{node.lineno}: {what}" for node in ast.walk(ast.parse(source)) for what in _dangers_of(node)]


def _dangers_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
    if isinstance(node, ast.ImportFrom):
        names = [(node.module or "").split(".")[0], *(alias.name for alias in node.names)]
        return [name for name in names if name in MODULES | BUILTINS | CALLS]
    if isinstance(node, ast.Name):  # also where it is only handed on
        return [node.id] if node.id in BUILTINS | CALLS else []
    if isinstance(node, ast.Attribute):
        of_builtins = isinstance(node.value, ast.Name) and node.value.id in ("builtins", "__builtins__")
        return [node.attr] if node.attr in CALLS or (of_builtins and node.attr in BUILTINS) else []
    return _dangers_of_call(node) if isinstance(node, ast.Call) else []


def _dangers_of_call(call: ast.Call) -> list[str]:
    function, keywords = ast.unparse(call.func), {k.arg: k.value for k in call.keywords}
    module, _, name = function.rpartition(".")

    def says(keyword: str, value: bool) -> bool:
        given = keywords.get(keyword)
        return isinstance(given, ast.Constant) and given.value is value

    found = []
    if "allow_pickle" in keywords and not says("allow_pickle", False):
        found.append("allow_pickle")
    if name == "load" and module in ("np", "numpy") and not says("allow_pickle", False):
        found.append("np.load")  # its default has changed before, and it can be given by position
    if "safe_mode" in keywords and not says("safe_mode", True):
        found.append("safe_mode")
    if "shell" in keywords and not says("shell", False):
        found.append("shell")
    if name in ("load", "load_all") and module == "yaml":
        found.append(function)
    if name == "load" and module == "torch" and not says("weights_only", True):
        found.append("torch.load")
    if name == "import_module":
        given = call.args[0] if call.args else None
        if isinstance(given, ast.Constant) and str(given.value).split(".")[0] in MODULES:
            found.append(given.value)
    return found


@pytest.mark.parametrize(
    "snippet",
    [
        *[f"import {name}" for name in sorted(MODULES)],
        "import numpy, pickle as p",
        "from pickle import loads",
        "from multiprocessing.reduction import pickle",
        "def f():\n    import joblib.numpy_pickle",
        "importlib.import_module('dill')",
        "eval('1')",
        "exec(text)",
        "compile(text, '', 'exec')",
        "map(eval, texts)",
        "__import__('os')",
        "import builtins\nbuiltins.exec(text)",
        "from builtins import eval as e",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=allowed)",
        "np.load(path, None, True)",
        "np.load(path)",
        "numpy.savez(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "keras.config.enable_unsafe_deserialization()",
        "from tf_keras.config import enable_unsafe_deserialization",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.models.load_model(path, safe_mode=mode)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pandas.read_pickle(path)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_search_finds(snippet):
    assert dangers(f"{snippet}\n")


@pytest.mark.parametrize(
    "snippet",
    [
        "re.compile('a')",
        "model.compile(optimizer)",
        "importlib.import_module('tensorflow_addons')",
        "np.load(path, mmap_mode='r', allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "keras.models.load_model(path, safe_mode=True)",
        "subprocess.run(command, shell=False)",
        "import json\nresult = json.loads(text)",
        "x = 'eval pickle'  # exec",
    ],
)
def test_the_search_lets_pass(snippet):
    assert dangers(f"{snippet}\n") == []


def test_nothing_of_ours_loads_code():
    files = [*(ROOT / "pic_tf").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), ROOT / "setup.py"]
    assert len(files) > 30
    found = {str(path.relative_to(ROOT)): dangers(path.read_text()) for path in files}
    assert {path: what for path, what in found.items() if what} == {}


# ---------------------------------------------------------------- the exported SavedModel

ALLOWED = {
    *("AddV2", "Conv2D", "FusedBatchNormV3", "MaxPool", "Mean", "Mul", "Pack", "Pad", "Relu", "Select"),
    *("Const", "Identity", "NoOp", "PartitionedCall", "Placeholder", "StatefulPartitionedCall"),
    *("AssignVariableOp", "DisableCopyOnRead", "ReadVariableOp", "VarHandleOp"),
    # Encoded images, one by one: what they are, decoding, shrinking, cutting.
    *("DecodeImage", "DecodeJpeg", "ResizeBilinear", "ScaleAndTranslate", "StridedSlice", "Substr", "Unpack"),
    *("Any", "Cast", "EnsureShape", "Equal", "FloorDiv", "Greater", "Less", "LogicalAnd", "Maximum", "Minimum"),
    *("RealDiv", "Round", "Shape", "StatelessIf", "StatelessWhile", "Sub"),
    *("TensorListFromTensor", "TensorListGetItem", "TensorListReserve", "TensorListSetItem", "TensorListStack"),
}
OF_THE_SAVER = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename", "StaticRegexFullMatch", "StringJoin"}
LAYERS = {
    *("Activation", "Add", "BatchNormalization", "Conv2D", "Functional", "GlobalAveragePooling2D", "InputLayer"),
    *("MaxPooling2D", "ReLU", "Rescaling", "ZeroPadding2D"),
}
FILES = {"saved_model.pb", "keras_metadata.pb", "fingerprint.pb", "variables.index", "variables.data-00000-of-00001"}
FILES |= {"model_card.json", "model_card.md"}  # text


def strange_parts(path: pathlib.Path) -> set[str]:
    """Ops, Keras layers and files that a plain network of ours does not need; only the saver may touch files."""
    model, metadata = saved_model_pb2.SavedModel(), saved_metadata_pb2.SavedMetadata()
    model.ParseFromString((path / "saved_model.pb").read_bytes())
    strange = {file.name for file in path.rglob("*") if file.is_file()} - FILES
    for graph in (meta.graph_def for meta in model.meta_graphs):
        strange |= {node.op for node in graph.node} - ALLOWED
        for function in graph.library.function:
            saver = function.signature.name.startswith(("__inference__traced_save", "__inference__traced_restore"))
            strange |= {node.op for node in function.node_def} - ALLOWED - (OF_THE_SAVER if saver else set())
    if (path / "keras_metadata.pb").exists():
        metadata.ParseFromString((path / "keras_metadata.pb").read_bytes())
        strange |= {json.loads(node.metadata)["class_name"] for node in metadata.nodes} - LAYERS
    return strange


def test_an_export_only_computes(run_on_strange_names):
    assert strange_parts(pathlib.Path(run_on_strange_names.settings.output_dir) / run_folder.EXPORT) == set()


def python(x):
    return tf.py_function(lambda y: y, [x], tf.float32)


def numpy(x):
    return tf.numpy_function(lambda y: y, [x], tf.float32)


def read(x):
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def write(x):
    with tf.control_dependencies([tf.io.write_file("file", "text")]):
        return tf.identity(x)


def restore(x):
    return x + tf.raw_ops.RestoreV2(prefix="file", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0]


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (python, "EagerPyFunc"),
        (numpy, "PyFunc"),
        (read, "ReadFile"),
        (write, "WriteFile"),
        (restore, "RestoreV2"),
        (lambda x: tf.map_fn(python, x), "EagerPyFunc"),  # in a function of a function
    ],
)
def test_the_check_of_exports_finds(tmp_path, function, op):
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(tmp_path))
    assert op in strange_parts(tmp_path)


def test_the_check_of_exports_finds_a_layer_with_code(tmp_path):
    layers = [keras.Input([2]), keras.layers.Lambda(lambda x: x * 2)]
    keras.Sequential(layers).save(tmp_path / "model", save_format="tf")
    assert "Lambda" in strange_parts(tmp_path / "model")
    (tmp_path / "model" / "assets" / "state.pkl").write_bytes(b"")
    assert "state.pkl" in strange_parts(tmp_path / "model")


# ---------------------------------------------------------------- flag files


@pytest.mark.parametrize("name", ["dataset", "eval_dataset", "output_dir"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            "--seed=7",
            "-",
            "--",
            "a=b",
            "a,b",
            "# a",
            "//a",
            "a # b",
            " a",
            "a  b",
            "~/a",
            "~",
            "../a",
            "%s%n",
            "a\\nb",
        ),
        *("'a'", '"a', "`touch a`", "$(touch a)", "$HOME", "a;b", "--flagfile=b", "päth/画像", "a" * 5000),
    ],
)
def test_flag_file_gives_a_path_back_as_it_was(tmp_path, name, value):
    settings = Config(**{name: value})
    check.check(settings)
    (tmp_path / "flags.txt").write_text(flag_files.to_flagfile(settings))
    assert flag_files.from_flagfile(str(tmp_path / "flags.txt")) == settings


@pytest.mark.parametrize("name", ["dataset", "eval_dataset", "output_dir"])
@pytest.mark.parametrize(
    "value",
    [
        *("a\n--seed=7", "a\r--seed=7", "a\r\n--seed=7", "a\n", "a\0b", "a ", "a\t", "a\u3000", " "),
        *("a\x1b[2J", "a\u2028b", "a\x85b", os.fsdecode(b"a\xffb")),
    ],
)
def test_path_that_a_flag_file_would_not_give_back_is_refused(tmp_path, name, value):
    """A line break would smuggle in another flag."""
    settings = Config(**{name: value})
    with pytest.raises(ValueError, match=f"expected --{name} in one line of text that ends in no space, got "):
        check.check(settings)
    with pytest.raises(ValueError, match=f"expected --{name} in one line"):
        defaults.resolve(settings, 1500)


def test_the_refusal_is_needed(tmp_path):
    (tmp_path / "flags.txt").write_text(flag_files.to_flagfile(Config(output_dir="a\n--dataset=b")))
    assert flag_files.from_flagfile(str(tmp_path / "flags.txt")).dataset == "b"


def test_flag_file_that_includes_itself_is_refused(tmp_path):
    path = tmp_path / "flags.txt"
    path.write_text(f"--flagfile={path}\n--seed=3\n")
    with pytest.raises(ValueError, match=f"^expected flag files that do not include themselves, got {path} -> {path}$"):
        flag_files.from_flagfile(str(path))


def test_flag_file_in_a_folder_called_home(tmp_path, monkeypatch):
    """As --output_dir=~/run makes it, where the shell leaves the ~ alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder, seed in (("~/run", 1), ("home/run", 2)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "flags.txt").write_text(f"--seed={seed}\n")
    assert flag_files.from_flagfile("~/run/flags.txt").seed == 1


# ---------------------------------------------------------------- names from data sets


def test_names_of_a_data_set_lead_nowhere(run_on_strange_names):
    settings, train, result, before, after = run_on_strange_names
    shown = [name for name in NAMES if not name.startswith(".")]
    assert {os.path.basename(path) for path in train.paths} >= {*shown, "link.jpg", "target.jpg"}
    assert {"-rf", "a\n--seed=7", "%s", "y" * 255, os.fsdecode(b"\xff")} <= set(train.class_names)
    assert result.finished and result.step == len(train) // 8
    assert after == before
    output = pathlib.Path(settings.output_dir)
    for path in output.rglob("*"):
        assert path.name.isprintable() and path.name.isascii() and not path.is_symlink()
    assert flag_files.from_flagfile(str(output / run_folder.FLAGS_FILE)) == settings


def test_the_listing_sees_every_change(tmp_path):
    output, beside = tmp_path / "runs" / "run", tmp_path / "runs" / "beside"
    beside.mkdir(parents=True)
    (beside / "file").write_text("a")
    listings = [everything(tmp_path, but=output)]
    output.mkdir()
    (output / "file").write_text("a")
    assert everything(tmp_path, but=output) == listings[0]
    for change in (
        lambda: (beside / "file").write_text("b"),
        lambda: (beside / "other").write_text("a"),
        lambda: (beside / "link").symlink_to(output),
        lambda: (beside / "file").unlink(),
        lambda: (tmp_path / "runs" / "run2").mkdir(),
    ):
        change()
        listings.append(everything(tmp_path, but=output))
        assert listings[-1] != listings[-2]


@pytest.mark.parametrize("name", ["a\nb.jpg", "\x1b[2J.jpg", os.fsdecode(b"\xff.jpg")])
def test_a_broken_file_is_named_in_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\xff\xd8\xff")
    source = open_folder(tmp_path)
    broken = BrokenImages(source, tmp_path / "broken.csv")
    broken.add(np.array([0]), np.array([path.read_bytes()], object))
    (said,) = broken.new()
    assert said == f"{str(path)!r}: its header is damaged" and said.isprintable()
    assert BrokenImages(source, tmp_path / "broken.csv").reasons == {0: "its header is damaged"}
    with pytest.raises(ValueError) as error:
        broken.check(0.01)
    assert repr(str(path)) in str(error.value) and str(error.value).isprintable()
    path.unlink()
    said = str(find_unreadable(source, [0]))
    assert said.startswith(f"expected an image in {str(path)!r}, got one that cannot be read (")
    assert said.isprintable()
