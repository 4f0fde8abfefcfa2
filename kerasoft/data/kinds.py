"""What kind of data was given, told without importing Spark."""

from __future__ import annotations

from typing import Any


def is_rdd(data: Any) -> bool:
    """Whether `data` is a Spark RDD."""
    return _is_of_spark(data, "RDD")


def is_dataframe(data: Any) -> bool:
    """Whether `data` is a Spark DataFrame."""
    return _is_of_spark(data, "DataFrame")


def is_spark(data: Any) -> bool:
    """Whether `data` is an RDD or a DataFrame."""
    return is_rdd(data) or is_dataframe(data)


def is_distributed(data: Any) -> bool:
    """Whether `data` is an RDD, a DataFrame, or rows already turned into a `BlockRDD`."""
    return is_spark(data) or (type(data).__module__.startswith("kerasoft.data") and hasattr(data, "rdd"))


def _is_of_spark(data: Any, name: str) -> bool:
    return any(c.__module__.startswith("pyspark") and c.__name__ == name for c in type(data).__mro__)
