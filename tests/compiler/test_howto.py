"""The worked examples of the how-to pages run."""

import pathlib
import re

import pytest
from kerasoft.compiler.ops.registry import REGISTRY

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "howto"


@pytest.mark.parametrize("page", ["add-an-op.md", "add-a-pass.md"])
def test_worked_examples(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert len(blocks) == 2
    names = set(REGISTRY)
    try:
        exec(compile("\n".join(blocks), page, "exec"), {"__name__": page})
    finally:
        for added in set(REGISTRY) - names:
            del REGISTRY[added]
