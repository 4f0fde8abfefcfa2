"""A graph of floats becomes one of 8-bit integers, after training, with ranges measured on sample rows.

`regions` finds what is computed in integers, `measure` makes the graphs that measure ranges and errors for each row,
`plan` says which values are integers and of which scale, `rewrite` makes the graph. See
docs/design/0012-int8-inference.md.
"""

from .measure import compare, local_errors, row_errors, row_ranges
from .plan import Plan, Scale, scales_of
from .regions import Region, Weights, find_regions
from .rewrite import quantised_graph, settled

__all__ = [
    "Plan",
    "Region",
    "Scale",
    "Weights",
    "compare",
    "find_regions",
    "local_errors",
    "quantised_graph",
    "row_errors",
    "row_ranges",
    "scales_of",
    "settled",
]
