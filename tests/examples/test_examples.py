"""The README's example and every script in examples/ run as their users run them, on small settings."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MNIST = ROOT.parent / "shared" / "data" / "mnist"
pytestmark = pytest.mark.spark


def run(*arguments, folder, timeout_s=300):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    out = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert out.returncode == 0, out.stdout[-4000:] + out.stderr[-4000:]
    return out.stdout


def test_readme(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    assert 15 <= len(code.strip().splitlines()) <= 25
    (tmp_path / "readme.py").write_text(
        f"if __name__ == '__main__':\n    {code.strip().replace(chr(10), chr(10) + '    ')}\n    sc.stop()\n"
    )
    out = run("readme.py", folder=tmp_path)
    accuracy = float(re.search(r"'accuracy': ([0-9.]+)", out).group(1))
    assert accuracy > 0.8
    assert list((tmp_path / "logs").rglob("events.out.tfevents.*"))


def test_digits(tmp_path):
    out = run(ROOT / "examples" / "digits.py", "--epochs", 2, "--out", tmp_path / "out", folder=tmp_path)
    assert float(re.search(r"held-out accuracy ([0-9.]+)", out).group(1)) > 0.8
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "digits.keras").exists()


def test_mnist(tmp_path):
    if not MNIST.is_dir():
        pytest.skip(f"needs MNIST's idx files in {MNIST.relative_to(ROOT.parent)} beside the checkout")
    out = run(ROOT / "examples" / "mnist.py", "--data", MNIST, "--limit", 2000, "--epochs", 5, folder=tmp_path)
    assert float(re.search(r"test accuracy ([0-9.]+)", out).group(1)) > 0.8


@pytest.mark.soak  # its page is run by tests/docs
def test_text_classifier_on_its_own_lines(tmp_path):
    out = run(ROOT / "examples" / "text_classifier.py", "--epochs", 8, folder=tmp_path)
    assert float(re.search(r"test accuracy ([0-9.]+)", out).group(1)) == 1.0


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_first_line_says_what_it_shows(script):
    assert script.read_text().startswith('"""Shows ')


def test_ncf(tmp_path):
    """Users like the items of their own half."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(40), 15)
    items = random.integers(0, 30, len(users)) * 2 + users % 2
    seen = np.unique(np.stack([users, items], axis=1), axis=0)
    test = np.stack([np.arange(40), np.arange(40) % 2 + 2 * random.integers(0, 30, 40)], axis=1)
    negative = 2 * random.integers(0, 30, (40, 20)) + 1 - np.arange(40)[:, None] % 2
    np.savez(tmp_path / "ncf.npz", train=seen, test=test, neg=negative)
    settings = ("--epochs", 30, "--batch-size", 64, "--learning-rate", 0.01)
    out = run(ROOT / "examples" / "ncf.py", tmp_path / "ncf.npz", *settings, folder=tmp_path)
    assert float(re.search(r"best: HR@10 ([0-9.]+)", out).group(1)) > 0.9
