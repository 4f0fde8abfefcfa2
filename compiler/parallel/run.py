"""Interprets the phases of a local call: computes, and talks to the other workers of the model through `Links`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from ..errors import ProgramError, ShapeError
from .instructions import (
    Compute,
    Cut,
    Drop,
    Gather,
    GatherParams,
    Instruction,
    Number,
    Receive,
    ScatterGrads,
    Send,
    Sum,
    Types,
)

NUMBERS = {"rows": np.float32, "share": np.float32, "iteration": np.int32}


class Links(Protocol):
    """What the runtime gives: exchanges with the other ranks of the model's and of the data's group.

    Messages between two coordinates arrive in the order in which they were sent. `send` may keep the arrays until it
    returns, not longer; `sum` and `gather` give arrays that stay as they are until they are dropped.
    """

    def sum(self, axis: str, vector: np.ndarray) -> np.ndarray:
        """float32[n] -> float32[n], the sum over the ranks along `axis` ("model" or "data"), in the order of ranks."""

    def gather(self, axis: str, array: np.ndarray) -> np.ndarray:
        """Everybody's array, in the order of ranks, on a new first axis."""

    def send(self, to: int, arrays: Sequence[np.ndarray]) -> None:
        """To a coordinate of the same replica."""

    def receive(self, source: int, types: Types) -> Sequence[np.ndarray]:
        """From a coordinate of the same replica, of these shapes and dtypes."""

    def scatter(self, axis: str, vector: np.ndarray, name: str) -> np.ndarray:
        """float32[n * ranks] -> float32[n]: the own part, in the order of ranks, of the sum over the ranks along `axis`."""


def run(phase: Sequence[Instruction], environment: dict[str, Any], links: Links) -> None:
    """Executes the instructions in order; they read and extend `environment`.

    Raises:
        ShapeError: an argument is missing or of another shape than the program was made for.
        ProgramError: an instruction of an unknown kind.
    """
    for name, dtype in NUMBERS.items():
        if environment.get(name) is not None:
            environment[name] = np.asarray(environment[name], dtype)
    for instruction in phase:
        if isinstance(instruction, Compute):
            _compute(instruction, environment)
        elif isinstance(instruction, Cut):
            vector = np.asarray(environment[instruction.of])
            for name, (start, stop) in zip(instruction.values, instruction.bounds, strict=True):
                environment[name] = vector[start:stop]
        elif isinstance(instruction, Number):
            environment[instruction.name] = np.int32(instruction.value)
        elif isinstance(instruction, Sum):
            _sum(instruction, environment, links)
        elif isinstance(instruction, Gather):
            _gather(instruction, environment, links)
        elif isinstance(instruction, Send):
            links.send(instruction.to, [np.asarray(environment[name]) for name in instruction.values])
        elif isinstance(instruction, Receive):
            arrays = links.receive(instruction.source, instruction.types)
            environment.update(zip(instruction.values, arrays, strict=True))
        elif isinstance(instruction, GatherParams):
            own = np.asarray(environment["params"])[instruction.start : instruction.stop]
            whole = np.asarray(links.gather("model", own)).reshape(-1)
            environment[f"params/{instruction.group}"] = whole[: instruction.size]
        elif isinstance(instruction, ScatterGrads):
            vector = np.asarray(environment.pop(f"grads/{instruction.group}"))
            environment[f"slice/{instruction.group}"] = links.scatter("model", vector, f"slice/{instruction.group}")
        elif isinstance(instruction, Drop):
            for name in instruction.names:
                environment.pop(name, None)
        else:
            raise ProgramError(f"unknown instruction {instruction!r}")


def _compute(instruction: Compute, environment: dict[str, Any]) -> None:
    try:
        arrays = [environment[name] for name in instruction.reads]
        out = instruction.executable()(*arrays)
    except KeyError as error:
        raise ShapeError(f"a local call needs {error.args[0]!r}, got nothing under this name") from None
    except (TypeError, ValueError) as error:
        _explain(instruction, environment)
        raise ShapeError(f"a local call: {error}") from error
    environment.update(zip(instruction.writes, out, strict=True))


def _explain(instruction: Compute, environment: Mapping[str, Any]) -> None:
    for name, (shape, dtype) in zip(instruction.reads, instruction.types):
        value = environment[name]
        there = None if value is None else (tuple(np.shape(value)), str(getattr(value, "dtype", type(value).__name__)))
        if there != (shape, dtype):
            found = "nothing" if there is None else f"{there[1]}{list(there[0])}"
            raise ShapeError(f"a local call: {name} needs {dtype}{list(shape)}, got {found}")


def _sum(instruction: Sum, environment: dict[str, Any], links: Links) -> None:
    flat = [np.asarray(environment[name], np.float32).ravel() for name in instruction.values]
    total = links.sum(instruction.axis, flat[0] if len(flat) == 1 else np.concatenate(flat))
    offset = 0
    for name, (shape, dtype) in zip(instruction.values, instruction.types):
        size = math.prod(shape)
        environment[name] = total[offset : offset + size].reshape(shape).astype(jnp.dtype(dtype), copy=False)
        offset += size


def _gather(instruction: Gather, environment: dict[str, Any], links: Links) -> None:
    flat = [np.asarray(environment[name]).ravel() for name in instruction.values]
    every = links.gather(instruction.axis, flat[0] if len(flat) == 1 else np.concatenate(flat))
    offset = 0
    for name, (shape, _) in zip(instruction.values, instruction.types):
        size = math.prod(shape[1:])
        environment[name] = np.ascontiguousarray(every[:, offset : offset + size]).reshape(shape)
        offset += size
