"""kerasoft.tree against keras.tree: every function on the same structures."""

import collections

import keras
import pytest

import kerasoft as ks

Point = collections.namedtuple("Point", ["x", "y"])
NESTED = [(1, 2), [3], {"b": 4, "a": (None, 5)}, Point(6, [7])]
ORDERED = collections.OrderedDict([("z", 1), ("a", [2, 3])])
DEFAULT = collections.defaultdict(list, {"z": 1, "a": 2})
QUEUE = collections.deque([1, (2, 3)])


def both(call):
    """The result, or the kind of the error, of a call of keras.tree and of kerasoft.tree."""
    results = []
    for tree in (keras.tree, ks.tree):
        try:
            results.append(call(tree))
        except Exception as error:
            results.append(type(error))
    return results


CALLS = {
    **{f"flatten {i}": lambda t, s=s: t.flatten(s) for i, s in enumerate([NESTED, ORDERED, DEFAULT, QUEUE, None, 3, [], ()])},
    **{f"paths {i}": lambda t, s=s: t.flatten_with_path(s) for i, s in enumerate([NESTED, ORDERED, QUEUE, 3])},
    **{f"nested {i}": lambda t, s=s: t.is_nested(s) for i, s in enumerate([NESTED, ORDERED, QUEUE, 3, None, "ab", {}, ()])},
    **{f"map {i}": lambda t, s=s: t.map_structure(lambda v: ("leaf", v) and str(v), s) for i, s in enumerate([NESTED, ORDERED, DEFAULT, QUEUE, 3, None])},
    "map two": lambda t: t.map_structure(lambda a, b: a * b, [1, {"k": 2}], [10, {"k": 20}]),
    "map keeps None": lambda t: t.map_structure(lambda v: v + 1, [1, None, {"a": None}], none_is_leaf=False),
    "map None with None": lambda t: t.map_structure(lambda v: v, None, none_is_leaf=False),
    "map other length": lambda t: t.map_structure(lambda a, b: a, [1, 2], [1]),
    "map other keys": lambda t: t.map_structure(lambda a, b: a, {"a": 1}, {"b": 1}),
    "map deeper": lambda t: t.map_structure(lambda a, b: a, [1, 2], [1, [2]]),
    "map no function": lambda t: t.map_structure(3, [1]),
    "map nothing": lambda t: t.map_structure(lambda: 1),
    "up to": lambda t: t.map_structure_up_to([0, [0, 0]], str, [[1, 1], [2, [3]]]),
    "up to dict": lambda t: t.map_structure_up_to({"a": 0}, lambda a, b: (a, b), {"a": [1]}, {"a": (2,)}),
    "up to shallower": lambda t: t.map_structure_up_to([0, [0]], str, [1, 2]),
    "up to leaf": lambda t: t.map_structure_up_to(0, len, [1, 2]),
    "shapes": lambda t: t.map_shape_structure(lambda s: tuple(s), [(2, None), {"a": [3, 4]}]),
    "shape": lambda t: t.map_shape_structure(len, (2, None, 4)),
    "pack": lambda t: t.pack_sequence_as(NESTED, list("abcdefgh")),
    "pack dict": lambda t: t.pack_sequence_as({"key3": "", "key1": "", "key2": ""}, ["v1", "v2", "v3"]),
    "pack ordered": lambda t: t.pack_sequence_as(ORDERED, [7, 8, 9]),
    "pack leaf": lambda t: t.pack_sequence_as(0, [5]),
    "pack few": lambda t: t.pack_sequence_as([0, 0], [5]),
    "pack many": lambda t: t.pack_sequence_as([0], [5, 6]),
    "pack no sequence": lambda t: t.pack_sequence_as([0], 5),
    "tuples": lambda t: t.lists_to_tuples([1, [2, {"a": [3]}], (4, [5])]),
    "same": lambda t: t.assert_same_structure([(0, 1)], [(2, 3)]),
    "same but kind": lambda t: t.assert_same_structure([0, 1], (0, 1)),
    "same but length": lambda t: t.assert_same_structure([0, 1], [0]),
    "same but depth": lambda t: t.assert_same_structure([0, 1], [0, [1]]),
    "same but keys": lambda t: t.assert_same_structure({"a": 0}, {"b": 0}),
    "same dicts": lambda t: t.assert_same_structure({"a": 0, "b": 1}, collections.OrderedDict([("b", 1), ("a", 0)])),
    "paths of lists and tuples": lambda t: t.assert_same_paths([0, (1, 2)], (2, [3, 4])),
    "paths that differ": lambda t: t.assert_same_paths([0, 1], [0, {"a": 1}]),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_results_are_those_of_keras(case):
    want, got = both(CALLS[case])
    assert got == want
    assert type(got) is type(want)


@pytest.mark.parametrize("top_down", [True, False])
def test_traverse_visits_and_replaces_like_keras(top_down):
    visits = {}

    def run(tree):
        seen = visits.setdefault(tree.__name__, [])

        def visit(part):
            seen.append(part)
            if part == 3:
                return tree.MAP_TO_NONE
            return "pair" if part == (1, 2) else None

        return tree.traverse(visit, NESTED, top_down=top_down)

    want, got = both(run)
    assert got == want
    assert visits["keras.tree"] == visits["kerasoft.tree"]


def test_paths_that_differ_are_named():
    with pytest.raises(ValueError, match=r"Paths in `a` missing in `b`:\n\{\(1,\)\}"):
        ks.tree.assert_same_paths([0, 1], [0])


def test_every_public_name_of_keras_is_there():
    assert {n for n in dir(keras.tree) if not n.startswith("_")} <= set(ks.tree.__all__)


def test_check_types_warns():
    with pytest.warns(DeprecationWarning, match="no longer has any effect"):
        ks.tree.assert_same_structure([1], [2], check_types=True)
