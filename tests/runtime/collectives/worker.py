"""One rank of the failure tests, as a process of its own: sums for ever and reports what ends it."""

import json
import sys
import time

sys.path.insert(0, ".")

import numpy as np  # noqa: E402
from kerasoft.runtime.collectives import PeerListener, connect  # noqa: E402
from kerasoft.runtime.control_client import ControlClient  # noqa: E402
from kerasoft.runtime.errors import WorkerLost  # noqa: E402


def main(address, secret, rank, transports, timeout_s, elements=20_000):
    secret = bytes.fromhex(secret)
    with ControlClient(tuple(address), secret, 1, rank) as client:
        listener = PeerListener(client.local_address)
        table = client.join(listener.address)
        with connect(table, rank, secret, 1, 20.0, listener=listener, transports=transports) as collective:
            collective.barrier()
            collective.timeout_s = timeout_s
            try:
                for step in range(1_000_000):
                    client.at(step, "sync")
                    collective.at(step)
                    vector = collective.buffer(elements) if step % 3 else np.empty(elements, np.float32)
                    vector[...] = step % 1000 + rank
                    owned = collective.reduce_scatter(vector)
                    gathered = collective.all_gather(owned, elements, note=step)
                    few = collective.all_reduce_small(np.full(3, step, np.float64))
                    total = len(table) * (step % 1000) + sum(range(len(table)))
                    right = (gathered.vector == total).all() and (few == len(table) * step).all()
                    if not right or set(gathered.notes) != {step}:
                        client.send("wrong", {"step": step})
                    if step == 20:
                        client.send("running", {"transport": collective.transport})
            except WorkerLost as error:
                report = {name: getattr(error, name) for name in ("rank", "host", "pid", "step", "phase")}
                kind = type(error).__name__
                client.send("error", {"kind": kind, "text": str(error), "at": time.monotonic(), **report})
                collective.abort(error)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
