"""Which object's variables lie where in a weights file: Keras's walk over a model's attributes.

A model's layers are at ``layers/<class>[_n]``, other parts under the names of the attributes that hold them, in
alphabetical order, private ones last; objects met before are not written again.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .. import naming
from ..errors import UnsafeFileError
from ..layers.state import State

_SKIPPED = {"operations", "_operations", "_functional", "inputs", "outputs", "input_names", "output_names"}


@functools.cache
def _attributes_of_any_layer() -> frozenset[str]:
    from ..layers.layer import Layer

    return frozenset(dir(Layer(name="reference")))


def is_saveable(value: Any) -> bool:
    """Whether `value` has a place of its own in a weights file: layers, models, optimizers, seed generators."""
    return isinstance(value, State) or (hasattr(value, "save_own_variables") and not isinstance(value, type))


def _children(saveable: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(saveable, State):
        return
    from ..models.functional import Functional
    from ..models.sequential import Sequential

    if isinstance(saveable, (Functional, Sequential)):
        yield "layers", saveable.layers
    skipped = _attributes_of_any_layer()
    for name in sorted(dir(saveable), key=lambda n: f"~{n}" if n.startswith("_") else n):
        if name.startswith("__") or name in skipped or name in _SKIPPED:
            continue
        try:
            value = getattr(saveable, name)
        except Exception:  # a property that has no value yet
            continue
        if is_saveable(value) or isinstance(value, (list, tuple, dict)):
            yield name, value


def _items(container: Any) -> Iterator[tuple[str, Any]]:
    """The objects of a list or dict with their names: class names with a counter, or ``container``."""
    counts: dict[str, int] = {}
    for value in container.values() if isinstance(container, dict) else container:
        if is_saveable(value):
            yield naming.unique(naming.to_snake_case(type(value).__name__), counts), value
        elif isinstance(value, (list, tuple, dict)):
            yield naming.unique("container", counts), value


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


# --- writing ------------------------------------------------------------------------------------------------------


def write_state(model: Any, writer: Any, assets: Callable[[str], str] | None = None, skipped: Any = None) -> None:
    """Puts the variables of `model` and all below it into the file.

    Args:
        writer: a `WeightsWriter` or one like it.
        assets: gives a folder for the files of the object at a path; None leaves such files out.
        skipped: objects to leave out.
    """
    _write(model, writer, "", {id(x) for x in skipped or ()}, set(), assets)


def _write(value: Any, writer: Any, path: str, seen: set[int], containers: set[int], assets: Any) -> None:
    if isinstance(value, (list, tuple, dict)):
        if id(value) not in containers:
            containers.add(id(value))
            for name, item in _items(value):
                _write(item, writer, _join(path, name), seen, containers, assets)
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    name = getattr(value, "name", None)
    value.save_own_variables(writer.group(path, name if isinstance(name, str) else None))
    if assets is not None and hasattr(value, "save_assets"):
        value.save_assets(assets(path))
    for attribute, child in _children(value):
        _write(child, writer, _join(path, attribute), seen, set(), assets)


# --- reading ------------------------------------------------------------------------------------------------------


class Failures:
    """Objects whose variables did not fit, with the errors."""

    def __init__(self) -> None:
        self.errors: dict[int, tuple[Any, Exception]] = {}

    def report(self, warn_only: bool) -> None:
        """Raises (or warns) in Keras's words when something did not fit."""
        if not self.errors:
            return
        first, error = next(iter(self.errors.values()))
        text = (
            f"A total of {len(self.errors)} objects could not be loaded. Example error message for object {first!r}:\n\n"
            f"{error}\n\nList of objects that could not be loaded:\n{[value for value, _ in self.errors.values()]}"
        )
        if warn_only:
            warnings.warn(text, stacklevel=4)
        else:
            raise ValueError(text)


def read_state(
    model: Any, reader: Any, skip_mismatch: bool = False, skipped: Any = None, assets: Callable | None = None
) -> None:
    """Sets the variables of `model` and all below it from the file.

    Args:
        reader: a `WeightsReader` or one like it.
        skipped: objects to leave as they are.
        assets: the folder with the files of the object at a path, or None.

    Raises:
        ValueError: objects that do not fit, unless `skip_mismatch`.
    """
    failures = Failures()
    _read(model, Source(reader, assets), "", {id(x) for x in skipped or ()}, set(), failures)
    failures.report(skip_mismatch)


class Source:
    """Where variables and other files of objects come from."""

    def __init__(self, reader: Any, assets: Callable | None):
        self.reader, self.assets = reader, assets

    def load(self, value: Any, path: str) -> None:
        store = self.reader.group(path)
        if isinstance(value, State) or store.keys():
            value.load_own_variables(store)
        folder = self.assets(path) if self.assets is not None and hasattr(value, "load_assets") else None
        if folder is not None:
            value.load_assets(folder)


def _read(value: Any, reader: Source, path: str, done: set[int], containers: set[int], failures: Failures) -> None:
    if isinstance(value, (list, tuple, dict)):
        if id(value) not in containers:
            containers.add(id(value))
            for name, item in _items(value):
                _read(item, reader, _join(path, name), done, containers, failures)
        return
    if id(value) in done:
        return
    fits = True
    try:
        reader.load(value, path)
    except UnsafeFileError:
        raise
    except (ValueError, KeyError) as error:
        fits = False
        failures.errors.setdefault(id(value), (value, error))
    before = len(failures.errors)
    for attribute, child in _children(value):
        _read(child, reader, _join(path, attribute), done, set(), failures)
    if fits and len(failures.errors) <= before:
        done.add(id(value))
        failures.errors.pop(id(value), None)
