"""The page of public names says what is there: it is written by docs/surface.py, and nothing of Keras is just missing."""

import importlib.util
import pathlib
import tomllib

import keras
import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def surface():
    spec = importlib.util.spec_from_file_location("surface", DOCS / "surface.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_as_the_script_writes_it(surface):
    assert (DOCS / "surface.md").read_text() == surface.page(), "run: python docs/surface.py"


def test_no_name_of_keras_is_missing_without_a_reason():
    assert [line for line in (DOCS / "surface.md").read_text().splitlines() if "| – | missing" in line] == []


def test_what_is_left_out_takes_less_than_a_page():
    assert sum("| – |" in line for line in (DOCS / "surface.md").read_text().splitlines()) < 40


def test_differences_are_said_of_names_that_exist():
    said = tomllib.loads((DOCS / "surface.toml").read_text())
    for name in said["differences"]:
        found = keras
        for part in name.split("."):
            found = getattr(found, part)
