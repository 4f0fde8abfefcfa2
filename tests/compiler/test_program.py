"""StepSource, LocalStep and StepProgram on a two-layer regression with an optimiser that has a slot."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kerasoft.compiler import program as kp
from kerasoft.compiler.errors import ProgramError
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic as a
from kerasoft.compiler.ops import control, indexing, reduce
from kerasoft.compiler.ops import shape as s
from kerasoft.compiler.ops.collective import all_reduce
from kerasoft.compiler.ops.registry import input_node, param_node

from tests.compiler.regression import B, N, arrays, expected, regression

ROOT = pathlib.Path(kp.__file__).parents[1]


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
