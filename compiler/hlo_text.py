"""What is read off the text of a compiled executable: its kernels, their sizes, and the graph nodes inside each."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=\{?((?:%[\w.\-]+(?:, )?)+)")
_SHAPE = re.compile(r"\b([a-z]+[0-9]*(?:e[0-9]m[0-9]\w*)?)\[([0-9,]*)\]")
_SCOPE = re.compile(r'op_name="[^"]*?/n(\d+)(?:/|")')
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_BITS = {"pred": 8, "bf16": 16}
FREE = frozenset("parameter constant get-tuple-element tuple bitcast".split())


@dataclasses.dataclass
class Instruction:
    """One instruction of a computation.

    Attributes:
        name, opcode: e.g. "ynn_fusion.3", "fusion". result_bytes: of its result. operands: names of what it reads.
        called: computations inside it. scopes: numbers of the graph nodes that it stands for. target: of a custom call.
    """

    name: str
    opcode: str
    result_bytes: int
    operands: tuple[str, ...]
    called: tuple[str, ...]
    scopes: tuple[int, ...]
    target: str


def scope(number: int) -> str:
    """The name scope under which graph node `number` is traced."""
    return f"n{number}"


def computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """{computation: instructions}, and the name of the entry."""
    found: dict[str, list[Instruction]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            current = head.group(2)
            found[current] = []
            entry = current if head.group(1) else entry
            continue
        made = _INSTRUCTION.match(line)
        if made and current:
            found[current].append(_instruction(made.group(2), made.group(3)))
    return found, entry


def _instruction(name: str, rest: str) -> Instruction:
    opcode = re.search(r"(?:^|[\s})])([a-z][\w\-]*)\(", rest)
    at = opcode.start(1) if opcode else len(rest)
    arguments = rest[at:].partition("(")[2].partition(")")[0]
    called = tuple(c for group in _CALLED.findall(rest) for c in re.findall(r"%([\w.\-]+)", group))
    target = _TARGET.search(rest)
    return Instruction(
        name,
        opcode.group(1) if opcode else "",
        sum(_bytes(kind, dims) for kind, dims in _SHAPE.findall(rest[:at])),
        tuple(re.findall(r"%([\w.\-]+)", arguments)),
        called,
        tuple(int(n) for n in _SCOPE.findall(rest)),
        target.group(1) if target else "",
    )


def _bytes(kind: str, dims: str) -> int:
    count = math.prod(int(d) for d in dims.split(",") if d)
    bits = _BITS.get(kind)
    if bits is None:
        digits = re.search(r"\d+", kind)
        bits = int(digits.group()) if digits else 0
    return int(np.ceil(count * bits / 8))


def inside(instruction: Instruction, all_: dict[str, list[Instruction]]) -> list[Instruction]:
    """`instruction` and everything in the computations that it calls."""
    found, stack = [instruction], list(instruction.called)
    while stack:
        for one in all_.get(stack.pop(), ()):
            found.append(one)
            stack.extend(one.called)
    return found


def kernel_of(instruction: Instruction, parts: list[Instruction]) -> str:
    """What computes it, in a few words: "kerasoft.conv", "xla while", "ynn dot", "xla loop fusion"."""
    if instruction.target:
        return instruction.target
    heavy = [p.opcode for p in parts if p.opcode in ("dot", "convolution")]
    library = "ynn" if "ynn" in instruction.name else "xla"
    if heavy:
        return f"{library} {heavy[0]}" if instruction.opcode != "while" else "xla loop with " + heavy[0]
    if instruction.opcode in ("fusion", "call"):
        return f"{library} fusion"
    return f"xla {instruction.opcode}"
