"""One rank of the failure tests, as a process of its own: sums for ever and reports what ends it."""

import json
import sys
import time

sys.path.insert(0, ".")

import numpy as np  # noqa: E402
from kerasoft.runtime.collectives import PeerListener, connect  # noqa: E402
from kerasoft.runtime.errors import WorkerLost  # noqa: E402
from kerasoft.runtime.rendezvous import ControlClient  # noqa: E402


def main(address, secret, rank, transports, timeout_s, elements=20_000):
    secret = bytes.fromhex(secret)
    with ControlClient(tuple(address), secret, 1, rank) as client:
        listener = PeerListener(client.local_address)
        table = client.join(listener.address)
        with connect(table, rank, secret, 1, 20.0, listener=listener, transports=transports) as collective:
            collective.barrier()
            collective.timeout_s = timeout_s
            vector = np.ones(elements, np.float32)
            try:
                for step in range(1_000_000):
                    client.at(step, "sync")
                    collective.at(step)
                    owned = collective.reduce_scatter(vector)
                    collective.all_gather(owned, elements)
                    if step == 20:
                        client.send("running", {"transport": collective.transport})
                    time.sleep(0.001)
            except WorkerLost as error:
                report = {name: getattr(error, name) for name in ("rank", "host", "pid", "step", "phase")}
                kind = type(error).__name__
                client.send("error", {"kind": kind, "text": str(error), "at": time.monotonic(), **report})
                collective.abort(error)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
