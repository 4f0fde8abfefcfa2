"""The collective over sockets by a schedule: ring, tree or two levels instead of direct exchange.

Between the ranks of one host "two_level" goes through shared memory (`near.py`) where there is any.

Deterministic sums carry the nodes of the fixed tree over shards (`tree.py`) from rank to rank and put siblings together as
soon as both are there: the same additions as everywhere, so the same bits. Other sums add what arrives to what is there.

With bfloat16 on the wire a message of the other sums is rounded at each hop and added in float32; nodes of the fixed tree
travel as float32, as in direct exchange. Gathered slices are rounded once, by their owner. Shared memory holds float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .base import Gathered, Stopwatch
from .exchange import ALL_GATHER, REDUCE_SCATTER, TREE, Exchange
from .links import Link
from .measuring import Line, measured
from .near import Near
from .shared import open_segment
from .topology import NAMES, Schedule, Transfer, schedule
from .tree import PLAIN, Node, covers, merged, put

SURE = 0.7
"""Another topology than "direct" is taken only if it is predicted to cost less than this share: the model is no better."""


class Routed(Exchange):
    """Messages go by a schedule. Made by `connect`.

    Args:
        topology: one of `topology.NAMES`, or "auto": the one that costs least, by what is measured when connecting.
        elements: of the vectors that the choice is made for (V of the layout). groups: for tests, what is one host; None:
            ranks that Unix sockets connect. wire_dtype, exact_from: see `Exchange`.
    """

    def __init__(
        self,
        rank: int,
        links: Mapping[int, Link],
        timeout_s: float,
        topology: str,
        elements: int,
        groups: Sequence[int] | None = None,
        wire_dtype: str = "float32",
        exact_from: int | None = None,
    ):
        super().__init__(rank, links, timeout_s, wire_dtype, exact_from)
        self.groups = tuple(groups) if groups is not None else self._hosts(links)
        self._near = self._shared() if topology in ("two_level", "auto") else None
        self.lines: dict[str, Line] = {}
        self._schedules: dict[str, Schedule] = {}
        self.remark = f"all-reduce by {topology} over {self.transport}"
        if topology == "auto":
            topology = self._cheapest(elements)
        self.use(topology)

    def use(self, topology: str) -> None:
        """Goes on by another topology; all ranks call it between the same calls."""
        self.topology = topology
        if topology not in self._schedules:
            self._schedules[topology] = schedule(topology, self.groups)
        self.schedule = self._schedules[topology]

    def cost_s(self, name: str, elements: int) -> float:
        """Predicted seconds of an all-reduce of vectors of so many elements by topology `name`, after "auto"."""
        return self.lines[name].seconds_of(elements)

    @property
    def alpha_s(self) -> float:
        """Seconds of a round of messages: half of what the fewest numbers take directly."""
        return self.lines["direct"].seconds[0] / 2

    @property
    def byte_s(self) -> float:
        """Seconds of a byte sent while another one is received and added."""
        return self.lines["direct"].slope_s * self.world_size / (8 * (self.world_size - 1))

    def _cheapest(self, elements: int) -> str:
        """Measures the topologies and takes one."""
        try:
            self.lines = measured(self, NAMES, elements)
            if self._near is not None:  # the memory in which was measured is given back
                self._near.close()
                self._near = self._shared()
        except BaseException:
            if self._near is not None:
                self._near.close()
            raise
        self._buffers.clear()
        self.counters.take()
        costs_s = {name: self.cost_s(name, elements) for name in NAMES}
        cheapest = min(costs_s, key=costs_s.__getitem__)
        if costs_s[cheapest] > SURE * costs_s["direct"]:
            cheapest = "direct"
        costs = ", ".join(f"{n} {1e3 * s:.2f} ms" for n, s in costs_s.items())
        self.remark = (
            f"all-reduce by {cheapest} over {self.transport}: a round costs {1e6 * self.alpha_s:.0f} us, "
            f"a byte {1e9 * self.byte_s:.3f} ns; measured and predicted for {elements:,} numbers: {costs}"
        )
        return cheapest

    def _hosts(self, links: Mapping[int, Link]) -> tuple[int, ...]:
        """For each rank the lowest one that it reaches by a Unix socket, or itself: who connects so shares a host."""
        near = [self.rank, *(r for r, link in links.items() if link.transport == "unix")]
        mine = np.zeros(self.world_size, np.float64)
        mine[self.rank] = min(near)
        return tuple(int(r) for r in self.all_reduce_small(mine))

    def _shared(self) -> Near | None:
        """The memory that this rank shares with the others of its host; None if it is alone or there is none."""
        here = [r for r, group in enumerate(self.groups) if group == self.groups[self.rank]]
        if len(here) == 1:
            return None
        links = {i: self._lanes[r].link for i, r in enumerate(here) if r != self.rank}
        descriptor = open_segment(here.index(self.rank), links, self.timeout_s)
        return None if descriptor is None else Near(here.index(self.rank), links, descriptor, self.timeout_s)

    def _of_host(self, transfer: Transfer) -> bool:
        """Whether both ends of a message are on this rank's host."""
        return self.groups[transfer.source] == self.groups[transfer.target] == self.groups[self.rank]

    def at(self, step: int) -> None:
        super().at(step)
        if self._near is not None:
            self._near.at(step)

    def close(self) -> None:
        if self._near is not None:
            self._near.close()
        super().close()

    # --- rounds ------------------------------------------------------------------------------------------------------

    def _round(
        self,
        kind: int,
        out: Mapping[int, Sequence[memoryview]],
        into: Mapping[int, memoryview],
        watch: Stopwatch,
        note: int = 0,
    ) -> None:
        """Sends to some ranks, receives from some; every rank calls it in every round, perhaps with neither."""
        for other in {*out, *into}:
            self._begin(other, kind, out.get(other, ()), into.get(other, memoryview(b"")), note)
            lane = self._lanes[other]
            if other not in out:
                lane.out, lane.out_left = [], 0
            if other not in into:
                lane.got = lane.want = 0
        for other, lane in self._lanes.items():
            if other not in out and other not in into:
                lane.out, lane.out_left, lane.got, lane.want = [], 0, 0, 0
                lane.listening = True
        self._run(kind, watch)

    # --- sums --------------------------------------------------------------------------------------------------------

    def reduce_scatter(self, vector: np.ndarray) -> np.ndarray:
        self._checked(vector)
        if self.topology == "direct":
            return super().reduce_scatter(vector)
        nodes = [[PLAIN]] * self.world_size
        return self._reduce(REDUCE_SCATTER, {PLAIN: vector}, nodes, 0, vector.size)

    def reduce_scatter_tree(
        self, partials: Mapping[Node, np.ndarray], bounds: Sequence[int], elements: int
    ) -> np.ndarray:
        if self.topology == "direct":
            return super().reduce_scatter_tree(partials, bounds, elements)
        self._tree(partials, bounds)  # checks
        for vector in partials.values():
            self._checked(vector, elements)
        return self._reduce(TREE, partials, covers(bounds), bounds[-1], elements)

    def _reduce(
        self,
        kind: int,
        partials: Mapping[Node, np.ndarray],
        nodes: Sequence[Sequence[Node]],
        shards: int,
        elements: int,
    ) -> np.ndarray:
        watch = Stopwatch()
        cuts = self.slices(elements)
        held: list[dict[Node, np.ndarray]] = [{n: partials[n][cut] for n in nodes[self.rank]} for cut in cuts]
        ours: set[int] = set()  # arrays that may be added to
        near = self._near if self.topology == "two_level" else None
        here = [own for own, group in zip(nodes, self.groups, strict=True) if group == self.groups[self.rank]]
        if near is not None and not near.fits(here, shards, elements):
            near = None
        if near is not None:
            sums = near.up(partials, here, shards, elements)
            leads = near.rank == 0
            held = [{n: v[cut] for n, v in sums.items()} if leads else {} for cut in cuts]
        rounded = self.wire_dtype == "bfloat16" and kind == REDUCE_SCATTER
        for number, messages in enumerate(self._routes(nodes, shards)):
            out: dict[int, list[memoryview]] = {}
            into: dict[int, np.ndarray] = {}
            if near is not None:
                messages = [m for m in messages if not self._of_host(m[0])]
            for (source, target, what), names in messages:
                if source == self.rank:
                    leaving = [(s, held[s][n]) for s, ns in zip(what, names, strict=True) for n in ns]
                    out[target] = [self._packed((kind, target, s), v, cuts[s], rounded).data for s, v in leaving]
                elif target == self.rank:
                    size = sum(self._size(cuts[s], rounded) * len(ns) for s, ns in zip(what, names, strict=True))
                    into[source] = self._scratch((kind, number, source), size, np.uint8)
            self._round(kind, out, {source: space.data for source, space in into.items()}, watch)
            for (source, target, what), names in messages:
                if source == self.rank:
                    for s in what:
                        held[s] = {}
                elif target == self.rank:
                    at, space = 0, into[source]
                    for s, ns in zip(what, names, strict=True):
                        size = self._size(cuts[s], rounded)
                        for n in ns:
                            piece = space[at : at + size]
                            if rounded:
                                whole = self._scratch((kind, number, source, s), cuts[s].stop - cuts[s].start)
                                piece = self._decode(piece, cuts[s], whole)
                            else:
                                piece = piece.view(np.float32)
                            ours.add(piece.ctypes.data)
                            at += size
                            put(held[s], n, piece, shards, ours)
        owned = self._scratch("gathered", elements)[cuts[self.rank]]
        if near is not None:
            shared = near.result(elements)
            assert shared is not None
            call = near.enter(elements)
            if near.rank == 0:
                for r, group in enumerate(self.groups):
                    if group == self.rank != r:
                        (shared[cuts[r]],) = held[r].values()
            near.leader_done(call, elements, gathered=False)
            if near.rank:
                owned[...] = shared[cuts[self.rank]]
        if near is None or near.rank == 0:
            (owned[...],) = held[self.rank].values()
        watch.stop(self.counters)
        return owned

    def _size(self, cut: slice, rounded: bool) -> int:
        """Bytes of a slice in a message."""
        return self._rounded_bytes(cut) if rounded else 4 * (cut.stop - cut.start)

    def _packed(self, name, values: np.ndarray, cut: slice, rounded: bool) -> np.ndarray:
        """uint8: a slice as a message carries it; `name` names the memory for it if it is rounded."""
        return self._encode(name, values, cut) if rounded else values.view(np.uint8)

    def _routes(self, nodes: Sequence[Sequence[Node]], shards: int) -> list[list[tuple[Transfer, list[list[Node]]]]]:
        """For each round the messages from or to this rank, and the nodes that each carries of each of its slices."""
        key = ("routes", self.topology, shards, tuple(map(tuple, nodes)))
        if key not in self._plans:
            held = [[list(own) for _ in range(self.world_size)] for own in nodes]
            routes = []
            for transfers in self.schedule.reduce:
                carried = [(t, [held[t.source][s] for s in t.what]) for t in transfers]
                routes.append([c for c in carried if self.rank in (c[0].source, c[0].target)])
                for t, _ in carried:
                    for s in t.what:
                        held[t.source][s] = []
                for t, names in carried:
                    for s, ns in zip(t.what, names, strict=True):
                        together = [*held[t.target][s], *ns]
                        held[t.target][s] = merged(together, shards) if shards else [PLAIN]
            self._plans[key] = routes
        return self._plans[key]

    # --- slices ------------------------------------------------------------------------------------------------------

    def all_gather(
        self, owned: np.ndarray, elements: int, note: int = 0, out: np.ndarray | None = None, exact: bool = False
    ) -> Gathered:
        if self.topology == "direct":
            return super().all_gather(owned, elements, note, out, exact)
        watch = Stopwatch()
        cuts = self.slices(elements)
        mine = cuts[self.rank]
        self._checked(owned, mine.stop - mine.start)
        near = self._near if self.topology == "two_level" else None
        shared = None if near is None else near.result(elements)
        notes = np.zeros(self.world_size, np.int64)
        if near is not None and shared is not None:
            vector, notes = shared, near.notes(self.world_size)
            call = near.enter(elements)
        else:
            near = None
            vector = self._scratch("gathered", elements) if out is None else self._checked(out, elements)
        if vector.ctypes.data + 4 * mine.start != owned.ctypes.data:
            vector[mine] = owned
        rounded = self.wire_dtype == "bfloat16" and not exact
        packed: dict[int, np.ndarray] = {}  # slices as they travel
        if rounded:
            packed[self.rank] = self._encode((ALL_GATHER, self.rank), vector[mine], mine)
            self._decode(packed[self.rank], mine, vector[mine])
        notes[self.rank] = note
        if near is not None:
            near.members_done(call)
        for number, transfers in enumerate(self.schedule.gather):
            sending: dict[int, list[memoryview]] = {}
            into: dict[int, tuple[np.ndarray, tuple[int, ...]]] = {}
            for transfer in transfers:
                source, target, what = transfer
                if near is not None and self._of_host(transfer):
                    continue
                if source == self.rank:
                    for s in what:
                        if s not in packed:
                            packed[s] = self._packed((ALL_GATHER, s), vector[cuts[s]], cuts[s], rounded)
                    sending[target] = [*(packed[s].data for s in what), notes[list(what)].data.cast("B")]
                elif target == self.rank:
                    size = sum(self._size(cuts[s], rounded) + 8 for s in what)
                    into[source] = self._scratch((ALL_GATHER, number, source), size, np.uint8), what
            self._round(ALL_GATHER, sending, {source: space.data for source, (space, _) in into.items()}, watch)
            for space, what in into.values():
                at = 0
                for s in what:
                    piece = space[at : at + self._size(cuts[s], rounded)]
                    at += len(piece)
                    if rounded:
                        packed[s] = piece
                        self._decode(piece, cuts[s], vector[cuts[s]])
                    else:
                        vector[cuts[s]] = piece.view(np.float32)
                notes[list(what)] = np.frombuffer(space[at:].tobytes(), np.int64)
        everybodys = tuple(notes.tolist())
        if near is not None:
            near.leader_done(call, elements, gathered=True)
            everybodys = tuple(notes.tolist())
            if out is not None:
                out[...], vector = vector, out
        watch.stop(self.counters)
        return Gathered(vector, everybodys)
