"""Kernels as they ran: nothing is lost between the graph's FLOPs and the kernels', and the plots show every kernel."""

import html.parser
import math

import numpy as np
import pytest
from kerasoft.compiler import hlo_text
from kerasoft.compiler.errors import ProgramError
from kerasoft.compiler.explain import explain
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, source, symbol
from kerasoft.compiler.ops import activations, control, convolution, linalg, shape
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops.registry import constant, input_node, param_node

B = symbol("b")


def network():
    x = input_node("x", (B, 12, 12, 4), "float32")
    kernel, head = param_node("kernel", (3, 3, 4, 8)), param_node("head", (12 * 12 * 8, 6))
    with source("conv"):
        h = activations.relu(convolution.conv(x, kernel, padding="same"))
    with source("head"):
        y = linalg.matmul(shape.reshape(h, shape=(B, 12 * 12 * 8)), head)
    with source("loop"):
        square = param_node("square", (6, 6))
        (y,), _ = control.scan(lambda c, _: ([a.tanh(linalg.matmul(c[0], square))], []), [y], [], length=3)
    grads = gradient({shape.sum(a.square(y)): constant(1.0)}, [kernel, head])
    return Graph((x,), (y, *grads), ("y", "dkernel", "dhead"))


@pytest.fixture(scope="module")
def part():
    return explain(network(), rows=16).parts[0]


def test_flops_of_kernels_are_the_graphs(part):
    heavy = [r for r in part.regions if r.flops > 0.01 * part.flops]
    assert 0.9 * part.flops < sum(r.flops for r in part.regions) <= part.flops
    convolutions = [r for r in heavy if any(n.op.name.startswith("conv") for n in r.nodes)]
    assert len(convolutions) == 2 and all(r.flops >= 2 * 16 * 144 * 8 * 36 for r in convolutions)
    assert any("loop" in r.what for r in part.regions)
    assert all(r.seconds > 0 and r.bytes > 0 and r.share > 0 for r in heavy)
    largest = max(heavy, key=lambda r: r.bytes)
    assert largest.bytes >= 4 * 16 * 144 * 8
    assert part.regions[0].seconds == max(r.seconds for r in part.regions)
    assert part.limit.flops_s > 1e9 and part.limit.bytes_s > 1e8


def test_the_text_shows_time_and_share(part):
    lines = part.text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("--- kernels as they ran: "))
    assert "GFLOP/s; the machine's peak, measured: " in lines[at]
    assert lines[at + 1].split() == "ms flops bytes GFLOP/s of peak kernel layers: ops".split()
    assert " %  " in lines[at + 2]
    assert "--- kernels as they ran" not in explain(network(), rows=16, measure=False).text


def test_half_precision_is_timed_beside_float32(monkeypatch):
    from kerasoft.compiler import half_precision

    x, k = input_node("x", (B, 8), "bfloat16"), input_node("k", (8, 4), "bfloat16")
    graph = Graph((x, k), (linalg.matmul(x, k),), ("y",))
    seen = []

    def timed(op, candidates, types, attrs):
        seen.append((op, [t.dtype for t in types]))
        return {"xla": 0.002 if types[0].dtype == "bfloat16" else 0.001}

    monkeypatch.setattr(half_precision, "timed", timed)
    said = explain(graph, rows=16).text
    assert seen == [("matmul", ["bfloat16"] * 2), ("matmul", ["float32"] * 2)]
    assert "2 ms in bfloat16 and 1 ms in float32 here: a float32 policy would be faster on this machine" in said
    assert half_precision.remark(network(), {"b": 4}) == ""


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_rooflines(part, tmp_path):
    from kerasoft.compiler.explain import Explanation
    from matplotlib.image import imread

    explained = Explanation((part,))
    explained.save_roofline(tmp_path / "roof.html")
    text = (tmp_path / "roof.html").read_text()
    assert "http" not in text  # nothing is loaded
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    timed = [r for r in part.regions if r.seconds and r.flops and r.bytes]
    circles = [attrs for tag, attrs in tags.seen if tag == "circle"]
    assert len(circles) == len(timed) + 2  # and the legend
    assert all(math.isfinite(float(c["cx"])) and 0 < float(c["cx"]) < 960 and 0 < float(c["cy"]) < 560 for c in circles)
    explained.save_roofline(tmp_path / "roof.png")
    pixels = imread(tmp_path / "roof.png")
    assert 0.01 < np.mean(pixels[..., :3].min(axis=-1) < 0.9) < 0.6
    with pytest.raises(ProgramError, match="written as .png or .html, got .*roof.pdf"):
        explained.save_roofline(tmp_path / "roof.pdf")
    with pytest.raises(ProgramError, match="the train graph was not measured: explain with compile=True"):
        explain(network(), rows=16, measure=False).save_roofline(tmp_path / "roof.png")


def test_reading_the_text_of_an_executable():
    text = """HloModule jit_f

%inner (p: f32[2,3]) -> f32[2,3] {
  %p = f32[2,3]{1,0} parameter(0)
  ROOT %t = f32[2,3]{1,0} tanh(%p), metadata={op_name="jit(f)/n7/tanh"}
}

ENTRY %main (a: f32[2,3], b: bf16[4]) -> (f32[2,3], s32[]) {
  %a = f32[2,3]{1,0} parameter(0)
  %tanh_fusion = f32[2,3]{1,0} fusion(%a), kind=kLoop, calls=%inner, metadata={op_name="jit(f)/n7/tanh"}
  %call.1 = (bf16[4]{0}, pred[5]{0}) custom-call(%tanh_fusion, %a), custom_call_target="kerasoft.x", metadata={op_name="jit(f)/n12"}
  ROOT %tuple = (f32[2,3]{1,0}, s32[]) tuple(%tanh_fusion)
}
"""
    found, entry = hlo_text.computations(text)
    assert entry == "main" and [i.opcode for i in found[entry]] == ["parameter", "fusion", "custom-call", "tuple"]
    fusion, call = found[entry][1:3]
    assert (fusion.result_bytes, fusion.operands, fusion.called) == (24, ("a",), ("inner",))
    assert [p.name for p in hlo_text.inside(fusion, found)] == ["tanh_fusion", "p", "t"]
    assert (call.result_bytes, call.operands, call.target, call.scopes) == (
        13,
        ("tanh_fusion", "a"),
        "kerasoft.x",
        (12,),
    )
    assert hlo_text.kernel_of(fusion, hlo_text.inside(fusion, found)) == "xla fusion"
