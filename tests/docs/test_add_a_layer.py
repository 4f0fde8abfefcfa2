"""The worked example of the page on adding a layer runs as it stands."""

import pathlib
import re

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "howto" / "add-a-layer.md"


def test_the_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(block, str(PAGE), "exec"), {"__name__": "add_a_layer"})


def test_the_files_it_names_are_there():
    root = PAGE.parents[2]
    named = re.findall(r"`((?:kerasoft|tests|compiler)/[\w/]+\.py)`", PAGE.read_text())
    assert len(named) >= 4
    assert [n for n in named if not (root / n).exists()] == []
