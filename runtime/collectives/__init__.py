"""Sums among the ranks of a group: reduce-scatter, all-gather and small all-reduces."""

from .base import ALIGNMENT, Collective, Counters, Gathered, Peer, aligned_empty, slices
from .group import TRANSPORTS, collective_of, connect
from .links import Link, PeerListener, connect_all
from .solo import Solo
from .tree import TreeSum, cover

__all__ = [
    "ALIGNMENT",
    "TRANSPORTS",
    "Collective",
    "Counters",
    "Gathered",
    "Link",
    "Peer",
    "PeerListener",
    "Solo",
    "TreeSum",
    "aligned_empty",
    "collective_of",
    "connect",
    "connect_all",
    "cover",
    "slices",
]
