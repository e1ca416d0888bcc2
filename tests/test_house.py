"""The layout holds: short files, imports one way, an installed package that has its tools and
recipes.
"""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
from distutils.core import run_setup  # setuptools brings it where Python has none

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LONGEST = 300  # lines
TOOLS = sorted((ROOT / "tools").rglob("*.py"))


def files(*folders: str) -> list[str]:
    return sorted(
        str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py")
    )


def imported(path: pathlib.Path) -> set[str]:
    """Names of the modules that a file imports, wherever in it; ".step" of its own folder."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


@pytest.mark.parametrize("file", files("pic_tf", "tools"))
def test_no_file_is_too_long_to_read(file):
    assert len((ROOT / file).read_text().splitlines()) <= LONGEST


def test_imports_go_one_way():
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ended = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_tool_imports_the_package_and_its_own_folder_only(path):
    """So that it starts as `python tools/NAME.py` and as `python -m pic_tf.tools.NAME`."""
    own = {tool.stem for tool in TOOLS} | {"tools"}
    for name in imported(path):
        assert not name.startswith("..") and not name.startswith("pic_tf.tools"), name
        assert name.split(".")[0] not in own - set(sys.stdlib_module_names), name
        assert not name.startswith(".") or path.parent.name != "tools", name


PARTS = [path for path in TOOLS if path.parent.name != "tools" and not path.stem.startswith("__")]
PARTS = [path for path in PARTS if path.stem != "compiled_step"]  # for machines without the package


@pytest.mark.parametrize("path", PARTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_part_of_a_tool_names_its_command(path):
    """Where it is started by itself, before it imports anything."""
    ended = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    command = f"python tools/{path.parent.name}"
    assert ended.returncode == 1 and not ended.stdout
    assert ended.stderr == f"error: expected {command}, got a part of it: see its --help\n"


def test_the_package_does_not_import_its_tools():
    for file in files("pic_tf"):
        assert not [
            name
            for name in imported(ROOT / file)
            if name.split(".")[0] == "tools" or "pic_tf.tools" in name
        ]


def test_the_package_holds_tools_and_recipes(monkeypatch):
    """What setup.py would install, without a build."""
    monkeypatch.chdir(ROOT)
    command = run_setup("setup.py", stop_after="commandline").get_command_obj("build_py")
    command.ensure_finalized()
    held = {
        os.path.relpath(path, command.build_lib)
        for path in command.get_outputs(include_bytecode=False)
    }
    assert held >= {
        file for file in files("pic_tf") if (ROOT / file).parent.joinpath("__init__.py").exists()
    }
    assert {path for path in held if path.startswith("pic_tf/tools/")} == {
        f"pic_tf/{file}" for file in files("tools")
    }
    configs = ROOT / "configs"
    paths = [*configs.rglob("*.flags"), *configs.glob("studies/*.toml")]
    recipes = {f"pic_tf/{path.relative_to(ROOT)}" for path in paths}
    assert {path for path in held if path.startswith("pic_tf/configs/")} == recipes and len(
        recipes
    ) >= 17


@pytest.mark.slow
def test_tools_and_recipes_work_from_a_wheel(tmp_path):
    source, site, elsewhere = (tmp_path / name for name in ("source", "site", "elsewhere"))
    for folder in ("pic_tf", "tools", "configs"):
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, source)
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}", str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={site}", str(wheel)], check=True)

    def run(module: str, *arguments: str) -> str:
        command = [sys.executable, "-m", module, *arguments]
        environment = os.environ | {"PYTHONPATH": str(site)}
        ended = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=200
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "runs/in1k_200ep" in run(
        "pic_tf.tools.plan", "--flagfile=configs/in1k_200ep.flags", "--plan_replicas=8"
    )
    assert "runs/in1k_400ep" in run("pic_tf.train", "--flagfile", "in1k_400ep.flags", "--plan_only")
    assert "CSV file to write" in run("pic_tf.predict", "--help")
    assert "model of step time" in run("pic_tf.tools.benchmark", "replicas", "--model_only")
