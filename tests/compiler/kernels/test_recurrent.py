"""Native lstm, gru, simple_rnn and conv_lstm against loops in double precision: values, gradients, masks, threads, what they need."""

import concurrent.futures
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.compiler import program as kp
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.kernels import bridge
from kerasoft.compiler.kernels.choice import Chooser
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops import arithmetic, conv_lstm, recurrent, shape
from kerasoft.compiler.ops.registry import constant, input_node, param_node
from kerasoft.compiler.passes import optimise

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not bridge.loaded("native"), reason="no native kernels here")
GATES = {"lstm": 4, "gru": 3, "simple_rnn": 1}


def _graph(kind, arrays, mask, back, outputs, wrt=None):
    """The outputs chosen, and the gradients of a sum of sines of them."""
    nodes = [input_node(f"x{k}", a.shape, "float32") for k, a in enumerate(arrays)]
    m = input_node("mask", mask.shape, "bool") if mask is not None else None
    bias = nodes[-1] if len(arrays) == (6 if kind == "lstm" else 5) else None
    out = getattr(recurrent, kind)(*nodes[: 5 if kind == "lstm" else 4], bias, m, go_backwards=back)
    chosen = [out[i] for i in outputs]
    total = functools.reduce(arithmetic.add, [shape.sum(arithmetic.sin(o + float(k))) for k, o in enumerate(chosen)])
    grads = gradient({total: constant(1.0)}, [nodes[i] for i in wrt] if wrt is not None else nodes)
    results = (*chosen, *grads)
    inputs = (*nodes, m) if mask is not None else tuple(nodes)
    return optimise(Graph(inputs, results, tuple(f"y{i}" for i in range(len(results)))), "train", check=True)


def _native(graph, arrays, mask):
    chooser = Chooser()
    made = jax.jit(function(graph, lowerer=chooser))(*arrays, *(() if mask is None else (mask,)))
    names = {n.op.name.removesuffix("_grad"): picked.name for n, picked in chooser.picked.items()}
    assert {names[k] for k in GATES if k in names} == {"native"}
    return made


def _loops(kind, arrays, mask, back, outputs):
    """The same in float64 by PyTorch's autograd over steps written out."""
    values = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    states = 2 if kind == "lstm" else 1
    x, h, *rest = values
    c = rest.pop(0) if states == 2 else None
    w, r, *rest = rest
    bias = rest[0] if rest else torch.zeros((2, w.shape[1]) if kind == "gru" else w.shape[1:], dtype=torch.float64)
    sequence = []
    for t in reversed(range(x.shape[1])) if back else range(x.shape[1]):
        new_c = c
        if kind == "gru":
            xz, xr, xn = (x[:, t] @ w + bias[0]).chunk(3, 1)
            hz, hr, hn = (h @ r + bias[1]).chunk(3, 1)
            z = torch.sigmoid(xz + hz)
            new_h = z * h + (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        elif kind == "lstm":
            i, f, g, o = (x[:, t] @ w + h @ r + bias).chunk(4, 1)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            new_h = torch.sigmoid(o) * torch.tanh(new_c)
        else:
            new_h = torch.tanh(x[:, t] @ w + h @ r + bias)
        if mask is not None:
            valid = torch.tensor(mask[:, t : t + 1])
            new_h = torch.where(valid, new_h, h)
            new_c = None if c is None else torch.where(valid, new_c, c)
        h, c = new_h, new_c
        sequence.append(h)
    results = [torch.stack(sequence, 1), h, c]
    total = sum(torch.sin(results[i] + k).sum() for k, i in enumerate(outputs))
    total.backward()
    zeros = [torch.zeros_like(v) if v.grad is None else v.grad for v in values]
    return [*(results[i].detach().numpy() for i in outputs), *(g.numpy() for g in zeros)]


def _arrays(kind, b, t, d, u, bias, seed=0):
    rng = np.random.default_rng(seed)
    g = GATES[kind]
    shapes = [(b, t, d), *[(b, u)] * (2 if kind == "lstm" else 1), (d, g * u), (u, g * u)]
    shapes += [(2, 3 * u) if kind == "gru" else (g * u,)] if bias else []
    return [(rng.normal(size=s) * (0.5 if len(s) > 2 or s[0] == b else 0.3)).astype(np.float32) for s in shapes], rng


def _compare(kind, arrays, mask, back, outputs):
    made = _native(_graph(kind, arrays, mask, back, outputs), arrays, mask)
    for mine, exact in zip(made, _loops(kind, arrays, mask, back, outputs), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=2e-5, atol=2e-5 * max(1, np.abs(exact).max()))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(GATES)),
    st.tuples(st.integers(1, 19), st.integers(1, 6), st.integers(1, 21), st.integers(1, 37)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(0,), (1,), (0, 1)]),
)
def test_any_sizes(kind, sizes, bias, masked, back, outputs):
    arrays, rng = _arrays(kind, *sizes, bias)
    mask = rng.random(sizes[:2]) < 0.6 if masked else None
    if mask is not None:
        mask[0] = False
    _compare(kind, arrays, mask, back, (*outputs, 2) if kind == "lstm" and bias else outputs)


@pytest.mark.parametrize("kind", sorted(GATES))
def test_more_rows_than_a_thread_takes_at_once_and_several_chunks_of_steps(kind):
    arrays, _ = _arrays(kind, 150, 11, 70, 66, True)
    arrays = [a * 0.3 for a in arrays]
    _compare(kind, arrays, None, False, (0, 1))


def test_only_what_is_read_is_computed():
    """A first layer's input gets no gradient; the op that gives it says so."""
    arrays, _ = _arrays("lstm", 3, 4, 5, 6, True)
    graph = _graph("lstm", arrays, None, False, (1,), wrt=(3, 4, 5))
    wanted = {n.op.name: n.attrs["wanted"] for n in graph.nodes if "wanted" in n.attrs}
    assert wanted == {"lstm": (0, 1, 3, 4), "lstm_grad": (3, 4, 5)}
    full = _native(_graph("lstm", arrays, None, False, (1,)), arrays, None)
    np.testing.assert_array_equal(_native(graph, arrays, None)[1], full[4])


@pytest.mark.parametrize("kind", sorted(GATES))
def test_rows_do_not_meet(kind):
    """NaN and infinity in one row reach all of that row's later steps, and no other row; results of rows do not depend
    on the rows beside them."""
    arrays, _ = _arrays(kind, 9, 5, 3, 20, True)
    clean = _native(_graph(kind, arrays, None, False, (0, 1)), arrays, None)
    x = arrays[0].copy()
    x[4, 2, 1], x[6, 3, 0] = np.nan, np.inf
    sequence = np.asarray(_native(_graph(kind, arrays, None, False, (0, 1)), [x, *arrays[1:]], None)[0])
    assert np.isnan(sequence[4, 2:]).all() and np.isfinite(sequence[4, :2]).all()
    rest = [0, 1, 2, 3, 5, 7, 8]
    np.testing.assert_array_equal(sequence[rest], np.asarray(clean[0])[rest])
    alone = [a[8:] if k < (3 if kind == "lstm" else 2) else a for k, a in enumerate(arrays)]
    one = _native(_graph(kind, alone, None, False, (0, 1)), alone, None)
    np.testing.assert_array_equal(one[0][0], clean[0][8])


def test_calls_at_once_do_not_meet():
    arrays, rng = _arrays("lstm", 32, 20, 24, 40, True)
    graph = _graph("lstm", arrays, None, False, (0, 1))
    compiled = jax.jit(function(graph, lowerer=Chooser()))
    inputs = [[rng.normal(size=arrays[0].shape).astype(np.float32), *arrays[1:]] for _ in range(4)]
    alone = [[np.asarray(v) for v in compiled(*one)] for one in inputs]

    def work(k):
        for i in range(10):
            for mine, want in zip(compiled(*inputs[(k + i) % 4]), alone[(k + i) % 4]):
                np.testing.assert_array_equal(mine, want)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_it_can_be_turned_off(monkeypatch):
    arrays, _ = _arrays("gru", 3, 4, 5, 6, True)
    graph = _graph("gru", arrays, None, False, (0, 1))
    native = _native(graph, arrays, None)
    monkeypatch.setenv("KERASOFT_KERNELS", "*=xla")
    chooser = Chooser()
    plain = jax.jit(function(graph, lowerer=chooser))(*arrays)
    assert {picked.name for picked in chooser.picked.values()} == {"xla"} and not chooser.needs
    for a, b in zip(native, plain):
        np.testing.assert_allclose(a, b, atol=1e-5)


# --- conv_lstm ----------------------------------------------------------------------------------------------------


def _conv_graph(arrays, mask, outputs):
    nodes = [input_node(f"x{k}", a.shape, "float32") for k, a in enumerate(arrays)]
    m = input_node("mask", mask.shape, "bool") if mask is not None else None
    out = conv_lstm.conv_lstm(*nodes, m)
    chosen = [out[i] for i in outputs]
    total = functools.reduce(arithmetic.add, [shape.sum(arithmetic.sin(o + float(k))) for k, o in enumerate(chosen)])
    results = (*chosen, *gradient({total: constant(1.0)}, nodes))
    inputs = (*nodes, m) if mask is not None else tuple(nodes)
    return optimise(Graph(inputs, results, tuple(f"y{i}" for i in range(len(results)))), "train", check=True)


def _conv_loops(arrays, mask, outputs):
    """conv_lstm in float64 by PyTorch's autograd, channels first."""
    values = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    z, h, c, kernel = values
    rank = kernel.ndim - 2
    window = torch.movedim(kernel, (-1, -2), (0, 1))
    pads = [p for k in reversed(kernel.shape[:-2]) for p in ((k - 1) // 2, k // 2)]
    convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[rank - 1]
    sequence = []
    for t in range(z.shape[1]):
        wide = torch.nn.functional.pad(torch.movedim(h, -1, 1), pads)
        i, f, g, o = (z[:, t] + torch.movedim(convolve(wide, window), 1, -1)).chunk(4, -1)
        new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        new_h = torch.sigmoid(o) * torch.tanh(new_c)
        if mask is not None:
            valid = torch.tensor(mask[:, t]).reshape(-1, *(1,) * (rank + 1))
            new_h, new_c = torch.where(valid, new_h, h), torch.where(valid, new_c, c)
        h, c = new_h, new_c
        sequence.append(h)
    results = [torch.stack(sequence, 1), h, c]
    sum(torch.sin(results[i] + k).sum() for k, i in enumerate(outputs)).backward()
    return [*(results[i].detach().numpy() for i in outputs), *(v.grad.numpy() for v in values)]


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 35)),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([(0,), (1,), (0, 1, 2)]),
)
def test_conv_lstm_of_any_sizes(sizes, axes, masked, outputs):
    (b, t, f), spatial, window = sizes, [n for n, _ in axes], [k for _, k in axes]
    rng = np.random.default_rng(0)
    shapes = [(b, t, *spatial, 4 * f), (b, *spatial, f), (b, *spatial, f), (*window, f, 4 * f)]
    arrays = [(rng.normal(size=s) * 0.3).astype(np.float32) for s in shapes]
    mask = rng.random((b, t)) < 0.6 if masked else None
    chooser = Chooser()
    made = jax.jit(function(_conv_graph(arrays, mask, outputs), lowerer=chooser))(
        *arrays, *([] if mask is None else [mask])
    )
    assert {p.name for n, p in chooser.picked.items() if n.op.name.startswith("conv_lstm")} == {"native"}
    want = _conv_loops(arrays, mask, outputs)
    for mine, exact in zip(made, want, strict=True):
        np.testing.assert_allclose(mine, exact, rtol=3e-5, atol=3e-5 * max(1, np.abs(exact).max()))


def _states_of_images(spatial, filters, steps, spoilt):
    rng = np.random.default_rng(0)
    shapes = [
        (2, steps, *spatial, 4 * filters),
        (2, *spatial, filters),
        (2, *spatial, filters),
        (3, 3, filters, 4 * filters),
    ]
    arrays = [(rng.normal(size=s) * 0.3).astype(np.float32) for s in shapes]
    for array, index, value in spoilt:
        arrays[array][index] = value
    return arrays


@pytest.mark.parametrize(
    ("spatial", "filters"), [((5, 19), 17), ((1, 4), 1), ((3, 67), 5)], ids=["ragged", "one tile", "many tiles"]
)
def test_conv_lstm_of_transformed_lines(spatial, filters):
    arrays = _states_of_images(spatial, filters, 3, [])
    mask = np.array([[True, False, True], [True, True, True]])
    made = jax.jit(function(_conv_graph(arrays, mask, (0, 1, 2)), lowerer=Chooser()))(*arrays, mask)
    for mine, exact in zip(made, _conv_loops(arrays, mask, (0, 1, 2)), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=3e-5, atol=3e-5 * max(1, np.abs(exact).max()))


@pytest.mark.parametrize(
    "spoilt",
    [
        [(1, (0, 2, 5, 1), np.nan)],
        [(1, (1, 0, 0, 0), np.inf), (1, (0, 4, 10, 1), -np.inf)],
        [(3, (1, 1, 0, 2), np.nan)],
    ],
    ids=["NaN", "infinities", "kernel"],
)
def test_numbers_that_are_not_finite_go_no_further_than_their_window(spoilt, monkeypatch):
    """Transformed lines would spread them over tiles: the plain sums of XLA say where they belong."""
    arrays = _states_of_images((5, 11), 2, 2, spoilt)
    graph = _conv_graph(arrays, None, (0, 1, 2))
    native = jax.jit(function(graph, lowerer=Chooser()))(*arrays)
    monkeypatch.setenv("KERASOFT_KERNELS", "*=xla")
    plain = jax.jit(function(graph, lowerer=Chooser()))(*arrays)
    for mine, theirs in zip(native[:3], plain[:3], strict=True):
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


# --- in programs --------------------------------------------------------------------------------------------------


def test_a_program_carries_the_kernels_and_computes_the_same():
    x = input_node("x/0", (symbol("b"), 4, 3), "float32")
    w, u = param_node("w", (3, 15)), param_node("u", (5, 15))
    start = shape.zeros_like(shape.broadcast_to(x[:, 0, :1], shape=(symbol("b"), 5)))
    graph = Graph((x,), (recurrent.gru(x, start, w, u)[1],), ("out/0",))
    layout = kp.Layout.of(params={"w": (3, 15), "u": (5, 15)})
    source = kp.StepSource(layout, (kp.InputSpec("x/0", (4, 3), "float32"),), ("out/0",), predict=graph)
    program = kp.StepProgram.from_bytes(source.export(predict_rows=(6,)).to_bytes())
    assert program.kernels == ("native",)
    rng = np.random.default_rng(0)
    given, flat = rng.normal(size=(6, 4, 3)).astype("f"), rng.normal(size=layout.P).astype("f")
    (out,) = program.predict(6).whole(kp.StepArgs(flat, np.zeros(0, "f"), {"x/0": given}))
    kernel, inner = flat[:45].reshape(3, 15), flat[-75:].reshape(5, 15)
    want = recurrent.gru(given, np.zeros((6, 5), "f"), kernel, inner)[1]
    np.testing.assert_allclose(out, want, atol=1e-5)
