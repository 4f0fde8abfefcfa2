"""AllReduce with compressed gradients, ranks as threads."""

import pathlib
import sys

import numpy as np
import pytest
from kerasoft.runtime import AllReduce, Threshold, TopK, TwoBit
from kerasoft.runtime.faults import Fault

from tests.runtime.cases import digest, fit_in_threads, mlp, shards, weights

SIZES = (13, 0, 29, 5, 20)


@pytest.mark.parametrize("update", ["sliced", "replicated"])
def test_sending_everything_is_all_reduce(update):
    data = shards(SIZES)
    wanted, told, _ = fit_in_threads(mlp(clip=True), data, 2, epochs=2)
    everything = AllReduce(compression=TopK(1.0), timeout_s=5)
    found, hooks, _ = fit_in_threads(mlp(clip=True, update_mode=update), data, 3, everything, epochs=2)
    np.testing.assert_allclose(weights(found), weights(wanted), rtol=2e-5, atol=1e-6)
    for x, y in zip(hooks.ends, told.ends, strict=True):
        np.testing.assert_allclose(x.sums, y.sums, rtol=1e-5)


@pytest.mark.parametrize("way", [Threshold(density=0.1), TopK(0.05), TwoBit()], ids=str)
def test_bits_do_not_depend_on_workers_or_deaths(way):
    def fit(world_size, **more):
        strategy = AllReduce(deterministic=True, compression=way, timeout_s=5)
        return fit_in_threads(mlp(dropout=True), shards(SIZES), world_size, strategy, epochs=3, **more)

    calm, told, _ = fit(1)
    for end in told.ends:
        assert end.sums[1:].tolist() == [67, sum(range(67)), sum(i * i for i in range(67))]
    assert digest(fit(4)[0]) == digest(calm)
    lost, hooks, _ = fit(3, faults=[Fault(1, 1, 3, "leave")], checkpoint_every_steps=2)  # residuals come back
    assert digest(lost) == digest(calm)
    assert [e.kind for e in hooks.events].count("retrying") == 1


def test_without_deterministic_a_worker_keeps_one_residual_and_nothing_is_lost_by_a_death():
    strategy = AllReduce(compression="threshold", timeout_s=5)
    lost, hooks, _ = fit_in_threads(
        mlp(), shards(SIZES), 3, strategy, epochs=3, faults=[Fault(0, 1, 3, "leave")], checkpoint_every_steps=1
    )
    calm, told, _ = fit_in_threads(mlp(), shards(SIZES), 3, strategy, epochs=3)
    np.testing.assert_array_equal(weights(lost), weights(calm))
    assert hooks.ends[-1].sums[0] == told.ends[-1].sums[0] < hooks.ends[0].sums[0]


@pytest.mark.parametrize(
    "way, most", [(Threshold(density=0.005), 0.01), (TopK(0.002), 0.01), (TwoBit(), 0.07)], ids=str
)
def test_bytes_on_the_wire(way, most):
    source, data = mlp(features=500, units=200), shards((20, 20), features=500)

    def sent(**options):
        counts = []
        for epochs in (1, 3):
            strategy = AllReduce(timeout_s=5, **options)
            _, _, driver = fit_in_threads(source, data, 2, strategy, epochs=epochs, batch_size=8, transports=("tcp",))
            counts.append(sum(c["bytes_sent"] for c in driver.counters))
        return counts[1] - counts[0]

    states = 10 * 2 * 4 * (source.layout.S + source.layout.M)  # sent as they are, both ways
    assert sent(compression=way) - states <= most * (sent() - states)


def accuracy(x, y, tested, strategy, epochs):
    """Test accuracy of a 64-unit net trained by two workers on four shards, and the bytes that they sent."""
    import kerasoft as ks
    from kerasoft.training.inputs import to_arrays

    ks.utils.set_random_seed(1)
    model = ks.Sequential(
        [ks.Input(x.shape[1:]), ks.layers.Dense(64, activation="relu"), ks.layers.Dense(10, activation="softmax")]
    )
    model.compile(ks.optimizers.SGD(0.3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    arrays = to_arrays(model, x, y, None)
    program = model._program(arrays.signature, "train")
    params, state = program.store.read()
    data = [[{n: a[s::4] for n, a in arrays.arrays.items()}] for s in range(4)]
    result, _, driver = fit_in_threads(
        program.source, data, 2, strategy, epochs=epochs, batch_size=64, params=params, state=state,
        learning_rate=0.3, transports=("tcp",),
    )  # fmt: skip
    program.store.write(result.params, result.state)
    found = model.evaluate(*tested, verbose=0, return_dict=True)["accuracy"]
    return found, sum(c["bytes_sent"] for c in driver.counters)


WAYS = [Threshold(density=0.005), TopK(0.003)]


def test_digits_are_learnt_as_well():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    tested = (x[1200:], y[1200:])
    dense, _ = accuracy(x[:1200], y[:1200], tested, AllReduce(timeout_s=5), 20)
    for way in (*WAYS, TwoBit()):
        found, _ = accuracy(x[:1200], y[:1200], tested, AllReduce(compression=way, timeout_s=5), 20)
        assert found >= dense - 0.01, way  # 597 rows: a row is 0.17 points


MNIST = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST's idx files beside the checkout")
def test_mnist_within_half_a_point_of_dense_with_a_hundredth_of_the_bytes():
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples"))
    import mnist

    (x, y), tested = (
        [mnist.read_idx(MNIST, f"{part}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        for part in ("train", "t10k")
    )
    x, tested = (
        (x.reshape(-1, 784) / 255).astype("float32"),
        ((tested[0].reshape(-1, 784) / 255).astype("float32"), tested[1]),
    )
    dense, sent = accuracy(x, y, tested, AllReduce(timeout_s=5), 2)
    assert dense > 0.95
    for way in WAYS[:1]:
        found, few = accuracy(x, y, tested, AllReduce(compression=way, timeout_s=5), 2)
        assert found >= dense - 0.005 and few <= 0.01 * sent, (way, found, dense, few / sent)
