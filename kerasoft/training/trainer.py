"""Trainer: `compile`, `fit`, `evaluate` and `predict` of a model."""

from __future__ import annotations


class Trainer:
    """What a model can do with data."""
