"""Each op of the registry against independent answers: one table, one row or more for each op.

Rows stand in rows_of_*.py; op_contract.py says what a row is.

A row gives the op on nodes whose first axis may be the unknown size `b`. Checked are: the inferred type against the
computed one, values against NumPy, SciPy or PyTorch, graph values against eager ones, the gradient graph against
JAX's gradient of the lowered forward graph, and against finite differences in double precision.
"""

from __future__ import annotations

import pytest
import rows_of_arrays  # noqa: F401  (the families fill ROWS)
import rows_of_elements  # noqa: F401
import rows_of_layers  # noqa: F401
import rows_of_sequences  # noqa: F401
from kerasoft.compiler.ops.registry import REGISTRY
from op_contract import ROWS, Row


def test_every_op_has_a_row():
    rows = {r.op for r in ROWS} | {"param"}  # params are inputs with another name; every train graph holds some
    rows |= {"trial_root"}  # stands for a graph while its sizes are tried; tests/compiler/ops/test_trials.py
    ours = {name for name, op in REGISTRY.items() if op.home.startswith("kerasoft.compiler")}  # not the front-end's
    assert len(ours) > 150 and ours - rows == set()


@pytest.mark.parametrize("case", ROWS, ids=lambda r: r.label)
def test_op(case: Row, check_op):
    check_op(case)
