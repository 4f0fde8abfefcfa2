"""The block of `docs/howto/text-from-a-dataframe.md` runs, and its model has learnt the two sentences."""

import pathlib

import pytest

pytestmark = pytest.mark.spark
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "howto" / "text-from-a-dataframe.md"


def test_the_page_trains_a_classifier(spark):
    block = PAGE.read_text().split("```python\n")[1].split("```")[0]
    names = {"spark": spark}
    exec(compile(block, str(PAGE), "exec"), names)
    assert names["vectorize"].get_vocabulary()[2:4] == ["the", "striker"]
    for row in names["scored"].limit(8).collect():
        assert row.prediction[row.label] > 0.8
