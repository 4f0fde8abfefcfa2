"""Optimizers that need norms of weights, or whole weights, on parts of a model: the weights of one process."""

import numpy as np
import pytest
from kerasoft.compiler.parallel import Mesh, partition
from kerasoft.runtime import Parallel

import kerasoft as ks
from tests.compiler.parallel import together
from tests.runtime.cases import digest, fit_in_threads

SIZES = (13, 0, 29, 5, 20)
CUTS = {
    "pipeline": Parallel(pipeline=2, data=2, microbatches=2, timeout_s=20),
    "model": Parallel(model=2, data=2, timeout_s=20),
    "zero": Parallel(data=3, zero=3, timeout_s=20),
}
OPTIMIZERS = {
    "global norm": lambda: ks.optimizers.Adam(global_clipnorm=0.2),
    "a norm each": lambda: ks.optimizers.SGD(momentum=0.9, clipnorm=0.02),
    "Lamb": lambda: ks.optimizers.Lamb(),
    "LARS": lambda: ks.optimizers.LARS(momentum=0.9),
    "decay of some": lambda: excluding(ks.optimizers.AdamW(weight_decay=0.5)),
    "Muon": lambda: ks.optimizers.Muon(),
    "Adafactor": lambda: ks.optimizers.Adafactor(),
    "Adafactor, global norm": lambda: ks.optimizers.Adafactor(global_clipnorm=0.2),
}
SLOW = pytest.mark.soak


def excluding(optimizer):
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    return optimizer


def source_of(optimizer, constraint=None):
    """Split and whole weights, a stage for each half; targets far off, so that norms are large."""
    layers = ks.layers
    model = ks.Sequential(
        [
            ks.Input((40,)),
            layers.Dense(64, activation="tanh", name="up", kernel_constraint=constraint),
            layers.LayerNormalization(name="norm"),
            layers.Dense(24, activation="relu", name="down"),
            layers.Dense(2, name="head"),
        ]
    )
    model.compile(optimizer, "mse")
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(67, 40)).astype("float32"), rng.normal(size=(67, 2)).astype("float32") * 5
    source = together.source_of(model, x, y, 16)[0]
    names = [spec.name for spec in source.inputs]
    edges = np.cumsum([0, *SIZES])
    return source, [[dict(zip(names, (x[a:b], y[a:b])))] if b > a else [] for a, b in zip(edges, edges[1:])]


def agree(source, data, strategy, **options):
    alone = fit_in_threads(source, data, 1, epochs=2, **options)[0]
    result = fit_in_threads(source, data, strategy.limits[0], strategy, epochs=2, **options)[0]
    assert not np.allclose(alone.params, result.params * 0 + alone.params[0])
    for found, expected in zip([result.params, *result.slots], [alone.params, *alone.slots], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize(
    "optimizer, cut",
    [
        ("global norm", "pipeline"),
        ("global norm", "model"),
        pytest.param("global norm", "zero", marks=SLOW),
        pytest.param("a norm each", "pipeline", marks=SLOW),
        pytest.param("a norm each", "model", marks=SLOW),
        pytest.param("a norm each", "zero", marks=SLOW),
        ("Lamb", "pipeline"),
        pytest.param("Lamb", "model", marks=SLOW),
        pytest.param("Lamb", "zero", marks=SLOW),
        pytest.param("LARS", "pipeline", marks=SLOW),
        pytest.param("LARS", "model", marks=SLOW),
        ("LARS", "zero"),
        pytest.param("decay of some", "pipeline", marks=SLOW),
        ("decay of some", "model"),
        pytest.param("decay of some", "zero", marks=SLOW),
        pytest.param("Muon", "pipeline", marks=SLOW),
        pytest.param("Adafactor", "pipeline", marks=SLOW),
        ("Adafactor, global norm", "pipeline"),
    ],
)
def test_norms_are_those_of_the_whole_model(optimizer, cut):
    source, data = source_of(OPTIMIZERS[optimizer]())
    agree(source, data, CUTS[cut])


def test_constraints_hold_in_the_stages_of_a_pipeline():
    source, data = source_of("sgd", ks.constraints.MaxNorm(0.3))
    agree(source, data, CUTS["pipeline"])


def test_a_stage_without_weights_takes_part_in_the_norms():
    model = ks.Sequential([ks.Input((8,)), ks.layers.Dense(4, name="up"), ks.layers.Softmax(name="soft")])
    model.get_layer("soft")
    model.compile(ks.optimizers.SGD(0.1, global_clipnorm=0.1), "mse")
    x = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")
    y = np.eye(4, dtype="float32")[np.arange(20) % 4]
    source = together.source_of(model, x, y, 16)[0]
    names = [spec.name for spec in source.inputs]
    data = [[dict(zip(names, (x[:9], y[:9])))], [dict(zip(names, (x[9:], y[9:])))]]
    assert [layout.P for layout in partition(source, Mesh(pipeline=2), {"up": 0, "soft": 1}).layouts] == [36, 0]
    agree(source, data, Parallel(pipeline=2, microbatches=1, timeout_s=20), placement={"up": 0, "soft": 1})


def test_a_weight_that_all_parts_hold_counts_once():
    source, _ = source_of(ks.optimizers.Adam(global_clipnorm=0.2))
    plan = partition(source, Mesh(model=2), rows=16)
    counted = [program.counted() for program in plan.export(train_rows=(16,))]
    assert sum(int(c.sum()) for c in counted) == source.layout.P and 0 < counted[1].sum() < counted[0].sum()


def test_norms_of_a_deterministic_fit_have_the_same_bits_for_any_number_of_replicas():
    source, data = source_of(ks.optimizers.Adam(global_clipnorm=0.2))
    results = [
        fit_in_threads(source, data, 2 * d, Parallel(data=d, pipeline=2, deterministic=True, timeout_s=20), epochs=1)[0]
        for d in (1, 2)
    ]
    assert digest(results[0]) == digest(results[1])


def test_who_cannot_look_at_whole_weights_says_so():
    source, _ = source_of(ks.optimizers.Muon())
    for mesh in (Mesh(model=2), Mesh(zero=3, slices=2)):
        with pytest.raises(ValueError, match="looks at whole weights .* Give pipeline="):
            partition(source, mesh)
