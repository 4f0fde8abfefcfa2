"""Adam as one native op, in a training of one process and in the program that executors get."""

import numpy as np
import pytest
from kerasoft.compiler import program as kp
from kerasoft.compiler.kernels import bridge, settings

import kerasoft as ks
from kerasoft.training.inputs import to_arrays

pytestmark = pytest.mark.skipif(not bridge.loaded("native"), reason="the native library was not built")
N, RATE = 70_003, 0.01


def source(**clipping):
    model = ks.Sequential([ks.Input((4,)), ks.layers.Dense(1)])
    model.compile(ks.optimizers.Adam(RATE, epsilon=1e-5, **clipping), "mse")
    arrays = to_arrays(model, np.zeros((2, 4), "f"), np.zeros((2, 1), "f"), None)
    return model._program(arrays.signature, "train").source


def given(n=N, seed=0):
    r = np.random.default_rng(seed)
    param, gradient, m = (r.normal(size=n).astype("f") for _ in range(3))
    return kp.UpdateArgs(param, gradient, (m, np.square(m) * 2), learning_rate=np.float32(RATE), iteration=6)


def adam(args):
    """The same in float64."""
    p, g, m, v = (np.float64(a) for a in (args.param, args.gradient, *args.slots))
    m, v = m + (g - m) * 0.1, v + (g * g - v) * 0.001
    alpha = RATE * np.sqrt(1 - 0.999**7) / (1 - 0.9**7)
    return p - m * alpha / (np.sqrt(v) + 1e-5), m, v


def part(args, start, stop):
    cut = [v[start:stop] for v in (args.param, args.gradient, *args.slots)]
    return kp.UpdateArgs(cut[0], cut[1], tuple(cut[2:]), learning_rate=args.learning_rate, iteration=args.iteration)


def flat(results):
    return [np.asarray(r) for r in (results[0], *results[1:])]


def test_the_program_calls_the_kernel_whatever_the_slice_and_leaves_its_arguments_alone():
    program = kp.StepProgram.from_bytes(source().export().to_bytes())
    assert program.kernels == ("native",)
    args = given()
    before = [v.copy() for v in (args.param, args.gradient, *args.slots)]
    call = program.update(N)
    assert "kerasoft.adam" in call._parts[0][2].as_text()
    for got, want in zip(flat(call.whole(args)), adam(args), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7)
    for now, then in zip((args.param, args.gradient, *args.slots), before):
        np.testing.assert_array_equal(now, then)


def test_nothing_is_copied_to_work_in_place():
    text = kp.StepProgram.from_bytes(source().export().to_bytes()).update(N)._parts[0][2].as_text()
    assert " copy(" not in text and "copy-start" not in text


@pytest.mark.parametrize("cuts", [(0, 64, N), (0, 16_384 * 2 + 64, 50_048, N), tuple(range(0, N, 9984)) + (N,)])
def test_slices_give_the_bits_of_the_whole(cuts):
    program, args = source().export(), given()
    whole = flat(program.update(N).whole(args))
    parts = [flat(program.update(b - a).whole(part(args, a, b))) for a, b in zip(cuts, cuts[1:])]
    for k, want in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([p[k] for p in parts]), want)


def test_where_the_kernel_is_left_out_xla_updates():
    with settings.leaving_out(["native"]):
        program = source().export()
    assert program.kernels == ()
    args = given()
    for got, want in zip(flat(program.update(N).whole(args)), adam(args), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7)


def test_an_optimizer_that_looks_at_all_weights_has_a_program_of_their_number():
    made = source(global_clipnorm=0.5)
    program, n = made.export(), made.layout.P
    assert program.kernels == ("native",)
    args = given(n)
    norm = np.linalg.norm(np.float64(args.gradient))
    clipped = kp.UpdateArgs(args.param, args.gradient * (0.5 / max(norm, 0.5)), args.slots)
    args.segment = np.zeros(n, "i")
    for got, want in zip(flat(program.update(n).whole(args)), adam(clipped), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
