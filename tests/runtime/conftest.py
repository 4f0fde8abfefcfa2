"""These tests run alone."""

import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.alone)
            item.add_marker(pytest.mark.shipped)  # executors and driver alike: bits are compared between them
