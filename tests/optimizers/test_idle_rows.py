"""Updating only the rows looked up is what updating all rows is: after any gap, with schedules, decay and any epsilon."""

import dense_references as references
import numpy as np
import pytest
from kerasoft.compiler import adam_row_step, row_step, rows
from kerasoft.compiler.gradient import gradient
from kerasoft.compiler.ir import Graph, symbol
from kerasoft.compiler.ops import arithmetic, shape
from kerasoft.compiler.ops.indexing import embedding_lookup
from kerasoft.compiler.ops.registry import constant, input_node, param_node
from kerasoft.compiler.program import Layout, SlotSpec, StepSource

from kerasoft import Variable, optimizers
from kerasoft.optimizers import idle, schedules

ROWS, WIDTH, BATCH = 12, 3, 4


def source(optimizer):
    """A training whose gradient for a row looked up is an input, whatever the weights are."""
    b = symbol("b")
    ids, pull = input_node("ids", (b,), "int32"), input_node("pull", (b, WIDTH), "float32")
    table, bias = param_node("table", (ROWS, WIDTH)), param_node("bias", (WIDTH,))
    loss = shape.sum(arithmetic.multiply(arithmetic.add(embedding_lookup(table, ids), bias), pull))
    by_table, by_bias = gradient({loss: constant(1.0)}, [table, bias])
    train = Graph((ids, pull), (by_table, by_bias, loss), ("grad/table", "grad/bias", "sum/loss"))
    layout = Layout.of({"table": (ROWS, WIDTH), "bias": (WIDTH,)}, {}, {"loss": ()})
    variables = [Variable(np.zeros((ROWS, WIDTH), np.float32)), Variable(np.zeros(WIDTH, np.float32))]
    optimizer.build(variables)
    update, _, specs = optimizer.trace_update(layout)
    slots = tuple(SlotSpec(*spec) for spec in specs)
    found = optimizer.trace_idle({"table": variables[0]}, [s.name for s in slots])
    return StepSource(layout, train=train, update=update, slots=slots, idle=found)


def touched(steps, rng):
    """The ids of each step: row 0 often, twice in a batch; others with gaps of all lengths; row 11 never."""
    ids = np.zeros((steps, BATCH), np.int32)
    for step in range(steps):
        ids[step, 1] = 0 if step % 3 else 1
        ids[step, 2] = 2 + (step // 50) % 5  # days on, weeks off
        ids[step, 3] = 7 if rng.random() < 0.02 else 0
    ids[[2, 3, steps // 3], 1] = 8
    ids[[0, steps - 1], 2] = 9
    ids[[1], 3] = 10
    return ids


def both(optimizer, reference, steps, rate=None, decay=0.0):
    """Table by rows (float32), and the whole table in every step (float64, or our own float32 if there is no reference),
    after some numbers of steps.
    """
    rng = np.random.default_rng(5)
    ids, pulls = touched(steps, rng), rng.normal(size=(steps, BATCH, WIDTH)).astype(np.float32)
    made = source(optimizer)
    local, start = made.local(), rng.uniform(-0.05, 0.05, (ROWS, WIDTH)).astype(np.float32)
    params = np.concatenate([start.ravel(), np.zeros(WIDTH, np.float32)])
    held, state, slots = local.place(params, np.zeros(0, np.float32), made.slot_vectors(), 0, BATCH)
    assert isinstance(held, row_step.Placed)
    whole = (params, np.zeros(0, np.float32), made.slot_vectors())
    step, first = reference or (None, {})
    p, s = start.astype(np.float64), {k: np.full((ROWS, WIDTH), v, np.float64) for k, v in first.items()}
    given = np.float32(0.01 if rate is None else 0.0)
    for t in range(steps):
        batch = {"ids": ids[t], "pull": pulls[t]}
        held, state, slots, _ = local.train(held, state, slots, batch, None, None, None, BATCH, np.int32(t), given)
        g = np.zeros((ROWS, WIDTH))
        np.add.at(g, ids[t], pulls[t])
        now = float(given if rate is None else rate(t))
        if reference is None:
            *whole, _ = local.train(*whole, batch, None, None, None, BATCH, np.int32(t), given)
        else:
            p = step(p - p * decay * now, g, s, now, t + 1)
        if t in (3, steps // 2, steps - 1):
            held = local.settle(held, t + 1)
            flat, flat_slots = local.flat(held, slots)
            if reference is None:
                yield (flat, *flat_slots), (whole[0], *whole[2])
            else:
                yield flat[: p.size].reshape(p.shape), p


@pytest.fixture(autouse=True)
def every_table_by_rows(monkeypatch):
    monkeypatch.setattr(rows, "LEAST_SIZE", 1)
    monkeypatch.setattr(rows, "ROWS_PER_LOOKUP", 0)


def decaying(t):
    return 0.02 * 0.5 ** (t / 300)


SCHEDULE = schedules.ExponentialDecay(0.02, 300, 0.5)
SHORT = {
    "sgd": (lambda: optimizers.SGD(0.01, weight_decay=0.05), references.sgd(), None, 0.05),
    "momentum": (lambda: optimizers.SGD(0.01, momentum=0.9), references.sgd(0.9), None, 0.0),
    "nesterov": (
        lambda: optimizers.SGD(SCHEDULE, momentum=0.9, nesterov=True, weight_decay=0.1),
        references.sgd(0.9, True),
        decaying,
        0.1,
    ),
    "amsgrad": (lambda: optimizers.Adam(0.01, amsgrad=True), references.adam(amsgrad=True), None, 0.0),
    "large epsilon": (lambda: optimizers.Adam(0.01, epsilon=0.3), references.adam(epsilon=0.3), None, 0.0),
    "no momentum": (lambda: optimizers.Adam(0.01, beta_1=0.0), references.adam(beta_1=0.0), None, 0.0),
    "short memory": (
        lambda: optimizers.Adam(SCHEDULE, beta_2=0.95, epsilon=1e-3),
        references.adam(0.9, 0.95, 1e-3),
        decaying,
        0.0,
    ),
    "adamw": (lambda: optimizers.AdamW(SCHEDULE, weight_decay=0.1), references.adam(), decaying, 0.1),
    "clipped": (lambda: optimizers.Adam(0.01, clipvalue=1e9), references.adam(), None, 0.0),
    "adamax": (lambda: optimizers.Adamax(0.01, weight_decay=0.02), references.adamax(), None, 0.02),
    "adagrad": (lambda: optimizers.Adagrad(0.01), references.adagrad(), None, 0.0),
    "adadelta": (lambda: optimizers.Adadelta(0.01), references.adadelta(), None, 0.0),
    "rmsprop": (lambda: optimizers.RMSprop(0.01), references.rmsprop(), None, 0.0),
    "centered": (
        lambda: optimizers.RMSprop(0.01, momentum=0.8, centered=True, epsilon=1e-3),
        references.rmsprop(momentum=0.8, centered=True, epsilon=1e-3),
        None,
        0.0,
    ),
    "ftrl": (
        lambda: optimizers.Ftrl(SCHEDULE, l1_regularization_strength=0.01),
        references.ftrl(0.01),
        decaying,
        0.0,
    ),
}


@pytest.mark.parametrize("name", SHORT)
def test_rows_are_as_if_all_had_been_updated(name):
    made, reference, rate, decay = SHORT[name]
    for got, want in both(made(), reference, 250, rate, decay):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)  # 1 - 0.999^t is right to 1e-5 in float32


def test_adam_without_its_kernels(monkeypatch):
    monkeypatch.setattr(adam_row_step, "AdamRowStep", row_step.RowStep)
    for got, want in both(optimizers.AdamW(SCHEDULE, weight_decay=0.1), references.adam(), 250, decaying, 0.1):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_after_gaps_of_thousands_of_steps():
    """Through a refresh of all rows, with a schedule and decay; moments too."""
    steps, seen = rows.HISTORY + 200, 0
    for got, want in both(optimizers.AdamW(SCHEDULE, weight_decay=0.3), None, steps):
        for k, (a, b) in enumerate(zip(got, want, strict=True)):
            np.testing.assert_allclose(a, b, rtol=0 if k == 0 else 2e-5, atol=1e-6)
        seen += 1
    assert seen == 3


def test_the_sum_over_idle_steps_is_interpolated_within_its_tolerance():
    """Against the plain sum, for momentum and scales of all kinds, partial sums and a varying rate."""
    rng = np.random.default_rng(0)
    for beta, shrink in (
        (0.9, 0.999**0.5),
        (0.9, 0.99**0.5),
        (0.95, 0.999),
        (0.99, 0.999**0.5),
        (0.5, 0.95),
        (0.9, 1.0),
    ):
        places, weights = idle.nodes(beta, shrink)
        for gap in (1, 2, 7, 60, 900):
            rate = rng.uniform(0.5, 1.0, gap)
            ages = np.arange(1, gap + 1)
            known = np.minimum(ages, len(weights) - 1)
            for s, epsilon in ((1.0, 1e-7), (1e-4, 1e-4), (1e-8, 1e-7)):
                exact = np.sum(rate * beta**ages / (shrink**ages * s + epsilon))
                got = np.sum((rate @ weights[known]) / (shrink**places * s + epsilon))
                assert abs(got / exact - 1) < 5e-7, (beta, shrink, gap, s, epsilon)


@pytest.mark.parametrize(
    ("made", "because"),
    [
        (lambda: optimizers.Adam(global_clipnorm=1.0), "global_clipnorm"),
        (lambda: optimizers.Adam(use_ema=True), "use_ema"),
        (lambda: optimizers.SGD(gradient_accumulation_steps=2), "accumulated"),
        (lambda: optimizers.Ftrl(l2_shrinkage_regularization_strength=0.1), "shrinkage"),
        (lambda: optimizers.Lion(), "sign"),
        (lambda: optimizers.Nadam(), "Nadam"),
        (lambda: optimizers.Adam(beta_1=0.9, beta_2=0.5), "common sum"),
        (lambda: type("Mine", (optimizers.Adam,), {"update": optimizers.Lion.update})(), "update"),
    ],
)
def test_what_cannot_be_made_good_later_says_why(made, because):
    optimizer, variable = made(), Variable(np.zeros((4, 2), np.float32))
    optimizer.build([variable])
    assert because in optimizer.trace_idle({"table": variable}, [])["table"]
