"""Rows of every kind become the same blocks; every bad row is named."""

import numpy as np
import pytest

from kerasoft.data.columns import Column
from kerasoft.data.reader import RowReader
from kerasoft.errors import DataError
from kerasoft.training.label_checks import class_limit

X = Column("x/image", (2, 2), "float32", None, "input 'image'")
X2 = Column("x/age", (), "float32", None, "input 'age'")
Y = Column("y/digit", (), "int32", 10, "label of 'digit'", class_limit(10))
W = Column("sample_weight/digit", (), "float32", None, "sample weight of 'digit'")
N = 7


def image(i):
    return np.arange(4.0).reshape(2, 2) + i


def read(rows, *columns, **options):
    blocks = list(RowReader(columns, **options).blocks(rows, "partition 3"))
    return {c.name: np.concatenate([b[c.name] for b in blocks]) for c in columns}


def expected():
    return np.stack([image(i) for i in range(N)]).astype("float32"), np.arange(N, dtype="int32")


class Row(dict):
    """Behaves like Spark's Row as far as the reader looks."""

    def asDict(self):
        return dict(self)


@pytest.mark.parametrize(
    "row, options",
    [
        (lambda i: (image(i), i), {}),
        (lambda i: (image(i).tolist(), float(i)), {}),
        (lambda i: [image(i), np.array([i])], {}),
        (lambda i: (image(i), i, 1.0), {}),
        (lambda i: ({"image": image(i)}, {"digit": i}), {}),
        (lambda i: ([image(i)], np.int64(i)), {}),
        (lambda i: {"image": image(i), "digit": i}, {}),
        (lambda i: {"x": image(i), "y": i}, {}),
        (lambda i: {"features": image(i), "label": i, "other": "text"}, {}),
        (lambda i: {"a": image(i), "b": i}, {"feature_cols": ["a"], "label_cols": ["b"]}),
        (lambda i: Row(image=image(i), digit=i), {}),
    ],
)
def test_every_kind_of_row(row, options):
    got = read((row(i) for i in range(N)), X, Y, **options)
    x, y = expected()
    np.testing.assert_array_equal(got["x/image"], x)
    np.testing.assert_array_equal(got["y/digit"], y)
    assert got["x/image"].dtype == np.float32 and got["y/digit"].dtype == np.int32


def test_ready_blocks_are_cut_and_rows_may_follow():
    x, y = expected()
    rows = [(x[:5], y[:5]), (x[5:6], y[5:6]), (x[6], y[6])]
    blocks = list(RowReader((X, Y), block_bytes=2 * 20).blocks(rows, "partition 0"))
    assert [len(b["y/digit"]) for b in blocks] == [2, 2, 1, 1, 1]
    np.testing.assert_array_equal(np.concatenate([b["x/image"] for b in blocks]), x)


def test_several_inputs_and_a_weight():
    rows = [({"age": i, "image": image(i)}, i, 0.5) for i in range(N)]
    got = read(rows, X, X2, Y, W)
    np.testing.assert_array_equal(got["x/age"], np.arange(N, dtype="float32"))
    np.testing.assert_array_equal(got["sample_weight/digit"], np.full(N, 0.5, "float32"))
    listed = read([([image(i), i], i, 0.5) for i in range(N)], X, X2, Y, W)
    for name in got:
        np.testing.assert_array_equal(got[name], listed[name])


def test_columns_are_joined_into_one_input():
    flat = Column("x/in", (3,), "float32")
    rows = [{"a": 1.0, "b": [2.0, 3.0], "c": i} for i in range(3)]
    got = read(rows, flat, Y, feature_cols=["a", "b"], label_cols=["c"])
    np.testing.assert_array_equal(got["x/in"], [[1, 2, 3]] * 3)


def test_predicting_reads_x_alone_or_x_of_x_y():
    x, _ = expected()
    for rows in (
        [image(i) for i in range(N)],
        [(image(i), i) for i in range(N)],
        [{"image": image(i)} for i in range(N)],
    ):
        np.testing.assert_array_equal(read(rows, X)["x/image"], x)


def test_blocks_are_bounded_and_contiguous():
    blocks = list(RowReader((X, Y), block_bytes=60).blocks(((image(i), i) for i in range(N)), "partition 0"))
    assert [len(b["y/digit"]) for b in blocks] == [3, 3, 1]
    assert all(a.flags.c_contiguous for b in blocks for a in b.values())
    assert len({b["x/image"].ctypes.data for b in blocks}) == len(blocks)


GOOD = [(image(0), 0), (image(1), 1)]


@pytest.mark.parametrize(
    "rows, text",
    [
        (GOOD + [(np.zeros(3), 1)], "input 'image' has shape (3,); expected (2, 2) (row 2 of partition 3)"),
        (
            GOOD + [([[1, 2], [3]], 1)],
            "input 'image' is a ragged list; expected the shape (2, 2) (row 2 of partition 3)",
        ),
        (
            GOOD + [(image(0), 10)],
            "label of 'digit' is 10 in row 2 of partition 3; expected a class from 0 to 9, because the output has 10 units",
        ),
        (GOOD + [(image(0), -1)], "label of 'digit' is -1 in row 2 of partition 3"),
        (GOOD + [(image(0) * np.nan, 1)], "input 'image' holds nan in row 2 of partition 3; expected finite numbers"),
        (
            GOOD + [(image(0), "seven")],
            "label of 'digit' is an array of shape () and dtype <U5; expected numbers of shape ()",
        ),
        (
            GOOD + [(image(0), 1.5)],
            "label of 'digit' is a float 1.5; expected whole numbers (int32) (row 2 of partition 3)",
        ),
        (GOOD + [(image(0), None)], "label of 'digit' is an array of shape () and dtype object"),
        (GOOD + [5], "row 2 of partition 3 is not like the first one: TypeError"),
        ([5], "row 0 of partition 3 is a int 5; expected (x, y) or (x, y, weight), a dict or a Row"),
        ([{"q": 1}], "row 0 of partition 3 has the keys ['q']; expected ['image'] for the model's inputs, or 'x'"),
    ],
)
def test_bad_rows_are_named(rows, text):
    with pytest.raises(DataError) as error:
        read(rows, X, Y)
    assert text in str(error.value)


def test_missing_weight_and_negative_weight():
    with pytest.raises(DataError, match=r"expected \(x, y, weight\), a dict or a Row"):
        read(GOOD, X, Y, W)
    with pytest.raises(
        DataError, match="sample weight of 'digit' is -1.0 in row 1 of partition 3; expected a weight of at"
    ):
        read([(image(0), 0, 1.0), (image(0), 0, -1.0)], X, Y, W)
