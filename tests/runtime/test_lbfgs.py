"""L-BFGS over all rows, ranks as threads: against SciPy's optimum, deaths, other numbers of workers; the line search alone."""

import numpy as np
import pytest
from kerasoft.runtime import LBFGS
from kerasoft.runtime.faults import Fault
from kerasoft.runtime.line_search import LineSearch
from scipy.optimize import minimize, rosen, rosen_der
from sklearn.datasets import load_breast_cancer

import kerasoft as ks
from kerasoft.training.inputs import to_arrays
from tests.runtime.cases import digest, fit_in_threads, mlp, shards

L2 = 1e-2


def rows():
    x, y = load_breast_cancer(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), y.astype("float32")[:, None]


def logistic(units):
    """A model with logistic loss, convex without hidden units."""
    ks.utils.set_random_seed(1)
    layers = [ks.layers.Dense(u, activation="tanh") for u in units]
    head = ks.layers.Dense(1, kernel_regularizer=ks.regularizers.L2(L2))
    model = ks.Sequential([ks.Input((30,)), *layers, head])
    model.compile("sgd", ks.losses.BinaryCrossentropy(from_logits=True))
    return model


def train(model, world_size, cuts, **options):
    x, y = rows()
    arrays = to_arrays(model, x, y, None)
    program = model._program(arrays.signature, "train")
    params, state = program.store.read()
    data = [[{n: a[i:j] for n, a in arrays.arrays.items()}] if j > i else [] for i, j in zip(cuts, cuts[1:])]
    strategy = LBFGS(deterministic=options.pop("deterministic", False), timeout_s=5)
    return fit_in_threads(program.source, data, world_size, strategy, params=params, state=state, **options)


def objective(w):
    """The same loss and gradient in float64."""
    x, y = (a.astype(float) for a in rows())
    z = x @ w[:30] + w[30]
    loss = np.mean(np.logaddexp(0, z) - y[:, 0] * z) + L2 * w[:30] @ w[:30]
    error = (1 / (1 + np.exp(-z)) - y[:, 0]) / len(x)
    return loss, np.append(x.T @ error + 2 * L2 * w[:30], error.sum())


@pytest.mark.parametrize("world_size, batch_size", [(1, 569), (3, 100)])
def test_a_convex_problem_reaches_scipys_optimum(world_size, batch_size):
    best = minimize(objective, np.zeros(31), jac=True, method="BFGS", options={"gtol": 1e-10}).fun
    result, hooks, _ = train(logistic([]), world_size, (0, 200, 200, 569), epochs=100, batch_size=batch_size)
    assert 0 <= objective(result.params.astype(float))[0] - best < 1e-8
    assert len(hooks.ends) < 60  # ends by itself; a pass is an epoch, every row once
    assert all(e.rows == 569 and e.sums[1] == 569 for e in hooks.ends)
    assert hooks.ends[0].weights is not None


def test_bits_do_not_depend_on_workers_or_deaths():
    def fit(world_size, **more):
        return fit_in_threads(
            mlp(), shards((13, 0, 29, 5, 20)), world_size, LBFGS(4, deterministic=True, timeout_s=5), epochs=12, **more
        )

    calm, told, _ = fit(2)
    assert told.ends[-1].sums[0] < told.ends[0].sums[0] / 3
    for end in told.ends:
        assert end.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]
    other, hooks, _ = fit(4)
    assert digest(other) == digest(calm)
    np.testing.assert_array_equal(hooks.ends[-1].sums, told.ends[-1].sums)
    lost, hooks, _ = fit(3, faults=[Fault(1, 7, 2, "leave")])
    assert digest(lost) == digest(calm)
    assert next(e for e in hooks.events if e.kind == "retrying").details["epoch"] > 0


def test_slices_and_a_death_agree_with_whole_vectors_to_rounding():
    options = dict(epochs=6, batch_size=256)
    whole, _, _ = train(logistic([8]), 1, (0, 300, 569), deterministic=True, **options)
    cut, _, _ = train(logistic([8]), 3, (0, 300, 569), faults=[Fault(1, 3, 1, "leave")], **options)
    np.testing.assert_allclose(cut.params, whole.params, rtol=1e-3, atol=1e-4)


def test_the_line_search_finds_wolfe_points():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.normal(size=4) * 2
        direction = -rosen_der(x)
        search = LineSearch()
        search.start(rosen(x))
        search.aim(float(direction @ rosen_der(x)), 1.0)
        for _ in range(20):
            at = x + search.step * direction
            if search.judge(rosen(at), float(direction @ rosen_der(at))):
                break
            assert LineSearch.from_vector(search.to_vector()).step == search.step
        else:
            raise AssertionError("no step found")
        assert rosen(at) <= rosen(x) + 1e-4 * search.step * search.slope
        assert direction @ rosen_der(at) >= 0.9 * search.slope


def test_settings_are_checked():
    with pytest.raises(ValueError, match="LBFGS: history needs a whole number of at least 1 pair, got 0"):
        LBFGS(0)
    with pytest.raises(ValueError, match="LBFGS: tolerance needs a number of at least 0, got -1"):
        LBFGS(tolerance=-1)
