"""Sums among the ranks of a group: reduce-scatter, all-gather and small all-reduces."""

from .base import ALIGNMENT, Collective, Counters, Gathered, Peer, aligned_empty, slices
from .group import TRANSPORTS, connect
from .links import PeerListener
from .solo import Solo
from .tree import TreeSum, cover

__all__ = [
    "ALIGNMENT",
    "TRANSPORTS",
    "Collective",
    "Counters",
    "Gathered",
    "Peer",
    "PeerListener",
    "Solo",
    "TreeSum",
    "aligned_empty",
    "connect",
    "cover",
    "slices",
]
