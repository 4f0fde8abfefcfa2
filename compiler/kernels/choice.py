"""Which lowering computes a node: the one place where that is decided.

For each node with several lowerings the first of these decides:

1. the user (`settings.forced`: KERASOFT_KERNELS, `kerasoft.config.set_kernels`);
2. times measured on this machine, now or earlier (`timing.known_times`), where they are clearly shorter than the rule's;
3. the shipped rule: the first lowering of the table whose `prefer` says yes, else XLA.

Variants of XLA's own lowerings (`options.VARIANTS`) hold for a whole executable: of these the one is taken under which
the sum of the nodes' times is least. See docs/design/0004-kernel-choice.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ..costs import bound_type
from ..errors import CompilerError
from ..ir import Graph, Node, TensorType, bind, is_static
from ..options import DEFAULT, SENSITIVE, VARIANTS, rule
from ..threads import threads
from . import (  # noqa: F401  (the families register their lowerings)
    attention,
    convolution,
    dense,
    half,
    layer_normalization,
    lookups,
    lowerings,
    mkl,
    normalization,
    optimizers,
    pooling,
    products,
    quantised,
    recurrent,
    recurrent_onednn,
    settings,
    sparse,
)
from .lowerings import Lowering
from .timing import Case, known_times

CLEARLY = 0.9  # what was measured must take less than so much of the rule's time to be taken instead


@dataclasses.dataclass(frozen=True)
class Picked:
    """How one node is computed.

    Attributes:
        name: of the lowering, e.g. "onednn"; "xla" or a variant of it for the op's own.
        by: "user", "measured" or "rule".
        times: {candidate: seconds} where they were measured.
    """

    name: str
    by: str
    times: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Chooser:
    """Picks the lowering of each node of one executable, and remembers what it picked. Called as a `lower.Lowerer`.

    Args:
        graph, sizes: what will be lowered, and a number for each unknown size. Without them, and for nodes that the
            graph does not hold, the user and the shipped rules decide.
        variant: the variant of XLA's own lowerings, if that is settled already.
        measure: whether candidates may be timed now; what was measured earlier is used in any case.

    Attributes:
        picked: {node: Picked} for nodes that had a choice.
        needs: the native libraries that the executable calls.
        variant: of XLA's own lowerings in this executable.
        asked: the choices (`Case.key`) that measured times could decide.

    Raises:
        CompilerError: the user asked for a lowering that there is not.
    """

    def __init__(
        self,
        graph: Graph | None = None,
        sizes: Mapping[str, Any] | None = None,
        variant: str | None = None,
        measure: bool = True,
    ) -> None:
        self.picked: dict[Node, Picked] = {}
        self.needs: set[str] = set()
        self._forced = settings.forced()
        _check(self._forced)
        cases: dict[Node, Case] = {}
        for n in graph.nodes if graph is not None else ():
            case = case_of(n, sizes or {}, self._wish(n.op.name))
            if case is not None:
                cases[n] = case
        free = [c for n, c in cases.items() if self._wish(n.op.name) is None and _is_timed(c)]
        self.asked = tuple(sorted({c.key for c in free}))
        self._times = known_times(free, measure) if free else {}
        self.variant = variant if variant is not None else self._best_variant(graph, cases)
        for case in cases.values():
            self._pick(case)

    @property
    def options(self) -> dict[str, str]:
        """XLA's options of the executable."""
        return dict(VARIANTS[self.variant])

    def __call__(self, n: Node, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Callable[..., Any]:
        """The function that computes `n` from `inputs` (arrays or tracers)."""
        found = lowerings.candidates(n.op.name, inputs, attrs, self._wish(n.op.name))
        if not found:
            return n.op.lower
        if n not in self.picked:
            self._pick(Case(n, tuple(inputs), attrs, found))
        run = next((one.run for one in found if one.name == self.picked[n].name), None)
        return n.op.lower if run is None else run

    def _pick(self, case: Case) -> None:
        made = self._picked(case, self.variant)
        self.picked[case.node] = made
        library = next((one.needs for one in case.found if one.name == made.name), None)
        if library is not None:
            self.needs.add(library)

    def _picked(self, case: Case, variant: str) -> Picked:
        """What is taken for `case` in an executable under `variant`."""
        own = variant if case.node.op.name in SENSITIVE else DEFAULT
        names = {one.name: one for one in case.found}
        wish = self._wish(case.node.op.name)
        if wish is not None:
            return Picked(wish if wish in names else own, "user")
        by_rule = next((one.name for one in case.found if one.prefer(case.types, case.attrs, threads())), own)
        times = {name: t for name, t in self._times.get(case.key, {}).items() if name in names or name == own}
        if by_rule not in times:
            return Picked(by_rule, "rule")
        best = min(times, key=lambda name: times[name])
        if times[best] < CLEARLY * times[by_rule]:
            return Picked(best, "measured", self._times[case.key])
        return Picked(by_rule, "measured", self._times[case.key])

    def _wish(self, op: str) -> str | None:
        return self._forced.get(op, self._forced.get("*"))

    def _best_variant(self, graph: Graph | None, cases: Mapping[Node, Case]) -> str:
        """The variant of XLA's own lowerings for the executable."""
        asked = [name for name in self._forced.values() if name in VARIANTS and name != DEFAULT]
        if graph is None or asked:
            return asked[0] if asked else DEFAULT
        by_hand = {n for n, c in cases.items() if self._picked(c, DEFAULT).name not in VARIANTS}
        by_rule = rule(graph, lambda n: n not in by_hand)
        timed = [c for c in cases.values() if c.node.op.name in SENSITIVE and len(self._times.get(c.key, ())) > 1]
        if not timed:
            return by_rule

        def cost(variant: str) -> float:
            return sum(self._times[c.key].get(self._picked(c, variant).name, 0.0) for c in timed)

        costs = {variant: cost(variant) for variant in VARIANTS}
        best = min(costs, key=lambda name: costs[name])
        return best if costs[best] < CLEARLY * costs[by_rule] else by_rule


class Choosers:
    """A `Chooser` for each batch shape of one jitted function, all under the variant that the first one chose.

    Attributes:
        variant: that one; None before.
    """

    def __init__(self, graph: Graph, variant: str | None = None):
        self.graph, self.variant = graph, variant
        self._made: dict[frozenset, Chooser] = {}

    def __call__(self, sizes: Mapping[str, Any]) -> Chooser:
        key = frozenset(sizes.items())
        if key not in self._made:
            self._made[key] = Chooser(self.graph, sizes, self.variant)
        self.variant = self._made[key].variant
        return self._made[key]


def case_of(n: Node, sizes: Mapping[str, Any], asked: str | None = None, all_: bool = False) -> Case | None:
    """The choice that there is for `n`; None if there is none, or its sizes are unknown.

    Args:
        asked, all_: see `lowerings.candidates`.
    """
    if n.op.name not in SENSITIVE and not lowerings.names_of(n.op.name):
        return None
    try:
        types: Any = tuple(bound_type(i.type, sizes) for i in n.inputs)
        attrs = {name: bind(value, sizes) for name, value in n.attrs.items()}
    except KeyError:
        return None
    if not all(isinstance(t, TensorType) and all(map(is_static, t.shape)) for t in types):
        return None
    types = tuple(jax.ShapeDtypeStruct(t.shape, t.dtype) for t in types)  # as `fits` sees arrays: a dtype, not its name
    if n.op.name == "matmul" and any(i.op.name == "transpose" for i in n.inputs):
        return None  # XLA's product reads a transposed matrix as it is; another would have to copy it first
    found: list[Lowering] = lowerings.candidates(n.op.name, types, attrs, asked, all_)
    return Case(n, types, attrs, found, sizes) if found or n.op.name in SENSITIVE else None


def _is_timed(case: Case) -> bool:
    """Whether measuring may say something that the rules do not know."""
    return not case.found or any(one.timed for one in case.found)


def _check(forced: Mapping[str, str]) -> None:
    for op, name in forced.items():
        known = (*VARIANTS, *lowerings.names_of(op))
        if name not in known:
            raise CompilerError(
                f"kernels (KERASOFT_KERNELS or kerasoft.config.set_kernels): {op}={name} asks for a lowering that op "
                f"{op!r} does not have; it has {', '.join(known)}"
            )
