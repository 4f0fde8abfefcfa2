"""Data on Spark: rows and DataFrames become checked blocks on the executors, and are scored there."""

from .columns import Column
from .errors import DataError, EmptyDataError

__all__ = ["Column", "DataError", "EmptyDataError"]
