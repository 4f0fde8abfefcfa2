"""From the driver's table to a collective."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DistributedError
from .base import Collective, Peer
from .exchange import Exchange
from .links import PeerListener, connect_all
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
    exchange = Exchange(rank, links, timeout_s, wire_dtype, exact_from)
    if "shm" not in transports:
        return exchange
    try:
        descriptor = open_segment(rank, links, timeout_s)
    except DistributedError as error:
        exchange.abort(error)
        raise
    return exchange if descriptor is None else SharedMemory(rank, links, descriptor, timeout_s)
