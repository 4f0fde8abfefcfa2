"""Imports run one way, `import kerasoft` is cheap, and the wheel's package list is whole."""

import ast
import pathlib
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = {"kerasoft": ROOT / "kerasoft", "kerasoft.compiler": ROOT / "compiler", "kerasoft.runtime": ROOT / "runtime"}


def modules():
    for name, folder in FOLDERS.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            yield ".".join((name, *parts)), file


def imported(name, file):
    """Absolute names of all modules that `file` imports, also inside functions."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            full = ".".join([*base, *([node.module] if node.module else [])])
            yield full
            yield from (f"{full}.{alias.name}" for alias in node.names)


ALL = list(modules())


def violations(rule):
    return sorted(
        {f"{name} imports {other}" for name, file in ALL for other in imported(name, file) if rule(name, other)}
    )


def under(name, *packages):
    return any(name == p or name.startswith(p + ".") for p in packages)


def test_compiler_imports_neither_of_the_others():
    assert not violations(
        lambda name, other: (
            under(name, "kerasoft.compiler")
            and under(other, "kerasoft")
            and other != "kerasoft"
            and not under(other, "kerasoft.compiler")
        )
    )


def test_runtime_knows_only_programs():
    allowed = (
        "kerasoft.compiler.program",
        "kerasoft.compiler.parallel",
        "kerasoft.compiler.errors",
        "kerasoft.runtime",
    )
    assert not violations(
        lambda name, other: (
            under(name, "kerasoft.runtime")
            and under(other, "kerasoft")
            and other not in ("kerasoft", "kerasoft.compiler", "kerasoft.__version__")
            and not under(other, *allowed)
        )
    )


def test_only_training_and_data_import_the_runtime():
    assert not violations(
        lambda name, other: (
            under(other, "kerasoft.runtime")
            and not under(name, "kerasoft.runtime", "kerasoft.training", "kerasoft.data", "kerasoft.doctor")
        )
    )


def test_pyspark_is_imported_in_few_places():
    def allowed(name):
        return under(name, "kerasoft.data", "kerasoft.estimators") or name.startswith("kerasoft.runtime.spark")

    assert not violations(lambda name, other: under(other, "pyspark") and not allowed(name))


def test_nothing_imports_the_oracles():
    assert not violations(lambda name, other: under(other, "keras", "torch", "tensorflow"))


def test_import_kerasoft_loads_neither_jax_nor_spark():
    heavy = "('jax', 'pyspark', 'numpy', 'h5py')"
    code = f"import sys, kerasoft, kerasoft.runtime; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["compiler", "runtime"])
def test_folders_refuse_another_name(folder):
    out = subprocess.run([sys.executable, "-c", f"import {folder}"], capture_output=True, text=True, cwd=ROOT)
    assert f"use `import kerasoft.{folder}`" in out.stderr


def test_package_list_names_every_folder():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {name for name, file in ALL if file.name == "__init__.py"}
    assert listed == there
