"""Errors of the compiler.

CompilerError
├── ShapeError      inputs whose shapes or dtypes an op cannot take   (also a ValueError)
├── GradientError   a gradient was asked through an op that has none
├── VerifyError     a graph broke a rule of the grammar; names the pass that broke it
├── ParseError      text that is no graph; gives line and column
└── ProgramError    bytes that are no StepProgram of this version
"""

from __future__ import annotations


class CompilerError(Exception):
    """Base of all compiler errors."""


class ShapeError(CompilerError, ValueError):
    """Inputs whose shapes or dtypes an op cannot take."""


class GradientError(CompilerError):
    """A gradient was asked through an op that has none."""


class VerifyError(CompilerError):
    """A graph broke a rule of the grammar."""


class ParseError(CompilerError, ValueError):
    """Text that is no graph."""


class ProgramError(CompilerError, ValueError):
    """Bytes that are no `StepProgram` of this version."""
