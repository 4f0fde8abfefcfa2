"""What /proc/cpuinfo says of the processor."""

from __future__ import annotations

import functools
import pathlib
import platform

LEVELS = {"v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"), "v3": ("avx2", "fma", "bmi2", "f16c")}
"""What an x86-64 processor needs for the libraries of each instruction set, best first."""


@functools.cache
def fields() -> dict[str, str]:
    """The first processor's lines by name; empty where there is no such file."""
    found: dict[str, str] = {}
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon:
                found.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return found


def vendor() -> str:
    """E.g. "GenuineIntel", "AuthenticAMD"; "" where unknown."""
    return fields().get("vendor_id", "")


def model() -> str:
    """The processor's name and numbers, e.g. "AMD EPYC 9655 family 26 model 2"."""
    known = fields()
    name = known.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{of} {known[key]}" for of, key in (("family", "cpu family"), ("model", "model")) if key in known]
    return " ".join([name, *numbers])


def flags() -> frozenset[str]:
    """What the processor can do, e.g. "avx2", "avx512_vnni"."""
    return frozenset(fields().get("flags", "").split())


def levels() -> list[str]:
    """Which of `LEVELS` this processor has, best first."""
    return [level for level, wanted in LEVELS.items() if flags().issuperset(wanted)]
