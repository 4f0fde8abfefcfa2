"""From the driver's table to a collective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import wire
from .base import Collective, Peer
from .exchange import Exchange
from .links import Link, PeerListener, connect_all
from .routed import Routed
from .shared import SharedMemory, open_segment
from .solo import Solo

TRANSPORTS = ("shm", "unix", "tcp")


def connect(
    table: Sequence[Peer],
    rank: int,
    secret: bytes,
    generation: int,
    timeout_s: float = 30.0,
    *,
    listener: PeerListener | None = None,
    transports: Sequence[str] = TRANSPORTS,
    wire_dtype: str = "float32",
    exact_from: int | None = None,
    topology: str = "direct",
    elements: int = 1 << 20,
    groups: Sequence[int] | None = None,
) -> Collective:
    """The collective of this rank with all others of the table.

    Args:
        table: all ranks, in order, as `ControlClient.join` returns them.
        secret, generation: of this fit and of this attempt; every connection proves them.
        timeout_s: for the connecting, and then the longest time without progress of a peer.
        listener: the one whose address went into the table; not needed for one rank. It is closed.
        transports: which may be used. "shm" needs all ranks on one host (found out by opening one file in common), else
            each pair uses "unix" where it connects, else "tcp". Every rank passes the same.
        wire_dtype, exact_from: see `Exchange`.
        topology: "direct", or "ring", "tree", "two_level" between sockets, or "auto": shared memory among ranks of one host,
            else the cheapest of the four by a cost model measured here. elements, groups: see `Routed`.

    Raises:
        PeerLost, PeerFrozen, HandshakeError: see `links.connect_all`.
    """
    unknown = set(transports) - set(TRANSPORTS)
    if unknown or not transports:
        raise ValueError(f"transports should be some of {TRANSPORTS}, got {tuple(transports)}.")
    if len(table) == 1:
        if listener is not None:
            listener.close()
        return Solo(timeout_s)
    if listener is None:
        raise ValueError("connect needs the listener whose address is in the table.")
    links = connect_all(table, rank, secret, generation, timeout_s, listener, transports)
    return collective_of(
        rank, links, timeout_s, transports=transports, wire_dtype=wire_dtype, exact_from=exact_from,
        topology=topology, elements=elements, groups=groups,
    )  # fmt: skip


def collective_of(
    rank: int,
    links: Mapping[int, Link],
    timeout_s: float = 30.0,
    *,
    who: int | None = None,
    transports: Sequence[str] = TRANSPORTS,
    wire_dtype: str = "float32",
    exact_from: int | None = None,
    topology: str = "direct",
    elements: int = 1 << 20,
    groups: Sequence[int] | None = None,
) -> Collective:
    """The collective over links that are there, by the others' numbers in the group; further arguments as `connect`.

    Args:
        rank: this rank's number in the group. who: its number in the fit, if that differs.

    Whatever it raises, the links are closed then.
    """
    if not links:
        return Solo(timeout_s)
    exchange: Exchange | None = None
    try:
        exchange = Exchange(rank, links, timeout_s, wire_dtype, exact_from)
        exchange.who = rank if who is None else who
        made = exchange
        descriptor = None
        if "shm" in transports and topology in ("direct", "auto"):
            descriptor = open_segment(rank, links, timeout_s)
        if descriptor is not None:
            made = SharedMemory(rank, links, descriptor, timeout_s)
        elif topology != "direct":
            made = Routed(rank, links, timeout_s, topology, elements, groups, wire_dtype, exact_from)
        made.who = exchange.who
        return made
    except BaseException as error:
        if exchange is not None:
            exchange.abort(error)
        for link in links.values():  # whatever was wrong, an argument even: nobody else holds these connections
            wire.hang_up(link.sock)
        raise
