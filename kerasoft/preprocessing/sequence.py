"""Sequences of several lengths as one array."""

from ..utils.sequences import pad_sequences

__all__ = ["pad_sequences"]
