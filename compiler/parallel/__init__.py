"""Model parallelism: a model's graphs cut into one program for each of several workers that hold parts of it."""

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
)
from .local_program import LocalCall, LocalProgram
from .mesh import Mesh, ParallelError
from .partition import partition
from .plan import Plan
from .run import Links, run

__all__ = [
    "Compute",
    "Cut",
    "Drop",
    "Gather",
    "GatherParams",
    "Instruction",
    "Links",
    "LocalCall",
    "LocalProgram",
    "Mesh",
    "Number",
    "ParallelError",
    "Plan",
    "Receive",
    "ScatterGrads",
    "Send",
    "Sum",
    "partition",
    "run",
]
