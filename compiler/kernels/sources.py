"""The C++ sources, by a number: libraries carry that of the sources they were built from. Also run by setup.py."""

from __future__ import annotations

import hashlib
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent / "cpp"


def fingerprint(folder: pathlib.Path = FOLDER) -> str | None:
    """Of all C++ files that are ours; None where there are none, as in an installed wheel."""
    files = [f for f in sorted(folder.rglob("*")) if f.suffix in (".cpp", ".h") and "third_party" not in f.parts]
    if not files:
        return None
    found = hashlib.sha256()
    for file in files:
        found.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]
