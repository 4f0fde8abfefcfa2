"""Errors of the data folder.

DataError               rows that cannot be trained on; a ValueError that names the row
└── EmptyDataError      no rows at all
"""

from __future__ import annotations


class DataError(ValueError):
    """Rows that the model cannot take."""


class EmptyDataError(DataError):
    """A data set without rows."""
