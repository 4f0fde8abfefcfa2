"""The container that a `StepProgram` travels in.

    container ::= magic[8] version:u32 header_bytes:u64 header_sha256[32] header blob*
    header    ::= UTF-8 JSON object; its "blobs" list holds {"bytes": int, "sha256": hex} for each blob, in order
    blob      ::= bytes:u64 data

Integers are little-endian. Reading checks every length against what is there before it allocates, and every hash;
nothing is executed and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ProgramError

MAGIC = b"KERASOFT"
VERSION = 1
START = 8 + 12 + 32  # bytes before the header
MAX_HEADER_BYTES = 64 << 20
MAX_BLOBS = 4096
MAX_BYTES = 4 << 30


def write(header: Mapping[str, Any], blobs: Sequence[bytes]) -> bytes:
    """The container's bytes; the same for the same header and blobs.

    Raises:
        ProgramError: more than the limits of this version.
    """
    table = [{"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for b in blobs]
    text = json.dumps({**header, "blobs": table}, sort_keys=True, separators=(",", ":")).encode()
    total = sum(map(len, blobs))
    if len(text) > MAX_HEADER_BYTES or len(blobs) > MAX_BLOBS or total > MAX_BYTES:
        raise ProgramError(
            f"the program is too large to ship: header {len(text)} bytes (at most {MAX_HEADER_BYTES}), {len(blobs)} "
            f"parts (at most {MAX_BLOBS}), {total} bytes (at most {MAX_BYTES}); are large arrays constants of the graph?"
        )
    parts = [MAGIC, struct.pack("<IQ", VERSION, len(text)), hashlib.sha256(text).digest(), text]
    for blob in blobs:
        parts += [struct.pack("<Q", len(blob)), blob]
    return b"".join(parts)


def read(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Header and blobs of a container.

    Raises:
        ProgramError: `data` is no container of this version, is cut short, too long, or damaged.
    """
    view = memoryview(data)
    if bytes(view[:8]) != MAGIC:
        raise ProgramError(f"these {len(view)} bytes are no StepProgram: they start with {bytes(view[:8])!r}")
    version, header_bytes = struct.unpack("<IQ", _take(view, 8, 12, "version"))
    if version != VERSION:
        raise ProgramError(
            f"the StepProgram has format version {version}, this kerasoft reads {VERSION}: "
            "install the same kerasoft on the driver and on every executor"
        )
    if header_bytes > MAX_HEADER_BYTES:
        raise ProgramError(f"the StepProgram's header claims {header_bytes} bytes; at most {MAX_HEADER_BYTES}")
    digest = bytes(_take(view, 20, 32, "header's hash"))
    text = bytes(_take(view, START, header_bytes, "header"))
    if hashlib.sha256(text).digest() != digest:
        raise ProgramError("the StepProgram's header is damaged: its SHA-256 differs")
    try:
        header = json.loads(text.decode())
        table = [(int(b["bytes"]), str(b["sha256"])) for b in header["blobs"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProgramError(f"the StepProgram's header is damaged: {error}") from None
    if len(table) > MAX_BLOBS:
        raise ProgramError(f"the StepProgram claims {len(table)} parts; at most {MAX_BLOBS}")
    offset, blobs = START + header_bytes, []
    for i, (expected, sha256) in enumerate(table):
        (size,) = struct.unpack("<Q", _take(view, offset, 8, f"length of part {i}"))
        if size != expected:
            raise ProgramError(f"the StepProgram is damaged: its part {i} has {size} bytes, its header says {expected}")
        blob = bytes(_take(view, offset + 8, size, f"part {i}"))
        if hashlib.sha256(blob).hexdigest() != sha256:
            raise ProgramError(f"part {i} of the StepProgram is damaged: its SHA-256 differs from the header's")
        blobs.append(blob)
        offset += 8 + size
    if offset != len(view):
        raise ProgramError(f"the StepProgram ends after {offset} bytes, got {len(view)}")
    return header, blobs


def _take(view: memoryview, offset: int, size: int, what: str) -> memoryview:
    if offset + size > len(view):
        raise ProgramError(
            f"the StepProgram is cut short: its {what} needs bytes up to {offset + size}, got {len(view)}"
        )
    return view[offset : offset + size]
