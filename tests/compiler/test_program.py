"""StepSource, LocalStep and StepProgram on a two-layer regression with an optimiser that has a slot."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.compiler import program as kp
from kerasoft.compiler import wireformat
from kerasoft.compiler.errors import ProgramError, ShapeError
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import control, indexing, linalg, reduce
from kerasoft.compiler.ops import shape as s
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import constant, input_node, param_node

B = symbol("b")
N = symbol("n")
ROOT = pathlib.Path(kp.__file__).parents[1]


def regression(synchronised=False):
    """y = (x - mean) @ k + c; the mean is over the batch, or over the global batch."""
    x, y = input_node("x/0", (B, 3), "float32"), input_node("y/0", (B, 2), "float32")
    valid, rows, share = (
        input_node("valid", (B,), "float32"),
        input_node("rows", (), "float32"),
        input_node("share", (), "float32"),
    )
    k, c = param_node("k", (3, 2)), param_node("c", (2,))
    moving, still = param_node("moving", (3,), trainable=False), param_node("still", (2,), trainable=False)
    v = s.reshape(valid, shape=(B, 1))
    total = s.sum(a.multiply(x, v), axis=0)
    mean = a.multiply(all_reduce(total) if synchronised else total, a.divide(1.0, rows))
    predicted = linalg.matmul(a.subtract(x, mean), k) + c
    error = a.multiply(a.subtract(predicted, y), v)
    loss = s.sum(error * error) * a.divide(1.0, rows)
    dk, dc = gradient({loss: constant(1.0)}, [k, c])
    train = Graph(
        (x, y, valid, rows, share),
        (dk, dc, a.multiply(share, moving * 0.5 + mean * 0.5), loss * rows, s.sum(valid)),
        ("grad/k", "grad/c", "state/moving", "sum/loss/total", "sum/loss/count"),
    )
    test = Graph((x, y, valid, rows), (loss * rows,), ("sum/loss/total",))
    predict = Graph((x,), (linalg.matmul(a.subtract(x, moving), k) + c + still,), ("out/0",))
    p, g, m = (input_node(n, (N,), "float32") for n in ("param", "gradient", "slot/momentum"))
    rate = input_node("learning_rate", (), "float32")
    moved = m * 0.9 + g
    update = Graph((p, g, m, rate), (a.subtract(p, moved * rate), moved), ("param", "slot/momentum"))
    return kp.StepSource(
        layout=kp.Layout.of(
            params={"k": (3, 2), "c": (2,)}, states={"moving": (3,), "still": (2,)},
            sums={"loss/total": (), "loss/count": ()},
        ),
        inputs=(kp.InputSpec("x/0", (3,), "float32"), kp.InputSpec("y/0", (2,), "float32")),
        outputs=("out/0",), train=train, test=test, predict=predict, update=update,
        slots=(kp.SlotSpec("momentum"),),
    )  # fmt: skip


def arrays(rows=4):
    r = np.random.default_rng(0)
    batch = {"x/0": r.normal(size=(rows, 3)).astype("f"), "y/0": r.normal(size=(rows, 2)).astype("f")}
    return r.normal(size=8).astype("f"), np.array([1, 2, 3, 4, 5], "f"), batch


def expected(params, state, batch, rows):
    """The same step by jax.grad."""

    def loss(p):
        x, y = batch["x/0"], batch["y/0"]
        mean = x.sum(0) / rows
        return (((x - mean) @ p[:6].reshape(3, 2) + p[6:] - y) ** 2).sum() / rows

    mean = batch["x/0"].sum(0) / rows
    states = [*(state[:3] * 0.5 + mean * 0.5), *state[3:]]
    return np.concatenate([jax.grad(loss)(params), states, [loss(params) * rows, rows]])


def test_local_train_is_gradient_and_update_in_one():
    params, state, batch = arrays()
    step = regression().local()
    slots = (np.ones(8, "f"),)
    p, st, sl, sums = step.train(params, state, slots, batch, np.ones(4, "f"), None, None, 4, 0, 0.1)
    want = expected(params, state, batch, 4)
    np.testing.assert_allclose(sl[0], 0.9 + want[:8], rtol=1e-5)
    np.testing.assert_allclose(p, params - 0.1 * (0.9 + want[:8]), rtol=1e-5)
    np.testing.assert_allclose(st, want[8:13], rtol=1e-5)
    np.testing.assert_allclose(sums, want[13:], rtol=1e-5)
    np.testing.assert_allclose(step.test(params, state, batch, np.ones(4, "f"), 4), [want[13], 0], rtol=1e-5)
    (out,) = step.predict(params, state, batch)
    np.testing.assert_allclose(
        out, (batch["x/0"] - state[:3]) @ params[:6].reshape(3, 2) + params[6:] + state[3:], rtol=1e-5
    )


@pytest.mark.parametrize("synchronised", [False, True])
def test_program_equals_local_and_travels_as_bytes(synchronised):
    source = regression(synchronised)
    program = kp.StepProgram.from_bytes(source.export((4,), (4,), (4,)).to_bytes())
    params, state, batch = arrays()
    args = kp.StepArgs(params, state, batch, valid=np.ones(4, "f"), rows=4, share=1)
    call = program.train(4)
    assert call.stages == 1 + synchronised
    np.testing.assert_allclose(call.whole(args), expected(params, state, batch, 4), rtol=1e-5)
    np.testing.assert_allclose(
        program.predict(4).whole(args)[0], source.local().predict(params, state, batch)[0], rtol=1e-6
    )
    assert program.test(4).whole(args).shape == (2,)
    for n in (8, 3, 1):
        update = kp.UpdateArgs(params[:n], np.ones(n, "f"), (np.ones(n, "f"),), learning_rate=0.1)
        new, moved = program.update(n).whole(update)
        np.testing.assert_allclose(new, params[:n] - 0.19, rtol=1e-5)
        np.testing.assert_allclose(moved, 1.9, rtol=1e-6)


def test_replicas_with_padding_and_sums_equal_one_whole_batch():
    program = regression(synchronised=True).export((4,))
    params, state, batch = arrays(6)
    call, parts = program.train(4), []
    for rows in (slice(0, 4), slice(4, 6)):
        real = rows.stop - rows.start
        padded = {n: np.concatenate([v[rows], np.zeros((4 - real, *v.shape[1:]), "f")]) for n, v in batch.items()}
        valid = (np.arange(4) < real).astype("f")
        parts.append(kp.StepArgs(params, state, padded, valid=valid, rows=6, share=real / 6))
    firsts = [call.run(0, args) for args in parts]
    carries, total = [c for c, _ in firsts], sum(np.asarray(v) for _, v in firsts)
    for k in range(1, call.stages):
        outs = [call.run(k, args, c, total) for args, c in zip(parts, carries)]
        carries, total = [c for c, _ in outs], sum(np.asarray(v) for _, v in outs)
    np.testing.assert_allclose(total, expected(params, state, batch, 6), rtol=2e-5, atol=1e-6)


# --- compilations ----------------------------------------------------------------------------------------------------


def test_the_second_step_does_not_compile():
    source = regression()
    step, (params, state, batch) = source.local(), arrays()
    slots, counts = source.slot_vectors(), []
    for i in range(3):
        params, state, slots, _ = step.train(params, state, slots, batch, np.ones(4, "f"), None, None, 4, i, 0.1)
        counts.append(kp.compilations())
    assert counts[1] == counts[2] == counts[0]
    before = kp.compilations()
    program = source.export((6,))
    assert kp.compilations() == before, "exporting compiles"
    data = program.to_bytes()
    args = kp.StepArgs(*arrays(6), valid=np.ones(6, "f"), rows=6, share=1)
    program.train(6).whole(args)
    assert kp.compilations() == before + 1
    program.train(6).whole(args)
    kp.StepProgram.from_bytes(data).train(6).whole(args)
    assert kp.compilations() == before + 1, "the same bytes compile twice in one process"


CACHED = """
import sys, numpy as np
from kerasoft.compiler import program as kp
from kerasoft.compiler import wireformat
kp.use_compile_cache(sys.argv[1])
program = kp.StepProgram.from_bytes(open(sys.argv[2], "rb").read())
program.update(4)
out = program.train(4).whole(kp.StepArgs(np.zeros(8, "f"), np.zeros(5, "f"), {"x/0": np.ones((4, 3), "f"),
    "y/0": np.ones((4, 2), "f")}, valid=np.ones(4, "f"), rows=4, share=1))
print(kp.compilations(), kp.cache_hits(), float(np.asarray(out)[-1]))
"""


PREDICTED = """
import sys, numpy as np
from kerasoft.compiler import program as kp
program = kp.StepProgram.from_bytes(open(sys.argv[1], "rb").read())
(out,) = program.predict(3).whole(kp.StepArgs(np.ones(1, "f"), np.zeros(0, "f"), {"x/0": np.full((3,), 2, "f")}))
print(*np.asarray(out).tolist())
"""


def test_a_users_own_jax_function_travels_as_stablehlo(tmp_path):
    mine = control.from_jax(lambda x, k: jnp.where(x > k, jnp.cumsum(x), 0.0))
    x = input_node("x/0", (B,), "float32")
    predict = Graph((x,), (mine(x, param_node("k", ())),), ("out/0",))
    (tmp_path / "program").write_bytes(
        kp.StepSource(kp.Layout.of(params={"k": ()}), predict=predict).export(predict_rows=(3,)).to_bytes()
    )
    assert run_fresh(PREDICTED, tmp_path / "program") == ["2.0", "4.0", "6.0"]


def run_fresh(code, *args):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout.split()  # fmt: skip


def test_a_fresh_process_needs_no_user_code_and_a_cache_folder_spares_compilations(tmp_path):
    path = tmp_path / "program"
    path.write_bytes(regression().export((4,)).to_bytes())
    first = run_fresh(CACHED, tmp_path / "cache", path)
    assert first[1:] == ["0", "4.0"] and int(first[0]) >= 2
    again = run_fresh(CACHED, tmp_path / "cache", path)
    assert again == ["0", first[0], "4.0"]
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


@functools.cache
def exported():
    return regression().export((4,)).to_bytes()


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_bytes_say_the_same_and_hold_no_paths_or_user_names():
    source = regression(synchronised=True)
    one, two = source.export((4,), (4,)), regression(synchronised=True).export((4,), (4,))
    assert one.fingerprint == two.fingerprint == hashlib.sha256(one.to_bytes()).hexdigest()
    assert one.fingerprint != source.export((5,), (4,)).fingerprint
    assert b".py" not in one.to_bytes() and b"lambda" not in one.to_bytes()
    again = kp.StepProgram.from_bytes(one.to_bytes())
    for name in ("layout", "inputs", "outputs", "slots", "flags"):
        assert getattr(again, name) == getattr(source, name)
    assert (again.train_rows, again.test_rows, again.predict_rows) == ((4,), (4,), ())
    assert repr(again) == f"<StepProgram {one.fingerprint[:12]}, {len(one.to_bytes())} bytes, 8 parameters>"


@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["flip", "cut", "grow"]))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_a_program_error(position, value, how):
    data = bytearray(exported())
    position %= len(data)
    if how == "flip":
        data[position] ^= value or 1
    elif how == "cut":
        data = data[:position]
    else:
        data += bytes([value])
    with pytest.raises(ProgramError):
        kp.StepProgram.from_bytes(bytes(data))


def headed(text):
    return wireformat.MAGIC + struct.pack("<IQ", 1, len(text)) + hashlib.sha256(text).digest() + text


def container(header, blobs=()):
    return wireformat.write(header, blobs)


@pytest.mark.parametrize(
    "data, error",
    [
        (b"", "these 0 bytes are no StepProgram"),
        (b"\x80\x04garbage", "these 9 bytes are no StepProgram: they start with b'\\x80\\x04garbag'"),
        (
            wireformat.MAGIC + struct.pack("<IQ", 99, 2) + b"{}",
            "format version 99, this kerasoft reads 1: install the same",
        ),
        (wireformat.MAGIC + struct.pack("<IQ", 1, 1 << 60), "header claims 1152921504606846976 bytes; at most"),
        (wireformat.MAGIC + struct.pack("<IQ", 1, 100), "cut short: its header's hash needs bytes up to 52, got 20"),
        (headed(b"{}")[:-1], "cut short: its header needs bytes up to 54, got 53"),
        (headed(b"[]"), "the StepProgram's header is damaged: list indices"),
        (headed(b"[" * 100_000), "the StepProgram's header is damaged: maximum recursion"),
        (headed(b"{}")[:20] + bytes(32) + b"{}", "the StepProgram's header is damaged: its SHA-256 differs"),
        (container({}), "the StepProgram's header is damaged: KeyError('layout')"),
        (container({}) + b"x", "the StepProgram ends after"),
    ],
)
def test_errors_of_bytes(data, error):
    with pytest.raises(ProgramError) as caught:
        kp.StepProgram.from_bytes(data)
    assert error in str(caught.value)


def test_a_stage_that_is_no_program_fails_when_it_is_compiled_and_only_then():
    header, blobs = wireformat.read(exported())
    header.pop("blobs")
    program = kp.StepProgram.from_bytes(wireformat.write(header, [b"nonsense"] * len(blobs)))
    with pytest.raises(ProgramError, match="a stage of the StepProgram cannot be read"):
        program.train(4)


def test_limits(monkeypatch):
    monkeypatch.setattr(wireformat, "MAX_BYTES", 10)
    with pytest.raises(ProgramError, match="the program is too large to ship: header .* are large arrays constants"):
        wireformat.write({}, [b"12345678901"])


# --- errors of use ---------------------------------------------------------------------------------------------------


def test_errors_of_calls():
    source = regression()
    program, (params, state, batch) = source.export((4,)), arrays()
    with pytest.raises(ProgramError, match="no train call for 5 rows; it has 4"):
        program.train(5)
    with pytest.raises(ProgramError, match="no test call for 4 rows; it has none"):
        program.test(4)
    call, ones = program.train(4), np.ones(4, "f")
    for args, error in [
        (kp.StepArgs(params, state, batch, valid=ones, rows=None, share=1), "the train call needs 'rows', got nothing"),
        (kp.StepArgs(params, state, {}, valid=ones, rows=4, share=1), "the batch has no 'x/0'; it holds "),
        (kp.StepArgs(params[:5], state, batch, valid=ones, rows=4, share=1), r"train\(4\): params needs float32\[8\], got float32\[5\]"),
        (kp.StepArgs(params, state, batch, valid=np.ones(4, "i4"), rows=4, share=1), r"valid needs float32\[4\], got int32\[4\]"),
        (kp.StepArgs(params, state, batch, rows=4, share=1), r"valid needs float32\[4\], got nothing"),
    ]:  # fmt: skip
        with pytest.raises(ShapeError, match=error):
            call.run(0, args)
    with pytest.raises(ShapeError, match=r"y/0 needs float32\[b, 2\], got shape \(4, 3\)"):
        source.local().test(params, state, {**batch, "y/0": batch["x/0"]}, ones, 4)
    with pytest.raises(ShapeError, match="the test graph reads 'valid', which was not given"):
        source.local().test(params, state, batch, None, 4)
    with pytest.raises(ShapeError, match="the batch has no 'y/0'; it holds x/0"):
        source.local().test(params, state, {"x/0": batch["x/0"]}, ones, 4)
    with pytest.raises(ProgramError, match="this StepSource has no predict graph"):
        dataclasses.replace(source, predict=None).local().predict(params, state, batch)


def test_errors_of_sources():
    source = regression()
    small = kp.Layout.of(params={"k": (3, 2)}, states={"moving": (3,)}, sums={"loss/total": ()})
    with pytest.raises(ProgramError, match="train graph: param 'c' is not in the layout"):
        dataclasses.replace(source, layout=small).export((4,))
    wrong = kp.Layout.of(params={"k": (2, 3), "c": (2,)}, states={"moving": (3,)})
    with pytest.raises(ProgramError, match=r"param 'k' has shape \(3, 2\), the layout says \(2, 3\)"):
        dataclasses.replace(source, layout=wrong).export((4,))
    no_count = kp.Layout.of(params={"k": (3, 2), "c": (2,)}, states={"moving": (3,)}, sums={"loss/total": ()})
    with pytest.raises(ProgramError, match="train graph: output 'sum/loss/count' has no place in the layout"):
        dataclasses.replace(source, layout=no_count).export((4,))
    with pytest.raises(ProgramError, match="train: a call needs at least one row, got 0"):
        source.export((0,))
    with pytest.raises(ProgramError, match="the layout's params hold 'k' twice"):
        kp.Layout.of(params=[("k", ()), ("k", (2,))])
    with pytest.raises(ProgramError, match="update_mode is 'sliced' or 'replicated', got 'both'"):
        kp.Flags(update_mode="both")
    p, stranger = input_node("param", (N,), "float32"), input_node("weight", (N,), "float32")
    for graph, error in [
        (
            Graph((p, stranger), (p * stranger,), ("param",)),
            "update graph: unknown input 'weight'; it may read gradient,",
        ),
        (Graph((p,), (p * 2.0,), ("slot/m",)), "update graph: has no output 'param', got slot/m"),
        (
            Graph((p,), (p * 2.0, p), ("param", "velocity")),
            "unknown output 'velocity'; it may set param, slot/momentum",
        ),
        (Graph((p,), (p * param_node("k", ()),), ("param",)), "update graph: reads param 'k'; it gets vectors"),
    ]:
        with pytest.raises(ProgramError, match=error):
            dataclasses.replace(source, update=graph).export()


# --- sizes, slots, segments ------------------------------------------------------------------------------------------


def test_variable_lengths_need_a_number_for_export_and_none_locally():
    length = symbol("n1")
    x = input_node("x/0", (B, length), "float32")
    predict = Graph((x,), (s.sum(x, axis=1) * param_node("k", ()),), ("out/0",))
    source = kp.StepSource(
        kp.Layout.of(params={"k": ()}), (kp.InputSpec("x/0", (None,), "float32"),), ("out/0",), predict=predict
    )
    with pytest.raises(ProgramError) as caught:
        source.export(predict_rows=(2,))
    assert str(caught.value) == "predict graph: the inputs have variable sizes n1; give export(lengths={'n1': ...})"
    program = source.export(predict_rows=(2,), lengths={"n1": 3})
    assert program.lengths == {"n1": 3}
    x = np.arange(6, dtype="f").reshape(2, 3)
    no_state = np.zeros(0, "f")
    (out,) = program.predict(2).whole(kp.StepArgs(np.array([2], "f"), no_state, {"x/0": x}))
    np.testing.assert_array_equal(out, [6, 24])
    for columns in (1, 2):
        (out,) = source.local().predict(np.array([2], "f"), no_state, {"x/0": x[:, :columns]})
        np.testing.assert_array_equal(out, 2 * x[:, :columns].sum(1))


def norm_per_variable():
    """Each variable's gradient divided by its norm, as clipnorm does; slices of a variable lie on several ranks."""
    p, g, rate = (input_node(n, (N,), "float32") for n in ("param", "gradient", "learning_rate"))
    rate, segment = input_node("learning_rate", (), "float32"), input_node("segment", (N,), "int32")
    squares = all_reduce(reduce.segment_sum(g * g, segment, count=2))
    return Graph(
        (p, g, segment, rate), (p - rate * a.divide(g, indexing.take(a.sqrt(squares), segment, axis=0)),), ("param",)
    )


def test_an_update_with_norms_over_slices_equals_the_whole():
    source = kp.StepSource(kp.Layout.of(params={"k": (3,), "c": (2, 2)}), update=norm_per_variable())
    program = source.export()
    r = np.random.default_rng(0)
    p, g = r.normal(size=(2, 7)).astype("f")
    segments = source.layout.segments()
    np.testing.assert_array_equal(segments, [0, 0, 0, 1, 1, 1, 1])
    want = p - 0.1 * np.concatenate([g[:3] / np.linalg.norm(g[:3]), g[3:] / np.linalg.norm(g[3:])])
    parts = [kp.UpdateArgs(p[c], g[c], segment=segments[c], learning_rate=0.1) for c in (slice(0, 5), slice(5, 7))]
    calls = [program.update(5), program.update(2)]
    firsts = [call.run(0, args) for call, args in zip(calls, parts)]
    total = sum(np.asarray(v) for _, v in firsts)
    got = [call.run(1, args, carry, total)[1][0] for call, args, (carry, _) in zip(calls, parts, firsts)]
    np.testing.assert_allclose(np.concatenate(got), want, rtol=1e-5)


def test_layout():
    layout = kp.Layout.of(params={"k": (3, 2), "c": (2,)}, states={"m": (4,)}, sums={"n": ()})
    assert (layout.P, layout.S, layout.M, layout.V) == (8, 4, 1, 13)
    assert [(e.name, e.offset, e.end) for e in layout.params + layout.states + layout.sums] == [
        ("k", 0, 6), ("c", 6, 8), ("m", 8, 12), ("n", 12, 13)]  # fmt: skip
    packed = layout.pack("states", {"m": np.arange(4)})
    np.testing.assert_array_equal(layout.unpack("states", packed)["m"], np.arange(4))
    vector = np.arange(13)
    assert [list(v) for v in layout.split(vector)] == [list(range(8)), [8, 9, 10, 11], [12]]
    with pytest.raises(ProgramError, match="params: no value for 'c'"):
        layout.pack("params", {"k": np.zeros((3, 2))})
    with pytest.raises(ProgramError, match=r"params: 'k' needs shape \(3, 2\), got \(2, 3\)"):
        layout.pack("params", {"k": np.zeros((2, 3))})
    assert kp.Layout.from_json(layout.to_json()) == layout


@given(st.integers(0, 1000), st.integers(1, 9))
def test_slices_cover_the_parameters_in_order_and_are_aligned(size, count):
    slices = kp.Layout.of(params={"k": (size,)}).slices(count)
    assert len(slices) == count and slices[0][0] == 0 and slices[-1][1] == size
    assert all(a[1] == b[0] for a, b in zip(slices, slices[1:]))
    assert all(start % 64 == 0 or start == size for start, _ in slices)


def test_a_callers_arrays_may_change_once_the_result_is_there():
    source = regression()
    step, (params, state, batch) = source.local(), arrays(1024)
    call = source.export((1024,)).train(1024)
    valid, mine = np.ones(1024, "f"), {n: v.copy() for n, v in batch.items()}
    want = np.asarray(call.whole(kp.StepArgs(params, state, batch, valid=valid, rows=1024, share=1)))
    for _ in range(20):
        for n, v in batch.items():
            mine[n][:] = v
        outs = [
            call.whole(kp.StepArgs(params, state, mine, valid=valid, rows=1024, share=1)),
            step.gradient(params, state, mine, valid, None, None, 1024, 0),
        ]
        jax.block_until_ready(outs)
        for v in mine.values():
            v[:] = np.nan
        for out in outs:
            np.testing.assert_allclose(out, want, rtol=1e-4)


def test_donated_numpy_vectors_stay_the_callers():
    step, (params, state, batch) = regression().local(), arrays()
    before = params.copy()
    step.train(params, state, (np.zeros(8, "f"),), batch, np.ones(4, "f"), None, None, 4, 0, 0.1)
    np.testing.assert_array_equal(params, before)


def _net(kind):
    """A model's source, its weights and states, and a batch of 6 rows."""
    import kerasoft as ks
    from kerasoft.training.inputs import to_arrays

    L = ks.layers
    ks.utils.set_random_seed(3)
    layers = {
        "dense": [L.Dense(96, activation="relu"), L.Dropout(0.3), L.LayerNormalization(), L.Dense(80, activation="gelu")],
        "conv": [
            L.Reshape((8, 8, 2)), L.Conv2D(16, 3, activation="relu"), L.BatchNormalization(), L.MaxPooling2D(), L.Flatten()
        ],
        "recurrent": [L.Reshape((8, 16)), L.Bidirectional(L.LSTM(12, return_sequences=True)), L.GRU(8)],
    }[kind]  # fmt: skip
    model = ks.Sequential([ks.Input((128,)), *layers, L.Dense(10)])
    model.compile("adam", ks.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 128)).astype("f"), rng.integers(0, 10, 6).astype("i4")
    arrays = to_arrays(model, x, y, None)
    program = model._program(arrays.signature, "train")
    batch = {leaf.name: a for leaf, a in zip(arrays.signature.leaves, (x, y), strict=True)}
    return program.source, *program.store.read(), batch


@pytest.mark.parametrize("kind", ["dense", "conv", "recurrent"])
def test_buckets_behind_one_another_are_the_gradient(kind):
    source, params, state, batch = _net(kind)
    assert len(source.buckets(3)) == 3
    program = kp.StepProgram.from_bytes(source.export(train_rows=(6,), buckets=3).to_bytes())
    whole = source.export(train_rows=(6,))
    assert program.train_rows == () and whole.buckets == ()
    assert program.buckets[0][1] == source.layout.V and program.buckets[-1][0] == 0
    args = kp.StepArgs(
        params, state, batch, np.ones(6, "f"), np.arange(6, dtype="u4"), np.array([1, 2], "u4"), 6.0, 1.0, 0
    )
    call, carry, parts = program.part("buckets", 6), (), []
    for k in range(call.stages):
        carry, out = call.run(k, args, carry)
        parts.append(np.asarray(out))
    assert [p.shape for p in parts] == [(stop - start,) for start, stop in program.buckets]
    wanted = np.asarray(whole.train(6).whole(args))
    np.testing.assert_allclose(np.concatenate(parts[::-1]), wanted, rtol=2e-4, atol=2e-6)
