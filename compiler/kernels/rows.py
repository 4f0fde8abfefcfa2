"""Rows of large tables: taken out, put back, added up; native if the library is there. And Adam's steps on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..rows import AdamRows
from . import bridge


def _call(name: str, like: Any, **settings: Any) -> Any:
    return jax.ffi.ffi_call(f"kerasoft.{name}", jax.ShapeDtypeStruct(like, np.float32), **settings)


def take_rows(table: Any, ids: Any) -> Any:
    """float32[l, d]: rows of a table (n, d) at int32[l] ids: negative ones count from the end, rows outside are NaN."""
    if bridge.loaded("native"):
        return _call("take_rows", (ids.size, table.shape[1]))(table, ids)
    return jnp.take(table, ids, axis=0)


def put_rows(table: Any, ids: Any, rows: Any) -> Any:
    """A table (n, d) with rows put at int32[l] ids; ids >= n are left out, no other stands twice."""
    if bridge.loaded("native"):
        return _call("put_rows", table.shape, input_output_aliases={0: 0})(table, ids, rows)
    return table.at[ids].set(rows, mode="drop")


def sum_rows(rows: Any, owner: Any) -> Any:
    """Zeros (l, d) with row i added to row owner[i], in order; owners >= l are left out."""
    if bridge.loaded("native"):
        return _call("sum_rows", rows.shape)(rows, owner)
    return jnp.zeros_like(rows).at[owner].add(rows, mode="drop")


# --- Adam on the rows looked up, natively only ----------------------------------------------------------------------------
#
# A table is the three arrays (param, momentum, velocity) of rows. chained: what `chain_rows` says of a batch's lookups.


def chain_rows(ids: Any, last: Any, places: Any, iteration: Any) -> tuple[Any, Any, Any]:
    """Which rows int32[l] ids look up, and where: ``(chained, last, places)``, the second as after the step `iteration`.

    Args:
        last, places: int32[n], of `Placed`.
    """
    like = [jax.ShapeDtypeStruct(shape, np.int32) for shape in ((5 * ids.size + 1,), last.shape, places.shape)]
    call = jax.ffi.ffi_call("kerasoft.chain_rows", like, input_output_aliases={1: 1, 2: 2})
    chained, last, places = call(ids, last, places, iteration)
    return chained, last, places


def owners(chained: Any) -> Any:
    """int32[l]: for each position the first one of the same id."""
    lookups = (chained.size - 1) // 5
    return chained[4 * lookups : 5 * lookups]


def take_adam_rows(
    adam: AdamRows, table: Sequence[Any], chained: Any, coefficients: Sequence[Any], iteration: Any, base: Any
) -> Any:
    """float32[l, d]: the weights that are looked up, after `iteration` steps; NaN for ids outside of the table."""
    lookups = (chained.size - 1) // 5
    call = jax.ffi.ffi_call("kerasoft.take_adam_rows", jax.ShapeDtypeStruct((lookups, table[0].shape[1]), np.float32))
    return call(*table, chained, iteration, base, *coefficients, **_idle(adam))


def step_adam_rows(
    adam: AdamRows,
    table: Sequence[Any],
    chained: Any,
    rows: Any,
    gradients: Any,
    iteration: Any,
    rate: Any,
    decay: Any,
) -> tuple[Any, Any, Any]:
    """The table with the step `iteration` made on the rows looked up.

    Args:
        rows: what `take_adam_rows` gave. gradients: float32[l, d].
        rate: bias corrected. decay: the part that the weights lose before the step.
    """
    settings = {"more_1": np.float32(1.0 - adam.beta_1), "more_2": np.float32(1.0 - adam.beta_2)}
    settings["clip"] = np.float32(adam.clip or np.inf)
    call = _in_place("step_adam_rows", table)
    return tuple(call(*table, chained, rows, gradients, iteration, rate, decay, **_betas(adam), **settings))


def settle_adam_rows(
    adam: AdamRows, table: Sequence[Any], last: Any, coefficients: Sequence[Any], iteration: Any, base: Any
) -> tuple[Any, Any, Any]:
    """The table with all rows as after `iteration` steps."""
    return tuple(_in_place("settle_adam_rows", table)(*table, last, iteration, base, *coefficients, **_idle(adam)))


def _in_place(name: str, table: Sequence[Any]) -> Any:
    like = [jax.ShapeDtypeStruct(part.shape, np.float32) for part in table]
    return jax.ffi.ffi_call(f"kerasoft.{name}", like, input_output_aliases={i: i for i in range(len(table))})


def _betas(adam: AdamRows) -> dict[str, Any]:
    logs = [np.float32(math.log(b) if b > 0 else -np.inf) for b in (adam.beta_1, adam.beta_2)]
    return {"log_beta_1": logs[0], "log_beta_2": logs[1], "epsilon": np.float32(adam.epsilon)}


def _idle(adam: AdamRows) -> dict[str, Any]:
    return _betas(adam) | {"scales": np.array(adam.scales, np.float32), "decays": adam.decays}
