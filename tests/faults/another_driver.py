"""A driver of its own that strikes itself: killed or frozen at a named moment of a fit with a checkpoint folder."""

from __future__ import annotations

import os
import pathlib
import signal
import sys

import numpy as np

from tests.conftest import Cluster
from tests.faults.cases import WAYS
from tests.faults.hosts import Hosts
from tests.faults.runner import Runner
from tests.faults.strikes import later
from tests.runtime.cases import Recorder, weights

EXECUTORS = 2


def main(
    url: str, folder: str, owner: str, number: str, way: str, when: str, how: str, seconds: str, place: str
) -> None:
    if int(owner):
        cluster: Cluster = Hosts(url, pathlib.Path(folder), int(number), 1, int(owner))
    else:
        cluster = Cluster(url, pathlib.Path(folder))
    session = cluster.session("another", executors=EXECUTORS)
    runner = Runner(session, cluster, pathlib.Path(place))
    hooks = Recorder()
    struck: list[bool] = []

    def strike() -> None:
        if struck:
            return
        struck.append(True)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        later(float(seconds), f"kill -CONT {os.getpid()}")
        os.kill(os.getpid(), signal.SIGSTOP)

    if when == "rendezvous":
        from kerasoft.runtime.rendezvous import ControlServer

        real = ControlServer._greet

        def greet(self, member, message):
            real(self, member, message)
            if self.table:
                strike()

        ControlServer._greet = greet  # type: ignore[method-assign]
    elif when == "commit":
        from kerasoft.runtime.spark_files import HadoopFolder

        class Files:
            """Copies, and dies before it renames."""

            def __init__(self, files):
                self._files = files

            def __getattr__(self, name):
                if name == "rename" and hooks.steps and (hooks.steps[-1].epoch, hooks.steps[-1].step) >= (1, 2):
                    strike()
                return getattr(self._files, name)

        begin = HadoopFolder.__init__

        def init(self, *args):
            begin(self, *args)
            self._files = Files(self._files)

        HadoopFolder.__init__ = init  # type: ignore[method-assign]
    elif when == "validation":
        hooks.on_report = lambda reports: strike() if (reports[-1].epoch, reports[-1].step) >= (1, 4) else None
    else:
        hooks.on_report = lambda reports: strike() if (reports[-1].epoch, reports[-1].step) >= (1, 2) else None
    options = {} if WAYS[way].stateless else {"workers": EXECUTORS}
    result = runner.fit(WAYS[way], hooks, checkpoint=(pathlib.Path(place) / "checkpoints").as_uri(), **options)
    np.save(pathlib.Path(place) / "weights.npy", weights(result))
    session.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
