"""Plans: an executable on disk is found without gradients, passes and choices; and by nothing but what it was made of."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from kerasoft.compiler import calls, compile_cache, fingerprint, objective, plans, program, stored
from kerasoft.compiler import program as kp
from kerasoft.compiler.explain import explain
from kerasoft.compiler.fingerprint import Recipe
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.kernels import decisions, machine, settings, timing
from kerasoft.compiler.kernels.choice import Chooser
from kerasoft.compiler.objective import Objective
from kerasoft.compiler.ops import activations, arithmetic, linalg, reduce
from kerasoft.compiler.ops.registry import input_node, param_node
from kerasoft.compiler.rematerialization import Segment

from tests.compiler.regression import arrays, expected, regression


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Keeps everything in a folder of the test's own."""
    monkeypatch.setattr(stored, "use_default_cache", lambda: str(tmp_path))
    monkeypatch.setattr(stored, "WORTH_S", 0.0)
    return tmp_path


def results(rows=4, source=None):
    """All that the calls of a fresh step give, as bytes."""
    params, state, batch = arrays(rows)
    step, ones = (regression(late=True) if source is None else source).local(), np.ones(rows, "f")
    trained = step.train(*step.place(params, state, (np.ones(8, "f"),)), batch, ones, None, None, rows, 0, 0.1)
    found = (trained, step.test(params, state, batch, ones, rows), step.predict(params, state, batch))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]


@pytest.fixture
def nothing_is_worked_out(monkeypatch):
    """From the call of what it gives on, no graph is differentiated or optimised, and no kernel is chosen."""

    def refuses(*_, **__):
        raise AssertionError("this is not needed for a step that is on disk")

    def begin():
        monkeypatch.setattr(program, "optimise", refuses)
        monkeypatch.setattr(objective, "gradient", refuses)
        monkeypatch.setattr(Chooser, "__init__", refuses)
        monkeypatch.setattr(calls, "fingerprint", refuses)

    yield begin
    monkeypatch.undo()


def test_the_same_bits_without_gradients_passes_and_choices(folder, nothing_is_worked_out):
    compiled = results()
    assert sorted(f.name[:5] for f in folder.iterdir()) == ["plan-"] * 3 + ["step-"] * 3
    assert all(f.stat().st_mode & 0o777 == 0o600 for f in folder.iterdir())
    before, loaded = compile_cache.compilations(), compile_cache.cache_hits()
    nothing_is_worked_out()
    assert results() == compiled
    assert compile_cache.cache_hits() == loaded + 3 and compile_cache.compilations() == before


def test_an_objective_gives_the_graph_that_was_given_whole():
    late, whole = regression(late=True), regression()
    assert late.train == whole.train and late.optimised("train") == whole.optimised("train")
    assert (
        late.before("train").output_names == whole.train.output_names[2:]
        and late.before("train").inputs == whole.train.inputs
    )
    assert dataclasses.replace(late, test=None).train is late.train
    params, state, batch = arrays()
    args = kp.StepArgs(params, state, batch, valid=np.ones(4, "f"), rows=4, share=1)
    np.testing.assert_allclose(late.export((4,)).train(4).whole(args), expected(params, state, batch, 4), rtol=1e-5)
    assert kp.StepSource(late.layout).train is None and kp.StepSource(late.layout).objective is None


def test_a_step_from_disk_is_still_explained_exported_and_called_with_other_types(folder, nothing_is_worked_out):
    results()
    source = regression(late=True)
    nothing_is_worked_out()
    step, (params, state, batch) = source.local(), arrays()
    placed = step.place(params, state, (np.ones(8, "f"),))
    placed = step.train(*placed, batch, np.ones(4, "f"), None, None, 4, 0, 0.1)[:3]
    pytest.MonkeyPatch().undo()


def test_explain_and_export_after_a_step_from_disk(folder):
    results()
    source = regression(late=True)
    step, (params, state, batch) = source.local(), arrays()
    placed = step.place(params, state, (np.ones(8, "f"),))
    step.train(*placed, batch, np.ones(4, "f"), None, None, 4, 0, 0.1)
    assert source._optimised == {}, "nothing was worked out"
    (part,) = explain(source, "train", rows=4, compile=False).parts
    assert (
        part.before == regression().train
        and part.picked == explain(regression(), "train", 4, compile=False).parts[0].picked
    )
    assert source.export((4,)).fingerprint == regression().export((4,)).fingerprint
    twice = step.train(
        *step.place(params, state, (np.ones(8, "f"),)), batch, np.ones(4, "f"), None, None, jax.numpy.int32(4), 0, 0.1
    )
    np.testing.assert_allclose(twice[3], expected(params, state, batch, 4)[13:], rtol=1e-5)


def test_another_batch_is_compiled_under_the_variant_of_the_first(folder):
    four, seven = results(4), results(7)
    step, found = regression(late=True).local(), []
    for rows in (4, 7):
        params, state, batch = arrays(rows)
        found.append(np.asarray(step.predict(params, state, batch)[0]).tobytes())
    assert found == [four[-1], seven[-1]]
    assert step._predict[1]._variant == "xla"


# --- plans that are not followed -----------------------------------------------------------------------------------------


def plan_of(folder, source=None):
    """The one plan and the one executable of a prediction."""
    params, state, batch = arrays()
    regression(late=True).local().predict(params, state, batch)
    (plan,), (step,) = folder.glob("plan-*"), folder.glob("step-*")
    return plan, step


def predicted():
    params, state, batch = arrays()
    before = compile_cache.compilations()
    out = regression(late=True).local().predict(params, state, batch)[0]
    return np.asarray(out).tobytes(), compile_cache.compilations() - before


def test_a_plan_whose_executable_is_gone_is_made_anew(folder):
    plan, step = plan_of(folder)
    want, compiled = predicted()
    assert compiled == 0
    step.unlink()
    assert predicted() == (want, 1) and step.exists() and predicted() == (want, 0)


def test_a_plan_that_is_gone_is_written_anew(folder):
    plan, _ = plan_of(folder)
    whole = plan.read_bytes()
    plan.unlink()
    assert predicted()[1] == 0, "the executable has a name of its own"
    assert plan.read_bytes() == whole


def rewritten(change):
    def damage(data):
        plan = json.loads(data[len(plans._MAGIC) + 32 :])
        change(plan)
        import hashlib

        body = json.dumps(plan).encode()
        return plans._MAGIC + hashlib.sha256(body).digest() + body

    return damage


DAMAGES = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[:-9],
    "one bit": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "older format": lambda data: b"kerasoft plan 0\n" + data[16:],
    "no fingerprint": rewritten(lambda plan: plan.update(step="../../other")),
    "an unknown variant": rewritten(lambda plan: plan.update(variant="eigen")),
    "less": rewritten(lambda plan: plan.pop("cases")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_plan_is_ignored_and_written_anew(folder, damage):
    plan, _ = plan_of(folder)
    want, whole = predicted()[0], plan.read_bytes()
    plan.write_bytes(DAMAGES[damage](whole))
    with pytest.warns(UserWarning, match=r"ignoring the plan of a step in .*plan-[0-9a-f]{64}: .* It is made anew\."):
        assert predicted() == (want, 0)
    assert plan.read_bytes() == whole


def test_a_plan_that_others_may_write_to_is_not_used(folder):
    plan, _ = plan_of(folder)
    plan.chmod(0o622)
    with pytest.warns(
        UserWarning, match="ignoring the plan .* others than its owner can write to it, or it is not yours"
    ):
        assert predicted()[1] == 0
    assert plan.stat().st_mode & 0o777 == 0o600


def test_a_plan_that_cannot_be_written_costs_a_warning(folder, monkeypatch):
    plan, _ = plan_of(folder)
    plan.unlink()
    original = stored.write_whole

    def refuses(file, magic, body):
        if magic == plans._MAGIC:
            raise OSError("no space left on device")
        original(file, magic, body)

    monkeypatch.setattr(stored, "write_whole", refuses)
    with pytest.warns(UserWarning, match="the plan of a step cannot be kept in .*no space left"):
        assert predicted()[1] == 0


def test_other_measured_times_end_a_plan(folder, monkeypatch, tmp_path_factory):
    """The plan names the choices that times could decide; a time that is added or changed ends it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("decisions")))
    monkeypatch.setattr(settings, "_budget_s", 1.0)
    timing.forget()
    x, k = input_node("x/0", (symbol("b"), 3), "float32"), param_node("k", (3, 2))
    graph = Graph((x,), (linalg.matmul(x, k),), ("out/0",))
    chooser = Chooser(graph, {"b": 4}, measure=False)
    keys = chooser.asked or ("matmul(float32[4, 3], float32[3, 2]){}",)
    first = timing.decided(keys)
    assert timing.decided(keys) == first and timing.decided(()) != first
    known = timing._decisions(tuple(sorted(machine.description().items()))).known
    known[keys[0]] = decisions.Decision({"xla": 1e-3, "native": 2e-3})
    second = timing.decided(keys)
    known[keys[0]] = decisions.Decision({"xla": 1e-3, "native": 5e-4})
    third = timing.decided(keys)
    assert len({first, second, third}) == 3
    known["conv(other)"] = decisions.Decision({"xla": 1e-3})
    assert timing.decided(keys) == third, "what was not asked for does not count"
    monkeypatch.setattr(settings, "_budget_s", 0.0)
    assert timing.decided(keys) == timing.decided(()), "times are not used then"
    timing.forget()


def test_a_plan_is_not_followed_when_more_is_known(folder, monkeypatch):
    plan_of(folder)
    read = []
    original = stored.kept
    monkeypatch.setattr(plans.stored, "kept", lambda *a: read.append(a) or original(*a))
    monkeypatch.setattr(plans, "decided", lambda keys: "what is known now")
    assert predicted()[1] == 0 and len(read) == 1, "by the executable's own name only"
    assert predicted()[1] == 0, "and by the plan that was written then"


def test_plans_of_one_process_are_followed_in_another(folder, tmp_path):
    script = """
import sys
import numpy as np
from kerasoft.compiler import compile_cache, stored
from tests.compiler.test_plans import results
stored.use_default_cache, stored.WORTH_S = (lambda: sys.argv[1]), 0.0
import hashlib
print(hashlib.sha256(b"".join(results())).hexdigest(), compile_cache.cache_hits(), len(__import__("os").listdir(sys.argv[1])))
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert said[0][0] == said[1][0] and [s[1:] for s in said] == [["0", "6"], ["3", "6"]]


# --- the name ---------------------------------------------------------------------------------------------------------


def model(scale=2.0, axis_size=3, function="relu", power=2, weights=("k",)):
    """Of a step: the objective, and the update graph."""
    x, k = input_node("x/0", (symbol("b"), axis_size), "float32"), param_node("k", (axis_size, 2))
    other = param_node("other", (2,))
    y = getattr(activations, function)(arithmetic.multiply(linalg.matmul(x, k) + other, scale))
    loss, aside = reduce.sum(y * y), reduce.sum(y)
    chosen = loss if power == 2 else aside
    nodes = {"k": k, "other": other}
    return Objective(Graph((x,), (loss, aside), ("sum/loss", "sum/aside")), chosen, {w: nodes[w] for w in weights})


def update(rate=0.5):
    n = symbol("n")
    p, g = (input_node(name, (n,), "float32") for name in ("param", "gradient"))
    return Graph((p, g), (arithmetic.subtract(p, g * rate),), ("param",))


def name(made=None, moved=None, rest=("step",), rows=4, donate=(), dtype="f", variant=None):
    made, moved = made or model(), moved or update()
    graphs = (made.described, moved)
    arguments = (np.zeros(6, "f"), (np.zeros((rows, 3), dtype),))
    return plans.name(Recipe(graphs, rest), variant, arguments, {"donate_argnums": donate})


CHANGES = {
    "constant": lambda: name(model(scale=2.0000002)),
    "shape": lambda: name(model(axis_size=5)),
    "op": lambda: name(model(function="tanh")),
    "which node is the loss": lambda: name(model(power=1)),
    "another weight is trained": lambda: name(model(weights=("other",))),
    "both weights are trained": lambda: name(model(weights=("k", "other"))),
    "order of the weights": lambda: name(model(weights=("other", "k"))),
    "optimizer": lambda: name(moved=update(0.25)),
    "what else it is made of": lambda: name(rest=("steps",)),
    "rows": lambda: name(rows=5),
    "dtype of an argument": lambda: name(dtype="i"),
    "donation": lambda: name(donate=(0,)),
    "variant": lambda: name(variant="xla-eigen"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_function_has_another_name(change):
    names = {CHANGES[change](), name(), name(model(weights=("k", "other")))}
    assert len(names) == (2 if change == "both weights are trained" else 3) and None not in names


SURROUNDINGS = [
    "processor", "threads", "kerasoft", "jax", "isa", "libraries", "mkl", "instructions", "sources", "kernels", "left out",
    "seconds of measuring", "XLA's flags", "native kernels", "precision",
]  # fmt: skip


@pytest.mark.parametrize("what", SURROUNDINGS)
def test_other_surroundings_give_another_name(what, monkeypatch):
    before = name()
    if what in ("processor", "threads", "kerasoft", "jax", "isa", "libraries", "mkl"):
        key = {"processor": "cpu"}.get(what, what)
        monkeypatch.setattr(machine, "description", lambda now=machine.description(): {**now, key: "another"})
    elif what == "instructions":
        monkeypatch.setattr(fingerprint, "_processor_flags", lambda: "flags: avx1024")
    elif what == "sources":
        monkeypatch.setattr(fingerprint, "_sources", lambda: "another checkout")
    elif what == "kernels":
        monkeypatch.setattr(settings, "_forced", {"matmul": "xla"})
    elif what == "seconds of measuring":
        monkeypatch.setattr(settings, "_budget_s", 7.0)
    elif what == "XLA's flags":
        monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math=true")
    elif what == "native kernels":
        monkeypatch.setenv("KERASOFT_NATIVE", "2")
    if what == "precision":
        with jax.default_matmul_precision("bfloat16"):
            assert name() != before
    elif what == "left out":
        with settings.leaving_out(["native"]):
            assert name() != before
    else:
        assert name() != before
        assert name() == name()


@pytest.mark.parametrize("change", ["layout", "slots", "flags", "update", "forward", "loss", "weights"])
def test_each_part_of_a_source_is_in_its_name(folder, change):
    """As `LocalStep` puts the name together."""
    source = regression(late=True)
    given = source.objective
    others = {
        "layout": lambda: dict(
            layout=kp.Layout.of(
                params={"c": (2,), "k": (3, 2)}, states={"moving": (3,), "still": (2,)},
                sums={"loss/total": (), "loss/count": ()},
            )
        ),
        "slots": lambda: dict(slots=(kp.SlotSpec("momentum", 1.0),)),
        "flags": lambda: dict(flags=kp.Flags(couples_rows=True)),
        "update": lambda: dict(update=dataclasses.replace(source.update, outputs=source.update.outputs[::-1])),
        "forward": lambda: dict(train=regression(late=True, factor=0.25).objective),
        "loss": lambda: dict(train=dataclasses.replace(given, loss=given.forward.outputs[1])),
        "weights": lambda: dict(train=dataclasses.replace(given, weights={"k": given.weights["k"]})),
    }  # fmt: skip
    changed = others[change]()
    parts = {name: getattr(source, name) for name in ("inputs", "outputs", "update", "slots", "layout", "flags")}
    other = kp.StepSource(**{**parts, "train": given, **changed})

    def named(one):
        return plans.name(one.local()._train[1]._before, None, (np.zeros(4, "f"),), {})

    assert named(other) != named(source) == named(kp.StepSource(**parts, train=given))


def test_a_segment_to_be_computed_again_has_no_plan(folder):
    given = regression(late=True).objective
    inside = [n for n in given.forward.nodes if n.op.name == "matmul"]
    again = dataclasses.replace(given, segments=[Segment(frozenset(inside))])
    assert again.described is None and given.described is not None
    source = regression(late=True)
    source = kp.StepSource(source.layout, train=again, update=source.update, slots=source.slots)
    params, state, batch = arrays()
    step = source.local()
    step.train(*step.place(params, state, (np.ones(8, "f"),)), batch, np.ones(4, "f"), None, None, 4, 0, 0.1)
    assert [f.name[:5] for f in folder.iterdir()] == ["step-"]
