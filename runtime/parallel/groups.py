"""The two groups of a rank: those with the same part of the model, and those with the other parts and the same rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..collectives import Collective, Link, Peer, PeerListener, Solo, collective_of, connect_all
from ..collectives.base import Counters
from .channels import Channels
from .grid import Grid


class Groups:
    """A rank's connections in a fit whose model is cut. A context manager: closes on success, aborts on error.

    Attributes:
        data: the collective of the ranks that hold the same part.
        model: the collective of the ranks that hold the other parts, `Solo` if there are none or they use `channels`.
        channels: to the same ranks, if they send one another arrays (pipelines).
    """

    def __init__(self, rank: int, data: Collective, model: Collective, channels: Channels | None):
        self.rank, self.data, self.model, self.channels = rank, data, model, channels
        self._all: tuple[Any, ...] = tuple(g for g in (data, model, channels) if g is not None)

    @property
    def counters(self) -> Counters:
        """What all groups have moved and waited for."""
        total = Counters()
        for group in self._all:
            for field in dataclasses.fields(Counters):
                value = getattr(group.counters, field.name)
                if not isinstance(value, dict):
                    setattr(total, field.name, getattr(total, field.name) + value)
        return total

    @property
    def wait_s(self) -> float:
        """Seconds that this rank has waited for others."""
        return sum(group.counters.wait_s for group in self._all)

    @property
    def remark(self) -> str:
        """A sentence for the user, or ""."""
        return self.data.remark

    def at(self, step: int) -> None:
        """Says which step the next calls belong to."""
        for group in self._all:
            group.at(step)

    def close(self) -> None:
        for group in self._all:
            group.close()

    def abort(self, error: BaseException | None = None) -> None:
        """Ends this rank's part in all groups and tells them whose fault it was."""
        for group in self._all:
            group.abort(error)

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
        else:
            self.abort(error)


def meet(
    table: Sequence[Peer],
    rank: int,
    grid: Grid,
    secret: bytes,
    generation: int,
    timeout_s: float,
    listener: PeerListener | None,
    transports: Sequence[str],
    channels: bool,
    replicas_meet: bool = True,
    **data: Any,
) -> Groups:
    """Connects a rank with its two groups; closes `listener`.

    Args:
        channels: whether the model group sends arrays instead of making sums.
        replicas_meet: whether there is a data group; else each rank is alone in its own.
        data: further arguments of `collective_of` for the data group (wire_dtype, exact_from, topology, elements).

    Raises:
        PeerLost, PeerFrozen, HandshakeError: see `connect_all`.
    """
    part = grid.place(rank)[1]
    if listener is None:
        return Groups(rank, Solo(timeout_s), Solo(timeout_s), None)
    same = grid.data_group(rank) if replicas_meet else (rank,)
    partners = {*grid.model_group(rank), *same} - {rank}
    links = connect_all(table, rank, secret, generation, timeout_s, listener, transports, partners)
    made: list[Any] = []
    try:
        made.append(
            collective_of(same.index(rank), _of(links, same, rank), timeout_s, who=rank, transports=transports, **data)
        )
        own = _of(links, grid.model_group(rank), rank)
        if channels and own:
            made += [Solo(timeout_s), Channels(part, own, timeout_s, rank)]
        else:
            made += [collective_of(part, own, timeout_s, who=rank, transports=transports), None]
    except BaseException as error:
        for group in made:
            if group is not None:
                group.abort(error)
        for link in links.values():
            link.sock.close()
        raise
    return Groups(rank, *made)


def _of(links: dict[int, Link], members: Sequence[int], rank: int) -> dict[int, Link]:
    """The links of a group, by the others' numbers in it."""
    return {
        place: dataclasses.replace(links[other], place=place) for place, other in enumerate(members) if other != rank
    }
