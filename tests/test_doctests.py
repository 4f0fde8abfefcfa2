"""Every example in a docstring runs."""

import doctest
import importlib
import pathlib
import re

import numpy as np
import pytest

import kerasoft as ks

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = {"kerasoft": ROOT / "kerasoft", "kerasoft.compiler": ROOT / "compiler", "kerasoft.runtime": ROOT / "runtime"}


def with_examples():
    for package, folder in FOLDERS.items():
        for file in sorted(folder.rglob("*.py")):
            if ">>> " in file.read_text():
                parts = file.relative_to(folder).with_suffix("").parts
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                yield ".".join((package, *parts))


@pytest.mark.parametrize("name", list(with_examples()))
def test_docstrings(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(module, extraglobs={"ks": ks, "np": np}, optionflags=flags, report=True)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    "file", sorted(p.relative_to(ROOT).as_posix() for p in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
)
def test_links_lead_somewhere(file):
    text = (ROOT / file).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / file).parent / target).exists(), f"{file} links to {target}"
