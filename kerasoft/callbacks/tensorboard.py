"""TensorBoard: writes what its web page shows, through tensorboardX."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .base import Callback
from .learning_rate import rate_of


class TensorBoard(Callback):
    """Writes event files into `log_dir`: runs `train` and `validation`.

    Tags, by epoch: `epoch_<key>` of each log (in `validation` without `val_`), `epoch_learning_rate`,
    `epoch_rows_per_second`, `phase_seconds/<phase>` (where the epoch's time went). By step, with `update_freq` other
    than "epoch": `batch_<key>` (means of the epoch so far), `batch_learning_rate`, `batch_rows_per_second`,
    `batch_phase_seconds/<phase>`; in `validation`: `evaluation_<key>_vs_iterations`. The step of the `batch_*` tags is
    the optimizer's iteration.

    Args:
        log_dir: folder of the event files.
        histogram_freq: epochs between histograms of all weights; 0 = none.
        write_graph: write the model's graph for the Graphs tab.
        write_images: with the histograms, the weights as images.
        write_steps_per_second: also `epoch_steps_per_second` and `batch_steps_per_second`.
        update_freq: "epoch", "batch", or steps between step scalars.
        profile_batch, embeddings_freq, embeddings_metadata: not offered; must keep their defaults.
    """

    def __init__(
        self,
        log_dir="logs",
        histogram_freq=0,
        write_graph=True,
        write_images=False,
        write_steps_per_second=False,
        update_freq="epoch",
        profile_batch=0,
        embeddings_freq=0,
        embeddings_metadata=None,
    ):
        super().__init__()
        if profile_batch or embeddings_freq or embeddings_metadata:
            raise ValueError(
                "TensorBoard: profile_batch, embeddings_freq and embeddings_metadata are not offered; leave them out. "
                "`model.last_fit_profile` and the tags phase_seconds/* say where the time goes."
            )
        if update_freq != "epoch" and update_freq != "batch" and not (isinstance(update_freq, int) and update_freq > 0):
            raise ValueError(
                f"TensorBoard: update_freq must be 'epoch', 'batch' or a number of steps, got {update_freq!r}"
            )
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = histogram_freq
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        self.batch_calls = "latest" if update_freq == "epoch" else "late"
        self.reads_weights = bool(histogram_freq)
        self._writers: dict[str, Any] = {}
        self._graph_written = False

    def writer(self, run: str) -> Any:
        """The `tensorboardX.SummaryWriter` of run "train" or "validation"."""
        if run not in self._writers:
            from tensorboardX import SummaryWriter

            self._writers[run] = SummaryWriter(os.path.join(self.log_dir, run), flush_secs=1)
        return self._writers[run]

    def on_train_begin(self, logs=None):
        self._graph_written = False

    def on_train_batch_end(self, batch, logs=None):
        self._write_graph_once()
        report = self._model._status.report
        if self.update_freq == "epoch" or report is None or report.iteration % self.update_freq:
            return
        scalars = {f"batch_{name}": value for name, value in (logs or {}).items()}
        scalars["batch_learning_rate"] = rate_of(self._model.optimizer)
        seconds = sum(report.times.values())
        if seconds > 0:
            scalars["batch_rows_per_second"] = report.rows / seconds
            if self.write_steps_per_second:
                scalars["batch_steps_per_second"] = 1 / seconds
        scalars |= {f"batch_phase_seconds/{phase}": s for phase, s in report.times.items()}
        self._write("train", scalars, report.iteration)

    def on_epoch_end(self, epoch, logs=None):
        self._write_graph_once()
        logs = logs or {}
        rate = rate_of(self._model.optimizer)
        train = {f"epoch_{name}": v for name, v in logs.items() if not name.startswith("val_")}
        train["epoch_learning_rate"] = logs.get("learning_rate", rate)
        end = self._model._status.end
        if end is not None:
            seconds = max(end.wall_s - end.times.get("validation", 0.0), 1e-9)
            train["epoch_rows_per_second"] = end.rows / seconds
            if self.write_steps_per_second:
                train["epoch_steps_per_second"] = end.steps / seconds
            train |= {f"phase_seconds/{phase}": s for phase, s in end.times.items()}
        self._write("train", train, epoch)
        validation = {name.removeprefix("val_"): v for name, v in logs.items() if name.startswith("val_")}
        if validation:
            self._write("validation", {f"epoch_{name}": v for name, v in validation.items()}, epoch)
            if self.update_freq != "epoch" and end is not None:
                scalars = {f"evaluation_{name}_vs_iterations": v for name, v in validation.items()}
                self._write("validation", scalars, end.iteration)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_histograms(epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write(self, run: str, scalars: dict[str, Any], step: int) -> None:
        writer = self.writer(run)
        for name, value in scalars.items():
            if np.ndim(value) == 0 and isinstance(value, (int, float, np.number)):
                writer.add_scalar(name, value, step)

    def _write_histograms(self, epoch: int) -> None:
        writer = self.writer("train")
        for weight in self.model.weights:
            value = np.asarray(weight.numpy(), np.float32)
            if np.isfinite(value).all():
                writer.add_histogram(f"{weight.path}/histogram", value, epoch)
            if self.write_images:
                writer.add_image(f"{weight.path}/image", _as_image(value), epoch)

    def _write_graph_once(self) -> None:
        if self._graph_written or not self.write_graph:
            return
        self._graph_written = True
        graph = self._model._status.graph
        if graph is not None:
            from tensorboardX.proto.event_pb2 import Event

            event = Event(graph_def=graph_definition(graph).SerializeToString())
            self.writer("train").file_writer.event_writer.add_event(event)


def graph_definition(graph: Any) -> Any:
    """A `compiler.ir.Graph` as a TensorFlow GraphDef: one node an op, grouped by the layer that it came from."""
    from tensorboardX.proto.attr_value_pb2 import AttrValue
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef
    from tensorboardX.proto.versions_pb2 import VersionDef

    names: dict[Any, str] = {}
    used: dict[str, int] = {}
    nodes = []
    for n in graph.nodes:
        leaf = n.attrs["name"] if n.op.name in ("input", "param") else n.op.name
        base = leaf if n.op.name in ("input", "param") or not n.source else f"{n.source}/{leaf}"
        count = used[base] = used.get(base, -1) + 1
        names[n] = f"{base}_{count}" if count else base
        attributes = {key: AttrValue(s=str(value)[:256].encode()) for key, value in {**n.attrs, "type": n.type}.items()}
        nodes.append(NodeDef(name=names[n], op=n.op.name, input=[names[i] for i in n.inputs], attr=attributes))
    for name, output in zip(graph.output_names, graph.outputs, strict=True):
        nodes.append(NodeDef(name=name, op="output", input=[names[output]]))
    return GraphDef(node=nodes, versions=VersionDef(producer=22))


def _as_image(value: np.ndarray) -> np.ndarray:
    """float32[1, height, width] in 0..1 of any weight."""
    flat = np.atleast_2d(value.reshape(-1, value.shape[-1]) if value.ndim > 1 else value)
    low, high = float(flat.min(initial=np.inf)), float(flat.max(initial=-np.inf))
    return ((flat - low) / (high - low or 1.0))[None]
