"""Small well-known data sets, downloaded once: each module has Keras' `load_data`.

Files are kept in `datasets` under `$KERASOFT_HOME`, `$KERAS_HOME` or `~/.keras`, where Keras keeps them too, and checked
against Keras' checksums. Without a network a file can be put there by hand.
"""

import importlib

__all__ = [
    "boston_housing",
    "california_housing",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "imdb",
    "mnist",
    "reuters",
]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'kerasoft.datasets' has no attribute {name!r}")
