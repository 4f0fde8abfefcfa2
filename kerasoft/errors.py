"""Errors of the front-end.

KerasoftError
├── LayerError            a layer cannot take these inputs or this call        (also a ValueError)
├── GraphError            a functional graph that cannot be run                (also a ValueError)
├── NotBuiltError         weights are asked for before there are any           (also a ValueError)
├── NotCompiledError      fit or evaluate before `compile()`                   (also a ValueError)
├── UnknownNameError      a string or a config names nothing that is known     (also a ValueError)
│   └── UnknownClassError a config of a class or function that is not known    (also a TypeError)
├── DataError             rows or labels that the model cannot be trained on   (also a ValueError)
│   └── EmptyDataError    an RDD or DataFrame without rows
├── SerializationError    a config or a file that cannot be read or written    (also a ValueError)
│   ├── ConfigError       an object that has no config, or does not take its   (also a TypeError)
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


class UnknownClassError(UnknownNameError, TypeError):
    """A config names a class or function that is neither built in nor registered."""


class DataError(KerasoftError, ValueError):
    """Rows or labels that the model cannot be trained on."""


class EmptyDataError(DataError):
    """An RDD or DataFrame without rows."""


class SerializationError(KerasoftError, ValueError):
    """A config or a file that cannot be read or written."""


class ConfigError(SerializationError, TypeError):
    """An object that has no config, or cannot be made from it."""


class UnsafeFileError(SerializationError):
    """A file that wants code run, escapes its folder or is too large."""


class SymbolicValueError(KerasoftError, TypeError, ValueError, NotImplementedError):
    """The value of a symbolic tensor was asked for. Of all the kinds that Keras raises for it."""
