"""DeepDist's interface: a model that is any tree of arrays, trained by a gradient and a descent function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import RetriesExhausted, TrainingFailed
from .servers.pytree import copied, pack
from .servers.trees import Descent, TreePort, TreeServer, TreeTask
from .spark_watch import Watch
from .wire import new_secret

ATTEMPTS = 3
"""At an epoch whose tasks get stuck."""


class ParameterContext:
    """Trains any tree of arrays on an RDD, asynchronously. A context manager.

        with ParameterContext(model) as context:
            context.train(rdd, gradient, descent)
            model = context.model

    A task, for each batch of its partition:

    1. fetches the model (every `n_fetch` batches),
    2. computes ``update = gradient(model, rows)``, a tree of any shape,
    3. sends the update to the driver and waits for nothing; there ``descent(model, update)`` is called, one at a time. It
       changes the model in place, or returns another one.

    A task sends its updates' bytes and receives the model's every `n_fetch` batches. A task that dies is run again by Spark: the
    driver tells the new one how many batches of the partition have counted, and it goes on behind them; every row counts once
    an epoch. The model lives on the driver, whose death ends the training.

    Connections are authenticated (HMAC) by a secret of this context, bound to the driver's own address; models and updates travel
    as raw arrays and JSON, never as pickle. The two functions travel in Spark's task closure, as any function given to an RDD.

    Args:
        model: a tree (dicts with text keys, lists, tuples) of arrays and plain values; it is copied.

    Raises:
        TypeError: the model holds something else.

    Source: D. Neumann's DeepDist (2014), after J. Dean et al., Large Scale Distributed Deep Networks (2012).
    """

    def __init__(self, model: Any):
        pack(model)
        self.model = copied(model)
        self._counts: dict[str, int] = {}

    def __enter__(self) -> ParameterContext:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def counts(self) -> dict[str, float]:
        """Of the last `train`: updates, repeated ones that were ignored, mean and largest number of updates that an update
        had not seen."""
        c = self._counts
        return {**c, "staleness": c["staleness"] / max(c["updates"], 1)} if c else {}

    def train(
        self,
        rdd: Any,
        gradient: Callable[[Any, list], Any],
        descent: Descent,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        n_fetch: int = 1,
        timeout_s: float = 600,
    ) -> Any:
        """Trains; the model, which is also `self.model`.

        Args:
            rdd: its rows in lists are the second argument of `gradient`. Persist it: a partition must come out the same when a
                task is run again.
            batch_size: rows of a list; None: a whole partition.
            n_fetch: batches between fetches of the model.
            timeout_s: seconds without any update or end of a task after which a worker counts as stuck and its tasks are run
                again: longer than the slowest `gradient`.

        Raises:
            TrainingFailed: one of the functions raised.
            RetriesExhausted: tasks got stuck again and again.
        """
        if not timeout_s > 0:
            raise ValueError(f"ParameterContext: timeout_s needs seconds above 0, got {timeout_s!r}")
        if epochs < 0 or n_fetch < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError(
                f"ParameterContext: epochs needs at least 0, n_fetch and batch_size at least 1, got {epochs}, {n_fetch} and "
                f"{batch_size}"
            )
        from .spark import addresses

        context = rdd.context
        bind, advertised = addresses(context)
        secret, server = new_secret(), TreeServer(self.model, descent)
        port = TreePort(server, bind, secret)
        try:
            port.open(rdd.getNumPartitions())
            with Watch(context, timeout_s, lambda: server.counts["updates"]) as jobs:
                for epoch in range(epochs):
                    task = TreeTask((advertised, port.port), secret, epoch, gradient, batch_size, n_fetch)
                    self._epoch(rdd.mapPartitionsWithIndex(task), epoch, port, jobs)
        finally:
            port.close()
            self.model, self._counts = server.model, server.counts
        return self.model

    def _epoch(self, tasks: Any, epoch: int, port: TreePort, jobs: Watch) -> None:
        """Runs the tasks of one epoch, again if they got stuck: those that are done find nothing more to do."""
        from .spark import explained

        for _ in range(ATTEMPTS):
            try:
                tasks.count()
                return
            except Exception as error:
                if port.failure is not None:
                    raise TrainingFailed(f"descent raised {port.failure!r}") from port.failure
                why = jobs.why()
                if not why:
                    raise TrainingFailed(f"a task of epoch {epoch + 1} failed: {explained(error)[0]}") from error
        raise RetriesExhausted(f"{ATTEMPTS} attempts at epoch {epoch + 1} got stuck; the last: {why}")
