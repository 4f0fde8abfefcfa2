"""Kernel choice: who decides, what is measured and kept, and what happens to damaged or foreign files."""

import json
import os
import stat
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler.errors import CompilerError
from kerasoft.compiler.explain import explain
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.kernels import choice, lowerings, measure, settings, timing
from kerasoft.compiler.kernels.choice import Chooser
from kerasoft.compiler.kernels.decisions import Decisions, folder
from kerasoft.compiler.lower import function
from kerasoft.compiler.ops.convolution import conv
from kerasoft.compiler.ops.registry import input_node, param_node

B = symbol("b")
SIZES = {"b": 512}


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """Measuring is on, with a cache folder and a process budget of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    monkeypatch.setenv("KERASOFT_MEASURE", "5")
    monkeypatch.setattr(timing, "_spent_s", 0.0)
    timing.forget()
    yield folder()
    timing.forget()
    settings.force(None)
    settings.set_budget_s(None)


class Table:
    """An op of a test with lowerings that wait; `calls` counts how often each was traced."""

    def __init__(self, new_op, waits):
        self.calls = dict.fromkeys(waits, 0)
        own = waits.pop("xla")
        self.op = new_op("test_wait", lower=self.lowering("xla", own))
        for name, (wait_s, prefer) in waits.items():
            lowerings.lowering("test_wait", name, fits=lambda t, a: True, prefer=lambda t, a, n, prefer=prefer: prefer)(
                self.lowering(name, wait_s)
            )

    def lowering(self, name, wait_s):
        def wait(x):
            time.sleep(wait_s)
            return x

        def run(x):
            self.calls[name] += 1
            return jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

        return run

    def graph(self, size=2048):
        x = input_node("x", (B, size), "float32")
        return Graph((x,), (self.op(x),), ("y",))


@pytest.fixture
def table(new_op):
    made = []

    def make(**waits):
        made.append(Table(new_op, waits))
        return made[-1]

    yield make
    lowerings._TABLE.pop("test_wait", None)


def picked(graph, **options):
    (one,) = Chooser(graph, SIZES, **options).picked.values()
    return one.name, one.by


def test_rules_decide_without_measuring(table):
    made = table(xla=0.0, slow=(0.0, False), quick=(0.0, True))
    assert picked(made.graph()) == ("quick", "rule")
    assert made.calls == {"xla": 1, "slow": 0, "quick": 0}  # one for the result's type


def test_what_is_clearly_faster_is_taken_and_kept(table, measuring):
    made = table(xla=0.1, slow=(0.2, True), quick=(0.0, False))  # far apart, so that a loaded machine agrees
    assert picked(made.graph()) == ("quick", "measured")
    before = dict(made.calls)
    assert min(before.values()) == 1  # each compiled once
    assert picked(made.graph()) == ("quick", "measured")
    timing.forget()  # as a new process
    assert picked(made.graph()) == ("quick", "measured")
    assert picked(made.graph(), measure=False) == ("quick", "measured")
    assert made.calls == before
    (file,) = measuring.glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(measuring.stat().st_mode) == 0o700
    ((key, decision),) = json.loads(file.read_text())["decisions"].items()
    assert key == "test_wait(float32[512, 2048]){}" and set(decision["times"]) == {"xla", "slow", "quick"}
    settings.set_budget_s(0)
    assert picked(made.graph()) == ("slow", "rule")


def test_the_rule_stays_where_nothing_is_clearly_faster(monkeypatch, table, measuring):
    made = table(xla=0.0, preferred=(0.0, True), other=(0.0, False))
    times = {"xla": 2.0, "preferred": 1.0, "other": 0.91}
    monkeypatch.setattr(timing, "timed", lambda *_: times)
    assert picked(made.graph()) == ("preferred", "measured")
    times["other"] = 0.89
    assert picked(made.graph(1024)) == ("other", "measured")


def test_the_budget_bounds_and_what_it_left_stays_with_the_rule(monkeypatch, table, measuring):
    made = table(xla=0.0, ruled=(0.0, True))
    measured = []

    def slow(op, candidates, types, attrs):
        measured.append(types[0].shape)
        time.sleep(0.06)
        return {"xla": 1.0, "ruled": 2.0}

    monkeypatch.setattr(timing, "timed", slow)
    settings.set_budget_s(0.05)
    x = input_node("x", (B, 2048), "float32")
    y = input_node("y", (B, 4096), "float32")
    graph = Graph((x, y), (made.op(x), made.op(y)), ("a", "b"))
    names = lambda: {n.inputs[0].attrs["name"]: (p.name, p.by) for n, p in Chooser(graph, SIZES).picked.items()}
    assert names() == {"x": ("ruled", "rule"), "y": ("xla", "measured")}  # the larger one first
    assert names() == names() and measured == [(512, 4096)]
    settings.set_budget_s(0.2)
    assert names()["x"] == ("xla", "measured") and measured == [(512, 4096), (512, 2048)]


def test_a_hopeless_candidate_is_called_once():
    calls = {"slow": 0, "quick": 0}

    def lowering(name, seconds):
        def called(x):
            calls[name] += 1
            time.sleep(seconds)
            return x

        return lambda x: jax.pure_callback(called, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    candidates = {"slow": (lowering("slow", 0.1), {}), "quick": (lowering("quick", 0.0), {})}
    times = measure.timed("tanh", candidates, [jax.ShapeDtypeStruct((4, 4), "float32")], {})
    assert times["slow"] >= 0.1 > 5 * times["quick"]
    assert calls["slow"] == 1 and calls["quick"] > 2


def test_small_nodes_are_never_measured(table, measuring):
    made = table(xla=0.0, quick=(0.0, True))
    assert picked(made.graph(2)) == ("quick", "rule")
    assert not measuring.exists()


def test_the_user_decides_first(monkeypatch, table, measuring):
    made = table(xla=0.0, quick=(0.0, True))
    monkeypatch.setenv("KERASOFT_KERNELS", "test_wait=xla, conv=xla")
    assert picked(made.graph()) == ("xla", "user")
    settings.force({"*": "quick"})
    assert picked(made.graph()) == ("quick", "user")
    settings.force("test_wait=nothing")
    with pytest.raises(CompilerError, match="test_wait=nothing.*does not have; it has xla, xla-eigen, quick"):
        Chooser(made.graph(), SIZES)
    with pytest.raises(ValueError, match="expected op=lowering.*got 'conv'"):
        settings.force("conv")
    for wrong in (-1, "soon", float("nan")):
        with pytest.raises(ValueError, match="expected seconds, 0 or more"):
            settings.set_budget_s(wrong)


@pytest.mark.parametrize("damage", ["", "{", '{"format": 1}', '{"decisions": 3}', "mode"])
def test_damaged_files_are_ignored_with_a_warning(damage, measuring):
    kept = Decisions({"cpu": "one"})
    kept.add("a", timing.Decision({"xla": 0.5}))
    kept.save()
    assert Decisions({"cpu": "one"}).known == kept.known and Decisions({"cpu": "two"}).known == {}
    if damage == "mode":
        kept.path.chmod(0o666)
    else:
        kept.path.write_text(damage)
    with pytest.warns(UserWarning, match="ignoring the decisions about kernels in"):
        assert Decisions({"cpu": "one"}).known == {}


def test_two_writers_keep_each_others_decisions(measuring):
    one, two = Decisions({}), Decisions({})
    one.add("a", timing.Decision({"xla": 0.5}))
    two.add("b", timing.Decision(budget_s=2.0))
    one.save()
    two.save()
    assert Decisions({}).known == {"a": timing.Decision({"xla": 0.5}), "b": timing.Decision(budget_s=2.0)}
    assert not list(one.path.parent.glob("*.part"))


def test_a_folder_that_cannot_be_written_costs_a_warning(measuring, tmp_path):
    (tmp_path / "kerasoft").write_text("a file")
    with pytest.warns(UserWarning, match="cannot be kept"):
        kept = Decisions({})
        kept.add("a", timing.Decision({"xla": 0.5}))
        kept.save()


def test_variants_of_xla_are_chosen_for_the_whole_executable(monkeypatch, measuring):
    settings.force("conv_grad_input=xla")
    x = input_node("x", (B, 30, 30, 8), "float32")
    y = conv(x, param_node("k", (3, 3, 8, 16)))
    z = conv(y, param_node("m", (3, 3, 16, 16)))
    graph = Graph((x,), (y, z), ("y", "z"))
    slow, quick = {"xla": 1.0, "xla-eigen": 2.0}, {"xla": 3.0, "xla-eigen": 1.0}
    monkeypatch.setattr(timing, "timed", lambda op, c, types, a: quick if types[1].shape[2] == 8 else slow)
    monkeypatch.setattr(lowerings, "candidates", lambda *_: [])
    made = Chooser(graph, {"b": 64})
    assert made.variant == "xla-eigen" and {p.name for p in made.picked.values()} == {"xla-eigen"}
    quick["xla"] = 1.5
    made = Chooser(graph, {"b": 65})
    assert made.variant == "xla" and {p.name for p in made.picked.values()} == {"xla"} and made.options == {}


def test_measuring_within_a_trace_changes_no_number(measuring):
    x = input_node("x", (B, 12, 12, 8), "float32")
    graph = Graph((x,), (conv(x, param_node("k", (3, 3, 8, 16))),), ("y",))
    arrays = [np.random.default_rng(0).normal(size=s).astype("f") for s in ((64, 12, 12, 8), (3, 3, 8, 16))]
    chosen = []

    def run(*arrays):
        chosen.append(Chooser(graph, {"b": 64}))
        return function(graph, lowerer=chosen[-1])(*arrays)

    (got,) = jax.jit(run)(*map(jnp.asarray, arrays))
    (want,) = function(graph)(*arrays)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    (one,) = chosen[0].picked.values()
    assert one.by == "measured" and set(one.times) >= {"xla", "xla-eigen"}


def test_explain_shows_who_chose(table):
    text = explain(table(xla=0.0, quick=(0.0, True)).graph(), rows=4, compile=False).text
    assert "test_wait: quick (rule) x1" in text


def test_one_decision_for_each_kind_of_case():
    x = input_node("x", (B, 8, 8, 2), "float32")
    keys = {choice.case_of(conv(x, param_node("k", (3, 3, 2, f))), {"b": b}).key for f in (4, 5) for b in (2, 3)}
    assert len(keys) == 4
    assert choice.case_of(conv(x, param_node("k", (3, 3, 2, 4))), {}) is None


def test_lowerings_see_types_as_they_see_arrays(new_op):
    seen = []
    op = new_op("test_wait", lower=lambda x: x)
    try:
        lowerings.lowering("test_wait", "one", fits=lambda types, attrs: seen.append(types) or True)(lambda x: x)
        choice.case_of(op(input_node("x", (B, 3), "float32")), {"b": 2})
    finally:
        lowerings._TABLE.pop("test_wait", None)
    ((x,),) = seen
    assert x.shape == (2, 3) and isinstance(x.dtype, np.dtype) and x.dtype == np.float32 and x.dtype != "bfloat16"


def test_libraries_and_kernels_that_some_host_lacks_are_left_out():
    x = input_node("x", (B, 12, 12, 8), "float32")
    graph = Graph((x,), (conv(x, param_node("k", (3, 3, 8, 16))),), ("y",))
    whole = {one.name for one in choice.case_of(graph.outputs[0], {"b": 64}).found}
    assert {"onednn", "winograd"} <= whole
    with settings.leaving_out(["onednn"]):
        with settings.leaving_out(["winograd"]):
            made = Chooser(graph, {"b": 64})
            assert not made.needs and {p.name for p in made.picked.values()} <= {"xla", "xla-eigen"}
        some = {one.name: one.needs for one in choice.case_of(graph.outputs[0], {"b": 64}).found}
        assert "winograd" in some and "onednn" not in some.values()
    assert {one.name for one in choice.case_of(graph.outputs[0], {"b": 64}).found} == whole
