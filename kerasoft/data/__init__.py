"""Data on Spark: rows and DataFrames become checked blocks on the executors, and are scored there."""

from ..errors import DataError, EmptyDataError
from .columns import Column

__all__ = ["Column", "DataError", "EmptyDataError"]
