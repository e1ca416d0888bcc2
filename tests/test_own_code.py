"""No file of the package can run code that comes with data."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
}  # load code with data
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "enable_unsafe_deserialization",
    "unsafe_load",
    "full_load",
    "read_pickle",
    "to_pickle",
    "system",
    "popen",
}


def dangers(source: str) -> list[str]:
    """What in a Python file could run code that comes with data, as "line: what"."""
    return [
        f"{node.lineno}: {what}"
        for node in ast.walk(ast.parse(source))
        for what in _dangers_of(node)
    ]


def _dangers_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
    if isinstance(node, ast.ImportFrom):
        names = [(node.module or "").split(".")[0], *(alias.name for alias in node.names)]
        if names == ["pickle", "dump"]:  # it writes, which runs no code
            return []
        return [name for name in names if name in MODULES | BUILTINS | CALLS]
    if isinstance(node, ast.Name):  # also where it is only handed on
        return [node.id] if node.id in BUILTINS | CALLS else []
    if isinstance(node, ast.Attribute):
        of_builtins = isinstance(node.value, ast.Name) and node.value.id in (
            "builtins",
            "__builtins__",
        )
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
        "from pickle import dump, load",
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
        "from pickle import dump",
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
