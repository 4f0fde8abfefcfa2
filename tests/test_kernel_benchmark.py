"""`python -m kerasoft.benchmark kernels`: its graphs, what it prints, what it keeps for the compiler."""

import io
import json

import pytest
from kerasoft.compiler.kernels import lowerings
from kerasoft.compiler.kernels.choice import case_of
from kerasoft.compiler.kernels.quantised import has_vnni

from kerasoft.benchmark import kernels, workloads


def test_all_rows_are_graphs_and_reach_every_library():
    ops = set()
    for _, _, graph in workloads.all_rows():
        ops |= {n.op.name for n in graph.nodes}
    with_mkl = {op for op, table in lowerings._TABLE.items() if any(one.needs == "mkl" for one in table)}
    assert {"quantised_dense", "quantised_conv", "sparse_dot", "fourier_rfft", "exp", "average_pool", "lstm"} <= ops
    assert len(with_mkl & ops) >= 9


def test_a_group_as_json():
    out = io.StringIO()
    assert kernels.run("sparse products", as_json=True, out=out) == 0
    found = json.loads(out.getvalue())
    assert [row["op"] for row in found["rows"]] == ["sparse_dot", "sparse_dot"]
    for row in found["rows"]:
        assert row["best"] in row["times"] and row["rule"] in row["times"] and row["flops"] > 0
        assert min(row["times"].values()) == row["times"][row["best"]]


def test_a_group_that_there_is_not(capsys):
    assert kernels.run("no such group") == 1
    assert "no such group" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["products in int8", "convolutions in int8", "convolutions in bfloat16"])
def test_rows_of_few_bits_have_a_choice(group):
    if "int8" in group and not has_vnni():
        pytest.skip("without VNNI only XLA's sums of 8-bit products are exact")
    for _, _, graph in workloads.all_rows(group):
        cases = [case for n in graph.nodes if (case := case_of(n, {}, all_=True)) is not None]
        assert cases and all("xla" in case.candidates for case in cases)
