"""The block of `docs/howto/wide-and-deep.md` runs, and its model has learnt."""

import pathlib

import numpy as np

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "howto" / "wide-and-deep.md"


def test_the_page_trains_a_model():
    block = PAGE.read_text().split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(block, str(PAGE), "exec"), names)
    assert names["history"]["val_accuracy"][-1] > 0.93
    kernel = names["model"].get_layer("wide").get_weights()[0]
    assert kernel.shape == (120_040, 1) and 100 < np.count_nonzero(kernel) < 700
