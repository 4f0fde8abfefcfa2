"""Writes docs/surface.md: every public name of Keras 3, whether it is here, since when, and what differs.

    python docs/surface.py          # needs Keras, the oracle of the tests

What cannot be read off the two libraries (differences, reasons for leaving out) is said in docs/surface.toml.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pathlib
import sys
import tomllib

os.environ.setdefault("KERAS_BACKEND", "jax")
FOLDER = pathlib.Path(__file__).resolve().parent
NAMESPACES = (
    "", "layers", "losses", "metrics", "optimizers", "optimizers.schedules", "callbacks", "initializers",
    "regularizers", "constraints", "activations", "models", "saving", "random", "ops", "utils", "applications",
    "datasets", "backend", "config", "dtype_policies", "export", "mixed_precision", "preprocessing",
    "preprocessing.image", "preprocessing.sequence", "quantizers", "tree", "visualization", "wrappers", "distillation",
    "distribution",
)  # fmt: skip
SINCE = "0.1"


def namespace(root: str, name: str):
    """A module of Keras or kerasoft; None where there is none."""
    try:
        return importlib.import_module(f"{root}.{name}" if name else root)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(root), name, None)


def public(module, modules: bool = False) -> set[str]:
    """Its public names; of modules only where these are what it offers."""
    names = getattr(module, "__all__", None) or dir(module)
    kept = {n for n in names if not n.startswith("_")}
    return {n for n in kept if modules == inspect.ismodule(getattr(module, n, None))}


def has(module, name: str) -> bool:
    """Whether it has this name, also as a module that is imported only when asked for."""
    if module is None:
        return False
    try:
        getattr(module, name)
    except AttributeError:
        return False
    return True


def rows(name: str, said: dict) -> list[tuple[str, str, str]]:
    """(name, since, difference) of each public name of one namespace, ours beside Keras's."""
    theirs, ours = namespace("keras", name), namespace("kerasoft", name)
    prefix = f"{name}." if name else ""
    modules = name in ("datasets",)
    found = []
    for each in sorted(public(theirs, modules), key=lambda n: (n.lower(), n)):
        full = prefix + each
        if has(ours, each):
            found.append((each, SINCE, said["differences"].get(full, "")))
        else:
            whole = said["left_out"].get(name)
            reason = said["left_out"].get(full) or (f"left out: {whole}" if whole else None)
            found.append((each, "–", reason or "missing"))
    for each in sorted(public(ours, modules) - public(theirs, modules) if ours else (), key=lambda n: (n.lower(), n)):
        if getattr(ours, "__all__", None) and name and each[0].isupper():
            found.append((each, SINCE, said["ours"].get(prefix + each, "not in Keras")))
    return found


def page() -> str:
    """The text of docs/surface.md."""
    said = tomllib.loads((FOLDER / "surface.toml").read_text())
    import keras

    tables = {name: rows(name, said) for name in NAMESPACES}
    lines = [
        "# Every public name of Keras, and where kerasoft differs",
        "",
        f"Compared with Keras {keras.__version__} by `python docs/surface.py`; a test keeps this page true. `since` is the",
        "first version of kerasoft with the name; no text under `difference` means the same names, defaults and numbers.",
        "What differs in general (RDDs, random numbers, files): [differences](differences.md).",
        "",
        "| namespace | of Keras | here | only here |",
        "|---|---|---|---|",
    ]
    for name, table in tables.items():
        theirs = public(namespace("keras", name), name in ("datasets",))
        here = sum(since != "–" and each in theirs for each, since, _ in table)
        more = sum(each not in theirs for each, _, _ in table)
        lines.append(f"| [`{shown(name)}`](#{anchor(name)}) | {len(theirs)} | {here} | {more} |")
    for name, table in tables.items():
        lines += ["", f"## {shown(name)}", "", "| name | since | difference |", "|---|---|---|"]
        lines += [f"| `{each}` | {since} | {text} |" for each, since, text in table]
    return "\n".join(lines) + "\n"


def shown(name: str) -> str:
    return f"keras.{name}" if name else "keras"


def anchor(name: str) -> str:
    return shown(name).replace(".", "")


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))
    (FOLDER / "surface.md").write_text(page())
