"""How many workers share one copy of a model, and in which way."""

from __future__ import annotations

import dataclasses

from ..errors import CompilerError


class ParallelError(CompilerError, ValueError):
    """A model that cannot be cut as asked."""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The workers that share one copy of a model; one of the three ways is taken.

    Attributes:
        model: workers among which tensors are split (1: none are).
        pipeline: stages, a worker each (1: no pipeline).
        zero: 3 if parameters are kept in slices by the data-parallel workers themselves, else 0. slices: how many workers.

    Raises:
        ParallelError: more than one way at once, or numbers that are no numbers of workers.

    >>> Mesh(pipeline=4).coordinates, Mesh(zero=3, slices=2).coordinates
    (4, 2)
    """

    model: int = 1
    pipeline: int = 1
    zero: int = 0
    slices: int = 1

    def __post_init__(self) -> None:
        for name in ("model", "pipeline", "slices"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ParallelError(f"{name}= is a number of workers, 1 or more; got {value!r}")
        if self.zero not in (0, 3):
            raise ParallelError(f"zero= is 0 or 3, got {self.zero!r}; slots are kept in slices (stage 1) in any case")
        if (self.model > 1) + (self.pipeline > 1) + (self.zero > 0) > 1:
            raise ParallelError(
                f"one of model=, pipeline= and zero= at a time; got model={self.model}, pipeline={self.pipeline}, "
                f"zero={self.zero}"
            )

    @property
    def coordinates(self) -> int:
        """Workers of one replica, each with a program of its own."""
        return self.slices if self.zero else self.model * self.pipeline
