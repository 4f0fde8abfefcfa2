"""Trace: a model, its losses, metrics and optimizer become the graphs of a `StepSource`.

Everything in a train or test graph is a share that adds up over calls (docs/design/0001): losses are divided by the rows
of the global batch, regularisation is multiplied by this call's share of the rows, metric states are sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from .. import ops, tree
from ..compiler.ir import Graph, symbol
from ..compiler.ir import source as labelled
from ..compiler.objective import Objective
from ..compiler.ops.registry import input_node
from ..compiler.ops.sparse import is_sparse, of_pieces, unpacked, widest_part
from ..compiler.program import Flags, InputSpec, Layout, SlotSpec, StepSource
from ..compiler.rows import find_tables
from ..errors import LayerError
from ..models.host_part import entry
from ..rematerialization import segments_of
from ..scope import Masks, Scope
from .compiled import Compiled, aligned
from .coupling import coupling_node
from .label_checks import check_label_shape
from .signature import Leaf, Signature
from .targets import CompileArguments, LossTerm, Targets, resolve_targets

TRAIN, TEST, PREDICT = "train", "test", "predict"
MOST_COLUMNS = 1 << 16  # of sparse rows that are made dense in a step


@dataclasses.dataclass
class Traced:
    """A model's graphs and what is needed around them.

    Attributes:
        source: the `StepSource`.
        variables: the variable behind each param and each state of the layout, by name.
        outputs: the structure of the model's outputs; its leaves do not matter.
        output_names, output_shapes: of the flattened outputs; None for unknown sizes.
        targets: losses and metrics; None when only predictions were traced.
        coupled_by: the node that mixes rows, None if there is none.
        labels: the signature's label `Leaf` of each output, None where there is none.
    """

    source: StepSource
    variables: dict[str, Any]
    outputs: Any
    output_names: tuple[str, ...]
    output_shapes: tuple[tuple, ...]
    targets: Targets | None
    coupled_by: Any = None
    labels: tuple = ()

    @property
    def forward(self) -> Graph | None:
        """The graph of the model's outputs, for display."""
        return self.source.predict


def trace_model(
    model: Any,
    signature: Signature,
    parts: Sequence[str],
    compiled: Compiled | None = None,
    optimizer: Any = None,
) -> Traced:
    """The graphs of `parts` ("train" comes with the update graph) for arrays of this signature.

    Raises:
        ValueError: the model cannot take the arrays, or the targets do not fit its outputs.
    """
    traced = _Trace(model, signature, compiled, padded=True)
    result = traced.run(parts, optimizer)
    if result.source.flags.exact_rows:
        again = _Trace(model, signature, compiled, padded=False)
        again.exact_rows, coupled_by = True, result.coupled_by
        result = again.run(parts, optimizer)
        result.coupled_by = coupled_by if result.coupled_by is None else result.coupled_by
    return result


class _Trace:
    """One tracing of all graphs, with `valid` (padded) or without it."""

    def __init__(self, model: Any, signature: Signature, compiled: Compiled | None, padded: bool):
        self.model, self.signature, self.compiled = model, signature, compiled
        b = symbol("b")
        self.inputs = {
            leaf.name: input_node(leaf.name, (symbol(leaf.rows), *map(_size, leaf.shape)), leaf.dtype)
            for leaf in signature.leaves
        }
        self.control = {
            "valid": input_node("valid", (b,), "float32") if padded else None,
            "row_id": input_node("row_id", (b,), "uint32"),
            "key": input_node("key", (2,), "uint32"),
            "rows": input_node("rows", (), "float32"),
            "share": input_node("share", (), "float32"),
            "iteration": input_node("iteration", (), "int32"),
        }
        self.trainable = list(model.trainable_weights)
        self.variables = [*self.trainable, *model.non_trainable_weights]
        self.exact_rows = self.couples_rows = False
        self.coupled_by: Any = None
        self.targets: Targets | None = None
        self.labels: tuple = ()
        self.outputs: Any = None
        self.output_names: tuple[str, ...] = ()
        self.scopes: list[Scope] = []

    def run(self, parts: Sequence[str], optimizer: Any) -> Traced:
        graphs: dict[str, Any] = {}
        sums: dict[str, Any] = {}
        if PREDICT in parts:
            graphs["predict"] = self._predict()
        if TEST in parts:
            graphs["test"], sums = self._test()
        if TRAIN in parts:
            graphs["train"], more = self._train()
            sums = {**more, **{name: node for name, node in sums.items() if name not in more}}
        params, states = self._named_variables()
        layout = Layout.of(
            [(name, v.shape) for name, v in params.items()],
            [(name, v.shape) for name, v in states.items()],
            [(name, node.shape) for name, node in sums.items()],
        )
        slots: tuple[SlotSpec, ...] = ()
        update_mode, part_update = "sliced", None
        idle: dict[str, Any] = {}
        whole: dict[str, str] = {}
        if TRAIN in parts:
            graphs["update"], slots, update_mode = trace_optimizer(optimizer, list(params.values()), layout)
            part_update = trace_parts(optimizer, list(params), layout) if update_mode == "replicated" else None
            idle, whole = trace_tables(optimizer, _forward_of(graphs["train"]), params, slots)
        flags = Flags(self.exact_rows, self.couples_rows, update_mode)
        inputs = tuple(InputSpec(leaf.name, leaf.shape, leaf.dtype) for leaf in self.signature.leaves)
        names = self.output_names
        source = StepSource(
            layout=layout,
            inputs=inputs,
            outputs=names,
            slots=slots,
            flags=flags,
            idle=idle,
            whole=whole,
            part_update=part_update,
            **_all(graphs),
        )
        shapes = tuple(map(_shape, tree.flatten(self.outputs)))
        outputs = tree.map_structure(lambda _: 0, self.outputs)
        return Traced(source, {**params, **states}, outputs, names, shapes, self.targets, self.coupled_by, self.labels)

    # --- the three graphs of the model ---

    def _predict(self) -> Graph:
        with self._scope(False) as scope:
            y_pred = self._forward(False)
        self._look_at(scope, tree.flatten(y_pred))
        return self._graph({f"out/{i}": node for i, node in enumerate(tree.flatten(y_pred))})

    def _test(self) -> tuple[Graph, dict]:
        with self._scope(False) as scope:
            _, sums = self._objective(scope, training=False)
        self._look_at(scope, ())
        return self._graph({f"sum/{name}": node for name, node in sums.items()}), sums

    def _train(self) -> tuple[Graph | Objective, dict]:
        with self._scope(True) as scope:
            total, sums = self._objective(scope, training=True)
            # What is assigned to a trained weight (SpectralNormalization) holds for this step: the optimizer moves it.
            moved = {id(v) for v in self.trainable}
            updates = {name: scope.updates.get(v) for name, v in scope.params.items() if id(v) not in moved}
            states = {
                f"state/{name}": ops.multiply(ops.cast(node, "float32"), scope.share)
                for name, node in updates.items()
                if node is not None
            }
        self._look_at(scope, ())
        nodes = {name: scope.node_of(v) for name, v in scope.params.items() if id(v) in moved}
        forward = self._graph({**states, **{f"sum/{name}": node for name, node in sums.items()}})
        objective = Objective(forward, total, nodes, segments_of(scope, self.model, total))
        if objective.may_fail:
            objective.graph  # noqa: B018 (raises now, before anything is done for a training that cannot be)
        if any(leaf.columns is not None for leaf in self.signature.leaves):
            check_sparse(objective.graph.nodes)
        return objective, sums

    def _scope(self, training: bool) -> Scope:
        scope = Scope(training=training, variables=self.variables, **self.control)
        self.scopes.append(scope)
        return scope

    def _forward(self, training: bool) -> Any:
        x = tree.map_structure(lambda leaf: None if leaf is None else self._given(leaf), self.signature.x)
        y_pred = entry(self.model)(x, training=training)
        self.outputs = y_pred
        self.output_names = output_names(self.model, y_pred)
        return y_pred

    def _given(self, leaf: Leaf) -> Any:
        """The node that layers see."""
        node = self.inputs[leaf.name]
        if leaf.columns is None:
            return node
        if leaf.pieces is not None:
            return of_pieces(node, self.inputs[leaf.pieces.name], leaf.columns)
        return unpacked(node, leaf.columns)

    def _objective(self, scope: Scope, training: bool) -> tuple[Any, dict[str, Any]]:
        """The total loss's share, and all sums."""
        y_pred = self._forward(training)
        flat = tree.flatten(y_pred)
        self._find_coupling(flat)
        labels, weights = self._labels(y_pred, flat)
        shares, sums = [], {}
        for term in self.targets.losses:
            leaf, output = self.labels[term.index], self.output_names[term.index]
            if leaf is not None and term.part is None:
                check_label_shape(term.loss, leaf.known_shape, _shape(flat[term.index]), output)
            share = self._loss_share(term, term.of(flat), term.of(labels), weights[term.index], scope)
            shares.append(share if term.weight is None else ops.multiply(share, term.weight))
            if self.targets.reports_each_loss:
                sums[f"{term.name}/total"] = ops.multiply(share, scope.rows)
        shares += [ops.cast(loss, "float32") for loss in scope.losses]
        shares += self._regularisation(scope)
        if not shares and not training:
            shares = [ops.multiply(scope.rows, 0.0)]
        if not shares:
            raise ValueError("No loss to compute. Provide a `loss` argument in `compile()`.")
        total = shares[0]
        for share in shares[1:]:
            total = ops.add(total, share)
        sums = {
            "loss/total": ops.multiply(total, scope.rows),
            "loss/count": ops.multiply(scope.rows, scope.share),
            **sums,
        }
        if training:
            scope.masks = Masks()  # Keras' metrics do not see the outputs' masks in a training step
        for term in self.targets.metrics:
            weight = weights[term.index] if term.weighted else None
            with labelled(f"metric {term.name}"):
                measured = term.metric.measure(
                    labels[term.index], flat[term.index], sample_weight=weight, valid=scope.valid
                )
            sums |= {f"{term.name}/{state}": node for state, node in measured.items()}
        return total, sums

    def _loss_share(self, term: LossTerm, y_pred: Any, y_true: Any, weight: Any, scope: Scope) -> Any:
        mask = scope.masks.get(y_pred) if term.part is None else None
        with labelled("loss"):
            terms = term.loss.terms(y_true, y_pred, sample_weight=weight, mask=mask, valid=scope.valid)
            if terms.couples_rows:
                self.exact_rows = self.couples_rows = True
            return ops.cast(terms.share(scope.rows, scope.share), "float32")

    def _regularisation(self, scope: Scope) -> list:
        regularised = [v for v in self.trainable if v.regularizer is not None]
        return [ops.multiply(ops.cast(v.regularizer(scope.node_of(v)), "float32"), scope.share) for v in regularised]

    # --- targets ---

    def _labels(self, y_pred: Any, flat: list) -> tuple[list, list]:
        """Nodes of the labels and the sample weights of each output; settles `targets` on the way."""
        compiled = self.compiled.arguments if self.compiled is not None else CompileArguments()
        names = self.output_names
        labels, weights = aligned(compiled, self.signature.y, self.signature.sample_weight, y_pred, names)
        self.labels = tuple(labels)
        if self.targets is None:
            shapes = [None if leaf is None else leaf.known_shape for leaf in labels]
            known = None if self.compiled is None else self.compiled.targets
            if known is not None and known.fits(names, shapes):
                self.targets = known
            else:
                self.targets = resolve_targets(
                    compiled, y_pred, names, shapes, [_shape(p) for p in flat], are_named(self.model, y_pred)
                )
                if self.compiled is not None:
                    self.compiled.settle(self.targets)
        nodes = [None if leaf is None else self._like(leaf, p) for leaf, p in zip(labels, flat, strict=True)]
        return nodes, [None if leaf is None else self._like(leaf, p) for leaf, p in zip(weights, flat, strict=True)]

    def _like(self, leaf: Leaf, y_pred: Any) -> Any:
        """The node of labels or weights; where the output has an unknown size, theirs is written the same way."""
        node = self.inputs[leaf.name]
        shape = list(node.shape)
        for i in range(1, min(len(shape), len(y_pred.shape))):
            size = y_pred.shape[i]
            if not isinstance(shape[i], int) or (not isinstance(size, int) and shape[i] != 1):
                shape[i] = size
        if tuple(shape) != tuple(node.shape):
            self.inputs[leaf.name] = node = input_node(leaf.name, tuple(shape), leaf.dtype)
        return node

    # --- rows that influence one another ---

    def _find_coupling(self, outputs: Sequence[Any]) -> None:
        node = coupling_node(outputs, self.control["valid"])
        if node is not None:
            self.exact_rows = self.couples_rows = True
            self.coupled_by = node if self.coupled_by is None else self.coupled_by

    def _look_at(self, scope: Scope, outputs: Sequence[Any]) -> None:
        self._find_coupling(outputs)
        self.exact_rows = self.exact_rows or scope.exact_rows
        self.couples_rows = self.couples_rows or scope.couples_rows or scope.exact_rows

    # --- putting together ---

    def _named_variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trainable and other variables by the name of their param nodes."""
        found: dict[str, Any] = {}
        for scope in self.scopes:
            found |= scope.params
        trainable = set(map(id, self.trainable))
        params = {name: v for name, v in found.items() if id(v) in trainable}
        return params, {name: v for name, v in found.items() if id(v) not in trainable}

    def _graph(self, outputs: dict[str, Any]) -> Graph:
        """The graph of named outputs; its inputs are those that it reads, batch arrays first."""
        from ..compiler.ir import topological

        read = set(topological(outputs.values()))
        check_sparse(read)
        order = [*self.inputs.values(), *(n for n in self.control.values() if n is not None)]
        return Graph(tuple(n for n in order if n in read), tuple(outputs.values()), tuple(outputs))


def trace_optimizer(
    optimizer: Any, variables: Sequence[Any], layout: Layout
) -> tuple[Graph, tuple[SlotSpec, ...], str]:
    """The update graph over flat vectors, its slots, and the update mode."""
    if not optimizer.built:
        optimizer.build(list(variables))
    graph, mode, specs = optimizer.trace_update(layout)
    return graph, tuple(SlotSpec(name, fill) for name, fill in specs), mode


def trace_parts(optimizer: Any, names: Sequence[str], layout: Layout) -> Any:
    """``graph(names of variables)``: the update graph of a worker that holds these; or why there is none."""
    refused = optimizer.refuses_parts()
    return refused or (lambda part: optimizer.trace_update(layout, [names.index(name) for name in part])[0])


def trace_tables(
    optimizer: Any, forward: Graph, variables: dict[str, Any], slots: Sequence[SlotSpec]
) -> tuple[dict[str, Any], dict[str, str]]:
    """For the weights that a forward graph only looks up: what idle rows do; for the others that are: why not.

    A gradient that is more than rows may still forbid it: `StepSource.tables`.
    """
    tables, whole = find_tables(forward)
    tables = {name: table for name, table in tables.items() if name in variables}  # frozen weights are not updated
    found = optimizer.trace_idle({name: variables[name] for name in tables}, [s.name for s in slots]) if tables else {}
    whole |= {name: rule for name, rule in found.items() if isinstance(rule, str)}
    return {name: rule for name, rule in found.items() if not isinstance(rule, str)}, whole


def check_sparse(nodes: Iterable[Any]) -> None:
    """
    Raises:
        LayerError: something reads sparse rows of many columns as a dense matrix; names it.
    """
    for n in nodes:
        sparse = [widest_part(i) for i in n.inputs if is_sparse(i) and not is_sparse(n)]
        if max(sparse, default=0) > MOST_COLUMNS:
            raise LayerError(
                f"sparse rows of {max(sparse)} columns are read whole by '{n.op.name}'"
                f"{f' of {n.source}' if n.source else ''}, which would make a dense matrix of them in each step. Let "
                "SparseDense, Dense or Concatenate take them, or map them to fewer columns first."
            )


def output_names(model: Any, y_pred: Any) -> tuple[str, ...]:
    """Names of the flattened outputs: the model's own, or the path to each."""
    found = [path for path, _ in tree.flatten_with_path(y_pred)]
    known = getattr(model, "output_names", None)
    if known is not None and len(known) == len(found):  # an index within a nested list gives way to a layer's name
        found = [
            (*p[:-1], name) if len(p) > 1 and isinstance(p[-1], int) else p
            for p, name in zip(found, known, strict=True)
        ]
    paths = ["/".join(map(str, path)) for path in found]
    if known is not None and len(known) == len(paths) and not isinstance(y_pred, dict):
        return tuple(known)
    return tuple(f"output_{p}" if p.isdigit() else p or "output" for p in paths)


def are_named(model: Any, y_pred: Any) -> bool:
    """Whether the outputs have names of their own, for the logs: not those of a list that a subclass's `call` gives."""
    if isinstance(y_pred, dict) or not tree.is_nested(y_pred):
        return True
    known = getattr(model, "output_names", None)
    return known is not None and len(known) == len(tree.flatten(y_pred))


def _forward_of(train: Graph | Objective) -> Graph:
    return train.forward if isinstance(train, Objective) else train


def _size(size: Any) -> Any:
    return symbol(size) if isinstance(size, str) else size


def _shape(node: Any) -> tuple:
    return tuple(d if isinstance(d, int) else None for d in node.shape)


def _all(graphs: dict) -> dict:
    return {kind: graphs.get(kind) for kind in ("train", "test", "predict", "update")}
