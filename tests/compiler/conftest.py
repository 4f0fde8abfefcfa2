"""What tests of the compiler share."""

import pathlib

import pytest
from kerasoft.compiler.ops.registry import REGISTRY, op


@pytest.fixture
def new_op():
    """Registers an op for one test."""
    made = []

    def register(name, **entry):
        made.append(name)
        return op(name, **entry)

    yield register
    for name in made:
        del REGISTRY[name]


def pytest_collection_modifyitems(items):
    """Kernels, programs and passes are tried as they are shipped; so are those files of `ops` and `parallel` that say so."""
    here = pathlib.Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.parent.name not in ("ops", "parallel"):
            item.add_marker(pytest.mark.shipped)
