"""Model: a layer that can be trained, saved and summarised."""

from __future__ import annotations

import difflib
import io
import json
from typing import Any

from .. import tree
from ..errors import LayerError, NotBuiltError
from ..layers.layer import Layer
from ..layers.shapes import is_shape
from ..tensors import KerasTensor
from ..training.trainer import Trainer


def _is_functional_call(args: tuple, kwargs: dict) -> bool:
    return len(args) >= 2 or (len(args) == 1 and "outputs" in kwargs) or ("inputs" in kwargs and "outputs" in kwargs)


class Model(Trainer, Layer, manages_build=True):
    """A network.

    ``Model(inputs, outputs)`` of symbolic tensors is a functional model. A subclass with a `call` of its own is run as
    Python.

    >>> import kerasoft as ks
    >>> inputs = ks.Input((4,))
    >>> model = ks.Model(inputs, inputs * 2)
    >>> model([[1.0, 2.0, 3.0, 4.0]]).tolist()
    [[2.0, 4.0, 6.0, 8.0]]
    """

    def __new__(cls, *args: Any, **kwargs: Any):
        if cls is Model and _is_functional_call(args, kwargs):
            from .functional import Functional

            return Functional.__new__(Functional, *args, **kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any):
        from .functional import Functional

        if _is_functional_call(args, kwargs) and not isinstance(self, Functional):
            _make_functional(type(self))
            Functional.__init__(self, *args, **kwargs)
            return
        Trainer.__init__(self)
        Layer.__init__(self, *args, **kwargs)

    def __reduce__(self) -> tuple:
        """Copies and pickles hold the model's `.keras` file, and its class."""
        from ..saving.archive import write_zip

        file = io.BytesIO()
        write_zip(self, file)
        return _from_file, (type(self), file.getvalue())

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"Model {type(self).__name__} does not have a `call()` method implemented.")

    # --- text ---

    def _text(self, x: Any) -> Any:
        return x  # the layers inside say what they take

    def _as_tensors(self, structure: Any) -> Any:
        return super()._as_tensors(_texts_as_arrays(structure))

    def _infer(self, args: tuple, kwargs: dict) -> Any:
        """Models with layers that run on the host are not traced whole: their outputs are known, or they are refused."""
        from .host_part import build_for_text, graph_of, has_host_layers

        given = [x for x in tree.flatten((args, kwargs)) if isinstance(x, KerasTensor)]
        if not has_host_layers(self):
            return super()._infer(args, kwargs)
        build_for_text(self, given[0])
        functional = graph_of(self)
        if functional is None:
            raise LayerError(
                f"{type(self).__name__} '{self.name}' has layers that take text or other raw columns. It can be called on "
                "arrays, but only functional and Sequential models of such layers can be part of a model or be trained. "
                "Apply these layers to the data before."
            )
        return tree.map_structure(lambda x: KerasTensor(x.shape, x.dtype), functional._outputs_struct)

    # --- structure ---

    @property
    def layers(self) -> list[Any]:
        """The layers directly below."""
        return list(self._layers)

    @layers.setter
    def layers(self, _: Any) -> None:
        raise AttributeError("`Model.layers` attribute is reserved and should not be used. Please use another name.")

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """The layer of this name, or at this place in `layers`.

        Raises:
            ValueError: there is none.
        """
        if index is not None and name is not None:
            raise ValueError(f"Provide only a layer name or a layer index. Received: index={index}, name={name}.")
        if index is not None:
            if len(self.layers) <= index:
                raise ValueError(
                    f"Was asked to retrieve layer at index {index} but model only has {len(self.layers)} layers."
                )
            return self.layers[index]
        if name is None:
            raise ValueError("Provide either a layer name or layer index at `get_layer`.")
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = [layer.name for layer in self.layers]
        close = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"No such layer: {name}. Existing layers are: {names}.{hint}")

    def _pass_masks(self, first: Any, outputs: Any, previous: Any) -> None:
        """The layers inside have set the outputs' masks."""

    # --- building ---

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights of a subclassed model by calling it on symbolic inputs of these shapes.

        Args:
            input_shape: one shape with the batch axis, or a list or dict of shapes.
        """
        if self.built and self._inbound_nodes:
            return
        if input_shape is None:
            self.built = True
            return

        def symbolic(shape: Any) -> Any:
            if is_shape(shape):
                return KerasTensor(shape, self._shape_dtype())
            if isinstance(shape, dict):
                return {k: symbolic(v) for k, v in shape.items()}
            return [symbolic(s) for s in shape]

        self.built = True  # so that the call does not build again
        self._build_shapes = {"input_shape": input_shape}
        try:
            self(symbolic(input_shape))
        except Exception:
            self.built = False
            raise

    def _call_build(self, shapes: dict[str, Any]) -> None:
        """The first call of a subclassed model builds its layers as it runs, after its own `build` if it has one."""
        if type(self).build is not Model.build:
            self.build(**shapes)
        self._build_shapes = shapes or None
        self._after_build()

    # --- text ---

    def summary(
        self,
        line_length: int | None = None,
        positions: list | None = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
    ) -> None:
        """Prints a table of the layers, their output shapes and numbers of parameters."""
        from .summary import summary_text

        text = summary_text(self, line_length, positions, expand_nested, show_trainable, layer_range)
        (print_fn or print)(text)

    # --- configuration and files ---

    def to_json(self, **kwargs: Any) -> str:
        """The architecture as JSON, for `model_from_json`."""
        from ..saving.serialization import serialize_keras_object

        return json.dumps(serialize_keras_object(self), **kwargs)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Any:
        """The model that gave this config."""
        from .functional import Functional, functional_from_config

        if {"layers", "input_layers", "output_layers"} <= set(config):
            return functional_from_config(cls if issubclass(cls, Functional) else Functional, config, custom_objects)
        return super().from_config(config)

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """Writes architecture, weights, compilation and optimizer state to a `.keras` file.

        Args:
            filepath: ends in ``.keras``, or in ``.h5`` for Keras's legacy format; a folder with ``zipped=False``.
            overwrite: whether an existing file may be replaced.

        Raises:
            SerializationError: another ending, a file that exists, or a part that cannot be saved.
        """
        from ..saving.files import save_model

        save_model(self, filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def save_weights(self, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None) -> None:
        """Writes the weights (and the optimizer's state) to a `.weights.h5` file.

        Args:
            max_shard_size: write several files of at most this many GB, and `filepath`, ending in ``.weights.json``,
                that lists them.
        """
        from ..saving.files import save_weights

        save_weights(self, filepath, overwrite=overwrite, max_shard_size=max_shard_size)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Sets the weights from a `.weights.h5`, `.weights.json`, `.keras` or legacy `.h5` file.

        Args:
            skip_mismatch: leave out (with a warning) layers whose weights have other numbers or shapes.
            objects_to_skip: layers to leave as they are; `.weights.h5` and `.weights.json` only.
            by_name: find layers by name; legacy `.h5` only.

        Raises:
            ValueError: a layer does not fit; lists all of them.
        """
        from ..saving.files import load_weights

        load_weights(self, filepath, skip_mismatch=skip_mismatch, **kwargs)

    def export(
        self,
        filepath: Any,
        format: str = "stablehlo",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Writes the model for scoring: no Spark, no code of yours, and any number of rows.

        Args:
            format: ``"stablehlo"`` (one file; `kerasoft.export.load` or JAX alone runs it) or ``"onnx"``.
            input_signature: InputSpecs in place of the model's own inputs, to fix sizes.

        Raises:
            SerializationError: another format, or a model that the format cannot express.

        >>> import kerasoft as ks, tempfile, os
        >>> model = ks.Sequential([ks.Input((2,)), ks.layers.Dense(1, kernel_initializer="ones")])
        >>> path = os.path.join(tempfile.mkdtemp(), "m.stablehlo")
        >>> model.export(path, verbose=False)
        >>> ks.export.load(path).predict([[1.0, 2.0], [3.0, 4.0]]).tolist()
        [[3.0], [7.0]]
        """
        from ..export.formats import export_model

        export_model(self, filepath, format, verbose, input_signature, **kwargs)

    def explain(
        self, x: Any, y: Any = None, batch_size: int = 32, kind: str | None = None, measure: bool = True
    ) -> Any:
        """What the compiler makes of the model: graph, costs, memory, kernels, and the time of each kernel.

        Args:
            x, y: a few rows, as for `fit`; without `y` the predicting graph is explained.
            batch_size: the number of rows that is compiled and counted for.
            kind: "train" (forward, loss and gradients; the default with `y`), "update" or "predict".
            measure: whether to time the kernels.

        Returns:
            An `Explanation`: print it, or call `save("graph.png")` or `save_roofline("roofline.html")`.

        >>> import kerasoft as ks, numpy as np
        >>> model = ks.Sequential([ks.Input((2,)), ks.layers.Dense(1)])
        >>> print(model.explain(np.ones((4, 2), "float32"), batch_size=4, measure=False).text.splitlines()[0])
        === predict (b = 4)
        """
        from ..training.explaining import explain_model

        return explain_model(self, x, y, batch_size, kind, measure)

    def quantize(self, mode: Any = None, config: Any = None, filters: Any = None, **kwargs: Any) -> None:
        """Replaces the weights of Dense, EinsumDense and Embedding layers by small integers and scales.

        Args:
            mode: ``"int8"`` or ``"int4"``.
            config: settings, a `kerasoft.quantizers.QuantizationConfig`.
            filters: a regular expression on layer names, a list of them, or a function of a layer.

        Raises:
            ValueError: a model that is not built, or an unknown mode.
            NotImplementedError: a mode that kerasoft does not have.
        """
        from ..quantizers.layers import quantize_model

        quantize_model(self, mode, config, filters, **kwargs)
        self._trainer.programs.clear()

    def _need_built(self, what: str) -> None:
        if not self.built:
            raise NotBuiltError(
                f"You are {what} a model that has not yet been built. Try building the model first by calling it on some "
                "data or by using `build()`."
            )


def _texts_as_arrays(value: Any) -> Any:
    """Strings and lists of strings as object arrays; the rest as it is."""
    from ..host.lookup import as_texts

    if isinstance(value, dict):
        return {k: _texts_as_arrays(v) for k, v in value.items()}
    if isinstance(value, list):
        leaves = tree.flatten(value)
        if leaves and all(isinstance(x, (str, bytes)) for x in leaves):
            return as_texts(value)
        return [_texts_as_arrays(v) for v in value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_texts_as_arrays(v) for v in value)
    return value


def _make_functional(cls: type) -> None:
    """Puts `Functional` under a user's class that calls ``super().__init__(inputs, outputs)``."""
    from .functional import Functional

    if cls is Model or Functional in cls.__mro__:
        return
    cls.__bases__ = tuple(Functional if base is Model else base for base in cls.__bases__)
    for base in cls.__bases__:
        if base is not Functional and issubclass(base, Model) and Functional not in base.__mro__:
            _make_functional(base)


def model_from_json(json_string: str, custom_objects: dict | None = None) -> Any:
    """The model that `to_json` made the text of."""
    from ..saving.serialization import deserialize_keras_object

    return deserialize_keras_object(json.loads(json_string), custom_objects=custom_objects)


def _from_file(cls: type, file: bytes) -> Any:
    """The model that `Model.__reduce__` wrote."""
    from ..saving.files import load_model

    return load_model(io.BytesIO(file), custom_objects={cls.__name__: cls}, safe_mode=False)
