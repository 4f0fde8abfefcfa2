"""Rows of the op contract: shapes, creation, sums over axes, linear algebra, indexing, sparse rows."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.special
from kerasoft.compiler.ir import Node
from kerasoft.compiler.ops import (
    activations,
    arithmetic,
    creation,
    indexing,
    linalg,
    reduce,
    shape,
    sparse,
)
from op_contract import (
    B,
    Input,
    apart,
    b,
    bools,
    definite,
    ints,
    real,
    row,
)

# --- shape --------------------------------------------------------------------------------------------------------

s = shape
row("cast", lambda x: s.cast(x, "int32"), apart(b, 3), want=lambda x: x.astype(np.int32))
row("cast", lambda x: s.cast(s.cast(x, "bfloat16"), "float32"), ints(9, b, 3), want=np.float32, label="bfloat16")
row("zeros_like", lambda x: s.zeros_like(x), real(b, 3), want=np.zeros_like)
row("ones_like", lambda x: s.ones_like(x, dtype="int32"), real(b, 3), want=lambda x: np.ones_like(x, np.int32))
row("reshape", lambda x: x.reshape(-1, 2), real(b, 4, 3), want=lambda x: x.reshape(-1, 2))
row("reshape", lambda x: s.squeeze(s.expand_dims(x, (0, -1)), 0), real(b, 3), want=lambda x: x[..., None], label="thin")
row("broadcast_to", lambda x: s.broadcast_to(x, shape=(2, *x.shape[:1], 4)), real(b, 1), want=lambda x: np.stack([np.tile(x, (1, 4))] * 2))  # fmt: skip
row("sum", lambda x: s.sum(x), real(b, 3), want=np.sum)
row("sum", lambda x: s.sum(x, axis=(0, -1), keepdims=True), real(b, 2, 3), want=lambda x: x.sum((0, 2), keepdims=True), label="axes")  # fmt: skip
row("transpose", lambda x: s.transpose(x, (2, 0, 1)), real(b, 2, 3), want=lambda x: x.transpose(2, 0, 1))
row("transpose", lambda x: s.moveaxis(x, (0, 1), (-1, 0)), real(b, 2, 3), want=lambda x: np.moveaxis(x, (0, 1), (-1, 0)), label="moveaxis")  # fmt: skip
row("transpose", lambda x: s.swapaxes(x, 0, -1), real(b, 2, 3), want=lambda x: x.swapaxes(0, 2), label="swapaxes")
row("concatenate", lambda x, y: s.concatenate([x, y, x], axis=-1), real(b, 2), real(b, 3), want=lambda x, y: np.hstack([x, y, x]))  # fmt: skip
row("concatenate", lambda x, y: s.stack([x, y], axis=-1), real(b, 2), real(b, 2), want=lambda x, y: np.stack([x, y], -1), label="stack")  # fmt: skip
row("concatenate", lambda x, y: s.concatenate([x, y]), real(b, 2), real(2, 2), want=lambda x, y: np.vstack([x, y]), label="unknown size")  # fmt: skip
row("strided_slice", lambda x: x[1:, ::2], real(b, 5), want=lambda x: x[1:, ::2])
row("strided_slice", lambda x: x[:-1, 1:4:2], real(b, 6), want=lambda x: x[:-1, 1:4:2], label="unused cells after")
row("strided_slice", lambda x: s.split(x, [1, 4], axis=1)[1], real(b, 6), want=lambda x: x[:, 1:4], label="split at")
row("strided_slice", lambda x: s.split(x, 3, axis=-1)[2], real(b, 6), want=lambda x: x[:, 4:], label="split in")
row("strided_slice", lambda x: s.slice(x, (0, 1), (2, 3)), real(4, 6), want=lambda x: x[:2, 1:4], label="slice")
row("pad", lambda x: s.pad(x, ((0, 0), (1, 2)), constant_values=7), real(b, 3), want=lambda x: np.pad(x, ((0, 0), (1, 2)), constant_values=7))  # fmt: skip
row("pad", lambda x: s.pad_op(x, config=((1, 0, 0), (0, 2, 1)), value=0.0), real(b, 3), want=lambda x: np.pad(np.insert(x, [1, 2], 0, 1), ((1, 0), (0, 2))), label="between")  # fmt: skip
for _mode in ("reflect", "symmetric", "edge", "wrap"):
    row("pad_mirror", lambda x, m=_mode: s.pad(x, ((0, 0), (2, 1)), m), real(b, 4), want=lambda x, m=_mode: np.pad(x, ((0, 0), (2, 1)), m), label=_mode)  # fmt: skip
row("flip", lambda x: s.flip(x, axis=1), real(b, 3), want=lambda x: x[:, ::-1])
row("flip", lambda x: s.flip(x), real(b, 3), want=lambda x: x[::-1, ::-1], label="all")
row("roll", lambda x: s.roll(x, shift=2, axis=1), real(b, 5), want=lambda x: np.roll(x, 2, 1))
row("roll", lambda x: s.roll(x, shift=(1, -1), axis=(0, 1)), real(3, 5), want=lambda x: np.roll(x, (1, -1), (0, 1)), label="two")  # fmt: skip
row("broadcast_to", lambda x: s.repeat(x, 2, axis=0), real(b, 3), want=lambda x: np.repeat(x, 2, 0), label="repeat")
row("broadcast_to", lambda x: s.tile(x, (2, 1, 3)), real(b, 3), want=lambda x: np.tile(x, (2, 1, 3)), label="tile")

# --- creation -----------------------------------------------------------------------------------------------------

c = creation
row("full", lambda x: x + c.full((x.shape[0], 2), 3), real(b, 1), want=lambda x: np.tile(x + 3, 2))
row("iota", lambda x: x * c.arange(x.shape[1]), real(2, b), want=lambda x: x * np.arange(x.shape[1]))
row("iota", lambda x: x + c.arange(1, 2 * x.shape[1] + 1, 2), real(2, b), want=lambda x: x + 1 + 2 * np.arange(x.shape[1]), label="step")  # fmt: skip
row("iota", lambda x: x * c.eye(x.shape[1], k=1), real(b, b), want=lambda x: x * np.eye(B, k=1), label="eye")
row("tril", lambda x: c.tril(x, -1), real(b, 3, 4), want=lambda x: np.tril(x, -1))
row("triu", lambda x: c.triu(x, 1), real(b, 3, 4), want=lambda x: np.triu(x, 1))
row("diagonal", lambda x: c.diagonal(x, 1, 1, 2), real(b, 3, 4), want=lambda x: np.diagonal(x, 1, 1, 2))
row("diag", lambda x: c.diag(x, -1), real(3), want=lambda x: np.diag(x, -1))

# --- reduce -------------------------------------------------------------------------------------------------------

r = reduce
for _name in ("mean", "max", "min", "prod"):
    _f, _want = getattr(r, _name), getattr(np, _name)
    row(_name, _f, apart(b, 3), want=_want, tolerance=1e-4)
    row(_name, lambda x, f=_f: f(x, axis=0), apart(b, 3), want=lambda x, f=_want: f(x, 0), label="rows", tolerance=1e-4)  # fmt: skip
    row(_name, lambda x, f=_f: f(x, axis=(-1, 1), keepdims=True), apart(b, 2, 3), want=lambda x, f=_want: f(x, (1, 2), keepdims=True), label="axes", tolerance=1e-4)  # fmt: skip
row("max", lambda x: r.max(activations.relu(x), axis=1), real(b, 6), want=lambda x: np.maximum(x, 0).max(1), label="of relu")  # fmt: skip
for _name, _f, _want in (("all", r.all, np.all), ("any", r.any, np.any)):
    row(_name, lambda x, f=_f: f(x, axis=1), bools(b, 2), want=lambda x, f=_want: f(x, 1))
row("count_nonzero", lambda x: r.count_nonzero(x, axis=1), ints(2, b, 4), want=lambda x: np.count_nonzero(x, 1).astype("i"))  # fmt: skip
for _name, _f, _want in (("argmax", r.argmax, np.argmax), ("argmin", r.argmin, np.argmin)):
    row(_name, lambda x, f=_f: f(x, axis=-1), ints(3, b, 6), want=lambda x, f=_want: f(x, -1).astype("i"))  # fmt: skip
row("logsumexp", lambda x: r.logsumexp(x, axis=1), real(b, 4), want=lambda x: scipy.special.logsumexp(x, 1))
row("mean", lambda x: r.var(x, axis=(0, 1)), real(b, 2, 3), want=lambda x: x.var((0, 1)), label="var")
row("mean", lambda x: r.std(x, axis=-1, keepdims=True), real(b, 5), want=lambda x: x.std(-1, keepdims=True), label="std")  # fmt: skip
row("cumsum", lambda x: r.cumsum(x, axis=1), real(b, 4), want=lambda x: x.cumsum(1))
row("cumsum", lambda x: r.cumsum(x, axis=0, reverse=True), real(b, 4), want=lambda x: x[::-1].cumsum(0)[::-1], label="back")  # fmt: skip
row("cumprod", lambda x: r.cumprod(x, axis=-1), real(b, 4), want=lambda x: x.cumprod(-1))
row("cummax", lambda x: r.cummax(x, axis=-1), apart(b, 4), want=lambda x: np.maximum.accumulate(x, -1))
row("sort", lambda x: r.sort(x, axis=0), apart(b, 4), want=lambda x: np.sort(x, 0))
row("argsort", lambda x: r.argsort(x), ints(3, b, 5), want=lambda x: np.argsort(x, -1, kind="stable").astype("i"))
row("top_k", lambda x: r.top_k(x, 2), apart(b, 5), want=lambda x: (-np.sort(-x)[:, :2], np.argsort(-x)[:, :2].astype("i")))  # fmt: skip
row("in_top_k", lambda t, p: r.in_top_k(t, p, k=2), ints(5, b), apart(b, 5), want=lambda t, p: np.array([k in np.argsort(-q)[:2] for k, q in zip(t, p)]))  # fmt: skip
_ids = Input((b,), lambda rng, s: np.array([2, 0, 2], np.int32))


def _segments(x, ids, count):
    out = np.zeros((count, *x.shape[1:]), x.dtype)
    np.add.at(out, ids, x)
    return out


row("segment_sum", lambda x, i: r.segment_sum(x, i, count=4), real(b, 2), _ids, want=lambda x, i: _segments(x, i, 4))
row("segment_sum", lambda x, i: r.segment_sum(x, i, count=2), real(b, 2), _ids, want=lambda x, i: _segments(x, i, 4)[:2], label="outside")  # fmt: skip
row("segment_max", lambda x, i: r.segment_max(x, i, count=3), apart(b, 2), _ids, want=lambda x, i: np.stack([x[1], [-np.inf] * 2, np.maximum(x[0], x[2])]), differences=False)  # fmt: skip
row("bincount", lambda x: r.bincount(x, length=5), ints(4, b), want=lambda x: np.bincount(x, minlength=5).astype("i"))
row("dimension", lambda x: x * arithmetic.cast(r.dimension(x.shape[0]), "float32") if isinstance(x, Node) else x * float(x.shape[0]), real(b, 2), want=lambda x: x * len(x))  # fmt: skip

# --- linalg -------------------------------------------------------------------------------------------------------

m = linalg
row("matmul", m.matmul, real(b, 3), real(3, 4), want=np.matmul)
row("matmul", m.matmul, real(b, 2, 3), real(3, 4), want=np.matmul, label="rows of a batch")
row("matmul", m.matmul, real(b, 2, 3), real(b, 3, 4), want=np.matmul, label="batch")
row("matmul", lambda x, y: x @ y, real(2, b, 1, 2, 3), real(1, 3, 4), want=np.matmul, label="broadcast batch")
row("matmul", m.matmul, real(3), real(b, 3, 4), want=np.matmul, label="vector left")
row("matmul", m.matmul, real(b, 2, 3), real(3), want=np.matmul, label="vector right")
row("matmul", m.dot, real(3), real(3), want=np.dot, label="dot of vectors")
for _equation, _x, _y in [
    ("bij,jk->bik", real(b, 2, 3), real(3, 4)),
    ("bthd,bshd->bhts", real(b, 2, 2, 3), real(b, 4, 2, 3)),
    ("ij,kj->k", real(b, 3), real(2, 3)),  # i summed within the first operand alone
    ("...i,i...->...", real(b, 3), real(3, 1)),
    ("ab,bc", real(b, 3), real(3, 2)),
]:
    row("einsum", lambda x, y, e=_equation: m.einsum(e, x, y), _x, _y, want=lambda x, y, e=_equation: np.einsum(e, x, y), label=_equation)  # fmt: skip
row("einsum", lambda x, y: m.tensordot(x, y, axes=([2, 1], [0, 1])), real(b, 2, 3), real(3, 2, 4), want=lambda x, y: np.tensordot(x, y, ([2, 1], [0, 1])), label="tensordot")  # fmt: skip
row("einsum_diagonal", lambda x: m.einsum("bii->bi", x), real(b, 3, 3), want=lambda x: np.einsum("bii->bi", x))
row("sqrt", lambda x: m.norm(x, axis=1), real(b, 3), want=lambda x: np.linalg.norm(x, axis=1), label="norm")
row(
    "power", lambda x: m.norm(x, ord=3, axis=1), real(b, 3), want=lambda x: np.linalg.norm(x, 3, axis=1), label="norm 3"
)
row("cholesky", m.cholesky, definite(3, b), want=np.linalg.cholesky, differences=False)
row("inv", m.inv, definite(3, b), want=np.linalg.inv)
row("det", m.det, definite(3, b), want=np.linalg.det, tolerance=1e-3)
row("solve", m.solve, definite(3, b), real(b, 3, 2), want=np.linalg.solve)
row("solve_triangular", lambda x, y: m.solve_triangular(x, y, lower=True), definite(3), real(3, 2), want=lambda x, y: scipy.linalg.solve_triangular(x, y, lower=True))  # fmt: skip
row("qr", lambda x: arithmetic.absolute(m.qr(x)[1]), real(b, 4, 3), want=lambda x: np.abs(np.stack([np.linalg.qr(k)[1] for k in x])))  # fmt: skip
row("svd", lambda x: m.svd(x, full_matrices=False)[1], real(b, 3, 2), want=lambda x: np.linalg.svd(x)[1])
row("eigh", lambda x: m.eigh(x)[0], definite(3, b), want=lambda x: np.linalg.eigh(x)[0], tolerance=1e-4, differences=False)  # fmt: skip

# --- indexing -----------------------------------------------------------------------------------------------------

i = indexing
row("take", lambda x, k: i.take(x, k, axis=1), real(b, 4), ints(4, 2, 3), want=lambda x, k: np.take(x, k, 1))
row("take", lambda x, k: i.take(x, k), real(3, 4), ints(12, b), want=np.take, label="flat")
row("embedding_lookup", i.embedding_lookup, real(5, 2), ints(5, b, 3), want=lambda t, k: t[k])
row("scatter_rows", lambda x, k: i.scatter_rows(x, k, count=4), real(b, 2), _ids, want=lambda x, k: _segments(x, k, 4))
row("take_along_axis", lambda x, k: i.take_along_axis(x, k, axis=1), real(b, 4), ints(4, b, 2), want=lambda x, k: np.take_along_axis(x, k, 1))  # fmt: skip


def _placed(dy, k):
    out = np.zeros((B, 5), np.float32)
    np.add.at(out, (np.arange(B)[:, None], k), dy)
    return out


row("scatter_along_axis", lambda d, k: i.scatter_along_axis(d, k, axis=1, shape=(d.shape[0], 5)), real(b, 4), ints(5, b, 4), want=_placed)  # fmt: skip
_pairs = Input((2, 2), lambda rng, s: np.array([[0, 1], [2, 0]], np.int32))


def _at(x, k, u, add):
    out = x.copy()
    out[k[:, 0], k[:, 1]] = u + (out[k[:, 0], k[:, 1]] if add else 0)
    return out


def _gathered(x):
    out = np.zeros((B, x.shape[1]), np.float32)
    np.add.at(out, _of, x)
    return out


_packed = Input((b, 2, 3), lambda rng, s: np.stack([rng.integers(0, 5, (s[0], s[2])), rng.normal(size=(s[0], s[2])).astype("f").view("i")], 1).astype("i"))  # fmt: skip
row("sparse_ids", sparse.sparse_ids, _packed, want=lambda p: p[:, 0])
row("sparse_values", sparse.sparse_values, _packed, want=lambda p: np.ascontiguousarray(p[:, 1]).view("f"))
row(
    "sparse_dot",
    sparse.sparse_dot,
    ints(5, b, 4),
    real(b, 4),
    real(5, 3),
    want=lambda k, v, t: np.einsum("bk,bkd->bd", v, t[k]),
)
row("sparse_rows", lambda k, v: sparse.sparse_rows(k, v, columns=5), ints(5, b, 4), real(b, 4), want=lambda k, v: _placed(v, k))  # fmt: skip
_counts, _of = Input((b,), lambda rng, s: np.array([2, 1, 2], np.int32)), np.array([0, 0, 1, 2, 2, 2])
row("sparse_rows", lambda k, v, c: sparse.sparse_rows(k, v, c, columns=5), ints(5, 6, 4), real(6, 4), _counts, want=lambda k, v, c: _gathered(np.stack([np.bincount(i, w, 5) for i, w in zip(k, v)])), label="pieces")  # fmt: skip
row("sum_pieces", sparse.sum_pieces, real(6, 2), _counts, want=lambda x, c: _gathered(x))
row("rows_of_pieces", sparse.rows_of_pieces, real(b, 2), _counts, real(6, 4), want=lambda x, c, like: x[_of])
row("all_columns", sparse.all_columns, real(b, 4), want=lambda x: np.tile(np.arange(4, dtype="i"), (B, 1)))
row("scatter_add", i.scatter_add, real(3, 4), _pairs, real(2), want=lambda x, k, u: _at(x, k, u, True))
row("scatter_update", i.scatter_update, real(3, 4), _pairs, real(2), want=lambda x, k, u: _at(x, k, u, False))
row("dynamic_slice", lambda x, k: i.dynamic_slice(x, (k, 0), (2, 3)), real(4, 5), ints(2), want=lambda x, k: x[k : k + 2, :3])  # fmt: skip
row("dynamic_update_slice", lambda x, y, k: i.dynamic_update_slice(x, y, (0, k)), real(2, 5), real(2, 2), ints(3), want=lambda x, y, k: np.hstack([x[:, :k], y, x[:, k + 2 :]]))  # fmt: skip
row("one_hot", lambda k: i.one_hot(k, 4), ints(6, b, 2), want=lambda k: (k[..., None] == np.arange(4)).astype("f"))
row("one_hot", lambda k: i.one_hot(k, 4, "int32", axis=1), ints(4, b, 2), want=lambda k: (k[:, None] == np.arange(4)[:, None]).astype("i"), label="axis")  # fmt: skip
row("index_arrays", lambda x, k, j: i.getitem(x, (k, slice(None), j)), real(4, 2, 5), ints(4, b), ints(5, b), want=lambda x, k, j: np.moveaxis(x, 1, 2)[k, j])  # fmt: skip
