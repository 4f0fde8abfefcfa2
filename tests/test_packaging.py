"""The wheel and the sdist hold everything, and the wheel works away from the checkout."""

import os
import pathlib
import platform
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
WANTED = ["kerasoft/__init__.py", "kerasoft/compiler/ir/graph.py", "kerasoft/runtime/strategies/all_reduce.py"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist and the wheel, built from a copy of the tracked and new files."""
    folder = tmp_path_factory.mktemp("dist")
    copy = tmp_path_factory.mktemp("copy")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(copy)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "KERASOFT_BUILD_NATIVE": "mkl",
        },  # the smallest; all are built when the checkout is installed
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_wheel_holds_every_module(built):
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    assert set(WANTED) <= names
    for package, folder in (
        ("kerasoft", "kerasoft"),
        ("kerasoft/compiler", "compiler"),
        ("kerasoft/runtime", "runtime"),
    ):
        for file in (ROOT / folder).rglob("*.py"):
            assert f"{package}/{file.relative_to(ROOT / folder).as_posix()}" in names
    if platform.machine() == "x86_64" and sys.platform == "linux":
        assert {f"kerasoft/compiler/kernels/lib/mkl_{level}.so" for level in ("v3", "v4")} <= names
    assert not [n for n in names if n.startswith(("tests/", "compiler/", "runtime/", "examples/"))]


def test_sdist_builds_the_same(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert {"pyproject.toml", "compiler/ir/graph.py", "runtime/__init__.py", "README.md"} <= names


def test_wheel_works_elsewhere(built, tmp_path):
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, next(built.glob("*.whl"))],
        check=True,
    )
    code = (
        "import kerasoft as ks, kerasoft.runtime, numpy as np, sys; assert sys.argv[1] in ks.__file__\n"
        "m = ks.Sequential([ks.Input((3,)), ks.layers.Dense(2)]); m.compile('sgd', 'mse')\n"
        "m.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0); print(m.predict(np.zeros((2, 3)), verbose=0).shape)"
    )
    # -I: neither the checkout nor the environment's editable install is on the path
    run = f"import sys; sys.path.insert(0, sys.argv[1]); exec({code!r})"
    out = subprocess.run([sys.executable, "-I", "-c", run, str(target)], cwd=tmp_path, capture_output=True, text=True)
    assert out.stdout.strip().splitlines()[-1:] == ["(2, 2)"], out.stderr


def test_bare_checkout_works_without_installing(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import kerasoft.runtime, kerasoft.compiler; print(kerasoft.runtime.__file__)"
    out = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert pathlib.Path(out.stdout.strip()).parent == ROOT / "runtime"
