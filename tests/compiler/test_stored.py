"""Executables kept whole: the same bits from disk, nothing but the same program under a name, and bad files ignored."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kerasoft.compiler import compile_cache, fingerprint, stored
from kerasoft.compiler.fingerprint import Recipe
from kerasoft.compiler.ir import Graph, source, symbol
from kerasoft.compiler.kernels import machine, settings
from kerasoft.compiler.kernels.choice import Chooser
from kerasoft.compiler.ops import activations, arithmetic, linalg
from kerasoft.compiler.ops.registry import REGISTRY, input_node, op, param_node

from tests.compiler.test_program import arrays, regression

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Keeps everything in a folder of the test's own."""
    monkeypatch.setattr(stored, "use_default_cache", lambda: str(tmp_path))
    monkeypatch.setattr(stored, "WORTH_S", 0.0)
    return tmp_path


def results():
    """All that the calls of a fresh step give, as bytes."""
    params, state, batch = arrays()
    step, ones = regression().local(), np.ones(4, "f")
    placed = step.place(params, state, (np.ones(8, "f"),))
    trained = step.train(*placed, batch, ones, None, None, 4, 0, 0.1)
    several = step.train_several(
        *step.place(params, state, (np.ones(8, "f"),)), {k: np.stack([v] * 3) for k, v in batch.items()},
        np.ones((3, 4), "f"), None, None, np.full(3, 4, "f"), 2, 0, 0.1,
    )  # fmt: skip
    found = (trained, several, step.test(params, state, batch, ones, 4), step.predict(params, state, batch))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]


def test_the_same_bits_from_disk_and_nothing_is_compiled(folder):
    compiled = results()
    assert len(list(folder.glob("step-*"))) == 4, "train, several, test, predict"
    assert all(f.stat().st_mode & 0o777 == 0o600 for f in folder.iterdir())
    before, loaded = compile_cache.compilations(), compile_cache.cache_hits()
    assert results() == compiled
    assert compile_cache.cache_hits() == loaded + 4 and compile_cache.compilations() == before


def test_what_is_loaded_donates_and_takes_other_shapes(folder):
    params, state, batch = arrays()
    results()
    step = regression().local()
    placed = step.place(params, state, (np.ones(8, "f"),))
    step.train(*placed, batch, np.ones(4, "f"), None, None, 4, 0, 0.1)
    assert placed[0][0].is_deleted() and placed[1].is_deleted()
    params, state, batch = arrays(7)
    assert step.predict(params, state, batch)[0].shape == (7, 2)
    want = regression().local().test(params, state, batch, np.ones(7, "f"), 7)
    np.testing.assert_array_equal(step.test(params, state, batch, np.ones(7, "f"), jnp.float32(7)), want)


def flipped(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def other_code(data):
    import hashlib

    body = data[len(stored._MAGIC) + 32 :]
    body = body[: body.index(b"\n") + 1] + b"not machine code"
    return stored._MAGIC + hashlib.sha256(body).digest() + body


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:1000], flipped, lambda data: b"kerasoft executable 0\n" + data[22:], other_code],
    ids=["empty", "cut short", "one bit", "older format", "no machine code"],
)  # fmt: skip
def test_a_damaged_file_is_ignored_and_written_anew(folder, damage):
    params, state, batch = arrays()
    want = np.asarray(regression().local().predict(params, state, batch)[0])
    (file,) = folder.glob("step-*")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.warns(
        UserWarning, match=r"ignoring the compiled step in .*step-[0-9a-f]{64}: .* It is compiled anew\."
    ):
        found = np.asarray(regression().local().predict(params, state, batch)[0])
    np.testing.assert_array_equal(found, want)
    assert stored.kept(file, (params, state, (batch["x/0"],))) is not None


def test_a_file_that_others_may_write_to_is_not_used(folder):
    params, state, batch = arrays()
    regression().local().predict(params, state, batch)
    (file,) = folder.glob("step-*")
    file.chmod(0o666)
    with pytest.warns(UserWarning, match="others than its owner can write to it, or it is not yours"):
        regression().local().predict(params, state, batch)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_to_costs_a_warning(folder, monkeypatch):
    monkeypatch.setattr(stored, "use_default_cache", lambda: str(folder / "gone"))
    params, state, batch = arrays()
    with pytest.warns(UserWarning, match="the compiled step cannot be kept in"):
        assert regression().local().predict(params, state, batch)[0].shape == (4, 2)


def test_an_executable_that_cannot_be_serialised_costs_a_warning(folder, monkeypatch):
    def refuses(*_):
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: not this one")

    monkeypatch.setattr(type(jax.devices()[0].client), "serialize_executable", refuses)
    params, state, batch = arrays()
    with pytest.warns(UserWarning, match="the compiled step cannot be kept in .*UNIMPLEMENTED"):
        assert regression().local().predict(params, state, batch)[0].shape == (4, 2)
    assert not list(folder.glob("step-*"))


def test_threads_that_write_one_file_at_once(folder):
    params, state, batch = arrays()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(regression().local().predict(params, state, batch)[0]))
        for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4 and len({np.asarray(f).tobytes() for f in found}) == 1
    (file,) = folder.glob("step-*")
    assert stored.kept(file, (params, state, (batch["x/0"],))) is not None


AT_ONCE = """
import sys, warnings
warnings.simplefilter("error")
sys.path[:0] = [{root!r}]
from kerasoft.compiler import stored
from tests.compiler.test_stored import results
stored.use_default_cache, stored.WORTH_S = (lambda: sys.argv[1]), 0.0
import hashlib
print(hashlib.sha256(b"".join(results())).hexdigest())
"""


@pytest.mark.soak
def test_processes_at_once(tmp_path):
    command = [sys.executable, "-c", AT_ONCE.format(root=str(ROOT)), str(tmp_path)]
    made = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(3)]
    said = [p.communicate(timeout=120)[0] for p in made]
    assert all(p.returncode == 0 for p in made) and len(set(said)) == 1
    assert sorted(f.name[:5] for f in tmp_path.iterdir()) == ["plan-"] * 4 + ["step-"] * 4
    assert not list(tmp_path.glob("*.part"))


# --- the name --------------------------------------------------------------------------------------------------------


def graph(scale=2.0, axis_size=3, function="relu", layer="dense"):
    with source(layer):
        x, k = input_node("x", (symbol("b"), axis_size), "float32"), param_node("k", (axis_size, 2))
        y = getattr(activations, function)(arithmetic.multiply(linalg.matmul(x, k), scale))
    return Graph((x,), (y,), ("out",))


def name(made=None, rest=("predict",), rows=4, donate=(), dtype="f"):
    made = graph() if made is None else made
    arguments = (np.zeros(6, "f"), (np.zeros((rows, 3), dtype),))
    return fingerprint.fingerprint(
        Recipe((made,), rest), Chooser(made, {"b": rows}), arguments, {"donate_argnums": donate}
    )


CHANGES = {
    "constant": lambda: name(graph(scale=2.0000002)),
    "shape": lambda: name(graph(axis_size=5)),
    "op": lambda: name(graph(function="tanh")),
    "what else it is made of": lambda: name(rest=("test",)),
    "rows": lambda: name(rows=5),
    "dtype of an argument": lambda: name(dtype="i"),
    "donation": lambda: name(donate=(0,)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_program_has_another_name(change):
    assert CHANGES[change]() != name()


@pytest.fixture(
    params=["processor", "threads", "kerasoft", "jax", "instructions", "sources", "kernels", "XLA's flags", "precision"]
)
def surroundings(request, monkeypatch):
    before = name()
    if request.param in ("processor", "threads", "kerasoft", "jax"):
        key = {"processor": "cpu"}.get(request.param, request.param)
        monkeypatch.setattr(machine, "description", lambda now=machine.description(): {**now, key: "another"})
    elif request.param == "instructions":
        monkeypatch.setattr(fingerprint, "_processor_flags", lambda: "flags: avx1024")
    elif request.param == "sources":
        monkeypatch.setattr(fingerprint, "_sources", lambda: "another checkout")
    elif request.param == "XLA's flags":
        monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math=true")
    if request.param == "precision":
        with jax.default_matmul_precision("bfloat16"):
            yield before
    elif request.param == "kernels":
        settings.force("matmul=xla")
        yield before
        settings.force(None)
    else:
        yield before


def test_other_surroundings_give_another_name(surroundings):
    assert name() != surroundings
    assert name() == name()


def test_names_of_layers_do_not_count():
    first, second = graph(layer="dense"), graph(layer="dense_7")
    assert name(first) == name(second) != None  # noqa: E711
    assert name(dataclasses.replace(first, output_names=("other",))) != name(first)


def test_what_cannot_be_written_down_has_no_name():
    x = input_node("x", (symbol("b"), 3), "float32")
    own = op("stored_test_own", lower=lambda x: x + 1)
    try:
        assert name(Graph((x,), (own(x),), ("out",))) is None
    finally:
        del REGISTRY["stored_test_own"]
    assert name(Graph((x,), (arithmetic.multiply(x, 2.0),), ("out",))) is not None
