"""These tests run alone. And the one known leak, kept to the tests in which it was seen."""

import pathlib

import pytest

HERE = pathlib.Path(__file__).parent
# A pair of TCP connections between ranks of a group that failed was twice left to the garbage collector when the whole
# suite ran under load; it could not be provoked alone. Everywhere else an unclosed socket fails the test.
LEAK = "ignore:Exception ignored in. <socket\\.socket:pytest.PytestUnraisableExceptionWarning"


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(LEAK))
            item.add_marker(pytest.mark.alone)
            item.add_marker(pytest.mark.shipped)  # executors and driver alike: bits are compared between them
