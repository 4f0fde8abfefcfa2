"""What tests of the compiler share."""

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
