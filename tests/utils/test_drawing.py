"""Models as graphs of boxes."""

import pytest
from PIL import Image

import kerasoft as ks


def branching():
    x = ks.Input((4,), name="x")
    a, b = ks.layers.Dense(3, activation="relu", name="a")(x), ks.layers.Dense(3, name="b")(x)
    inner = ks.Sequential([ks.Input((3,)), ks.layers.Dense(2, name="deep")], name="inner")
    return ks.Model(x, inner(ks.layers.Add(name="sum")([a, b])), name="whole")


def test_dot():
    dot = ks.utils.model_to_dot(
        branching(), show_shapes=True, show_dtype=True, show_layer_activations=True, show_trainable=True
    )
    labels = {label[0].split(" ")[0]: key for key, label in dot.nodes.items()}
    edges = {
        (next(n for n, k in labels.items() if k == u), next(n for n, k in labels.items() if k == v))
        for u, v in dot.edges
    }
    assert edges == {("x", "a"), ("x", "b"), ("a", "sum"), ("b", "sum"), ("sum", "inner")}
    assert dot.nodes[labels["a"]] == [
        "a (Dense)", "Activation: relu", "Input shape: (None, 4)", "Output shape: (None, 3)", "Output dtype: float32",
        "Trainable",
    ]  # fmt: skip
    text = dot.to_string()
    assert text.startswith("digraph G {") and 'label="a (Dense)\\nActivation: relu' in text and "n0 -> n1;" in text


def test_nested_models_can_be_opened():
    dot = ks.utils.model_to_dot(branching(), expand_nested=True)
    assert any(label[0].startswith("deep") for label in dot.nodes.values())
    assert not any(label[0].startswith("inner") for label in dot.nodes.values())
    deep = next(k for k, label in dot.nodes.items() if label[0].startswith("deep"))
    assert sum(b == deep for _, b in dot.edges) == 1


@pytest.mark.parametrize("ending", ["png", "dot"])
def test_pictures(tmp_path, ending):
    path = tmp_path / f"model.{ending}"
    ks.utils.plot_model(branching(), path, show_shapes=True, show_layer_names=True)
    if ending == "png":
        with Image.open(path) as picture:
            assert min(picture.size) > 100
    else:
        assert "digraph" in path.read_text()


def test_other_models_and_errors():
    sequential = ks.Sequential([ks.layers.Dense(2), ks.layers.Dense(1)])
    with pytest.raises(ValueError, match="has not yet been built"):
        ks.utils.model_to_dot(sequential)
    sequential.build((None, 3))
    assert len(ks.utils.model_to_dot(sequential).nodes) in (2, 3)

    class Own(ks.Model):
        def call(self, x):
            return x

    own = Own()
    own.build((None, 2))
    assert list(ks.utils.model_to_dot(own).nodes.values()) == [[f"{own.name} (Own)"]]
    with pytest.raises(ValueError, match="Unrecognized keyword arguments"):
        ks.utils.model_to_dot(own, colour=3)
