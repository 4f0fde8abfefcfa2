"""The driver is not on the data path: what a step sends over the control connections does not depend on the parameters."""

import numpy as np
from kerasoft.runtime import rendezvous

from tests.runtime.cases import fit_in_threads, mlp


def bytes_of_a_fit(monkeypatch, source, features, steps):
    """Bytes of all messages between driver and workers, in both directions, but for heartbeats."""
    sent, send = [], rendezvous.wire.send_message

    def counted(sock, message, timeout_s, sequence=0):
        size = send(sock, message, timeout_s, sequence)
        sent.append(size if message.kind in ("steps", "start", "finished", "decision", "adjust", "checkpoint") else 0)
        return size

    rng = np.random.default_rng(0)
    rows = [
        {"x/0": rng.normal(size=(4 * steps, features)).astype("float32"), "y/0": np.zeros((4 * steps, 1), "float32")}
    ]
    with monkeypatch.context() as patch:
        patch.setattr(rendezvous.wire, "send_message", counted)
        result, hooks, _ = fit_in_threads(source, [rows, rows], 2, batch_size=8, epochs=1)
    assert len(hooks.steps) == steps and len(result.params) == source.layout.P
    return sum(sent)


def test_bytes_through_the_driver_per_step_do_not_grow_with_parameters(monkeypatch):
    per_step = []
    for features, units in ((99, 1000), (999, 10_000)):
        source = mlp(features=features, units=units)
        few, many = (bytes_of_a_fit(monkeypatch, source, features, steps) for steps in (2, 12))
        per_step.append((many - few) / 10)
        assert few > 4 * source.layout.P  # the start and the end do carry the weights, once
    assert source.layout.P == 10_000_000
    small, large = per_step
    states = 4 * (999 - 99)  # nothing of them either
    assert large < 1500 and abs(large - small) < 200 < states
