"""Plans: which executable on disk a step comes to, known before its gradients, its passes and the choice of its kernels.

The fingerprint of an executable holds the graphs after the passes and the kernel of each node, which take longer to work
out than the executable takes to be read. They follow from the graphs before, the settings and the sources; and, for
kernels chosen by measuring, from the times on this machine. So a file `plan-<fingerprint of these>` says which executable
was found to belong to them, with the choices that times could decide and a digest of what was known of these. It holds as
long as the same is known.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from typing import Any

from . import stored
from .fingerprint import Recipe, fingerprint
from .kernels import settings
from .kernels.choice import Chooser
from .kernels.timing import decided
from .options import VARIANTS

_MAGIC = b"kerasoft plan 1\n"


@dataclasses.dataclass(frozen=True)
class Found:
    """An executable that a plan led to, and the variant of XLA's own lowerings that it was compiled under."""

    executable: Any
    variant: str


def name(before: Recipe, variant: str | None, arguments: Sequence[Any], wanted: dict[str, Any]) -> str | None:
    """64 hex digits; None if something cannot be written down.

    Args:
        before: what the function is made of before the passes. variant: of XLA's own lowerings, if it is settled already.
        arguments, wanted: as for `fingerprint`.
    """
    rest = ("before the passes", *before.rest, settings.budget_s(), variant)
    return fingerprint(dataclasses.replace(before, rest=rest), None, arguments, wanted)


def find(name: str, arguments: Sequence[Any]) -> Found | None:
    """The executable that the plan `name` leads to; None if there is no plan, it holds no longer, or its executable is gone."""
    file = stored.path(name, "plan")
    if file is None:
        return None
    try:
        plan = json.loads(bytes(stored.read_whole(file, _MAGIC)))
        step, variant, cases, digest = (plan[key] for key in ("step", "variant", "cases", "decided"))
        if not stored.is_name(step) or variant not in VARIANTS:
            raise ValueError("it is no plan")
        there = stored.path(step) if decided(cases) == digest else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"ignoring the plan of a step in {file}: {error}. It is made anew.", stacklevel=2)
        return None
    executable = None if there is None else stored.kept(there, arguments)
    return None if executable is None else Found(executable, variant)


def keep(name: str, step: str, chooser: Chooser) -> None:
    """Writes the plan `name` if the executable `step` is on disk; a folder that cannot be written to costs nothing more.

    Args:
        chooser: of the graph that the executable computes.
    """
    file, there = stored.path(name, "plan"), stored.path(step)
    if file is None or there is None or not there.exists():
        return
    plan = {"step": step, "variant": chooser.variant, "cases": chooser.asked, "decided": decided(chooser.asked)}
    try:
        stored.write_whole(file, _MAGIC, json.dumps(plan).encode())
    except OSError as error:
        warnings.warn(f"the plan of a step cannot be kept in {file.parent}: {error}", stacklevel=2)
