"""Errors of the front-end.

KerasoftError
├── LayerError            a layer cannot take these inputs or this call        (also a ValueError)
├── GraphError            a functional graph that cannot be run                (also a ValueError)
├── NotBuiltError         weights are asked for before there are any           (also a ValueError)
├── NotCompiledError      fit or evaluate before `compile()`                   (also a ValueError)
├── UnknownNameError      a string or a config names nothing that is known     (also a ValueError)
├── DataError             rows or labels that the model cannot be trained on   (also a ValueError)
│   └── EmptyDataError    an RDD or DataFrame without rows
├── SerializationError    a config or a file that cannot be read or written    (also a ValueError)
│   └── UnsafeFileError   a file that wants code run, escapes its folder or is too large
└── SymbolicValueError    the value of a symbolic tensor was asked for         (also a TypeError)
"""

from __future__ import annotations


class KerasoftError(Exception):
    """Base of all front-end errors."""


class LayerError(KerasoftError, ValueError):
    """A layer cannot take these inputs or this call."""


class GraphError(KerasoftError, ValueError):
    """A functional graph that cannot be run."""


class NotBuiltError(KerasoftError, ValueError):
    """Weights are asked for before there are any."""


class NotCompiledError(KerasoftError, ValueError):
    """`fit` or `evaluate` before `compile()`."""


class UnknownNameError(KerasoftError, ValueError):
    """A string or a config names nothing that is known."""


class DataError(KerasoftError, ValueError):
    """Rows or labels that the model cannot be trained on."""


class EmptyDataError(DataError):
    """An RDD or DataFrame without rows."""


class SerializationError(KerasoftError, ValueError):
    """A config or a file that cannot be read or written."""


class UnsafeFileError(SerializationError):
    """A file that wants code run, escapes its folder or is too large."""


class SymbolicValueError(KerasoftError, TypeError):
    """The value of a symbolic tensor was asked for."""
