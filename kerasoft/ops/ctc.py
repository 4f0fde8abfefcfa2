"""Connectionist temporal classification: the loss, and greedy and beam-search decoding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..tensors import known_shape
from . import elementwise as e
from .dispatch import is_static, lowered, public, shape_of, tensor

__all__ = ["ctc_decode", "ctc_loss"]

IMPOSSIBLE = -1e5  # log of the probability of what cannot be
NOTHING = -1  # pads decoded paths


@lowered
def _loss(target: Any, output: Any, target_length: Any, output_length: Any, *, blank: int) -> Any:
    """The forward algorithm on two rows of states: `phi[n]` after n labels and a blank, `emit[n]` at label n."""
    (batch, labels), steps = target.shape, output.shape[1]
    log_p = jax.nn.log_softmax(output)
    log_blank = jnp.swapaxes(log_p[:, :, blank : blank + 1], 0, 1)  # steps, batch, 1
    classes = jax.nn.one_hot(target, output.shape[2], dtype=log_p.dtype)
    log_label = jnp.swapaxes(jnp.einsum("btk,bnk->btn", log_p, classes), 0, 1)  # steps, batch, labels
    same = (target[:, :-1] == target[:, 1:]).astype(log_p.dtype)
    same = jnp.pad(same, ((0, 0), (0, 1)))  # 1 where the next label is the same: a blank must stand between
    over = (jnp.arange(steps)[:, None] >= output_length[None, :]).astype(log_p.dtype)[..., None]

    def add(phi: Any, score: Any) -> Any:
        return jnp.concatenate([phi[:, :1], jnp.logaddexp(phi[:, 1:], score)], axis=-1)

    def step(state: Any, now: Any) -> Any:
        phi, emit = state
        p_label, p_blank, past = now
        ready = add(phi, emit + IMPOSSIBLE * same)
        new_emit = jnp.logaddexp(ready[:, :-1] + p_label, emit + p_label)
        new_phi = add(ready + p_blank, emit + p_blank + IMPOSSIBLE * (1.0 - same))
        return (past * phi + (1.0 - past) * new_phi, past * emit + (1.0 - past) * new_emit), None

    empty = jnp.full((batch, labels + 1), IMPOSSIBLE, log_p.dtype).at[:, 0].set(0.0)
    start = (empty, jnp.full((batch, labels), IMPOSSIBLE, log_p.dtype))
    (phi, emit), _ = jax.lax.scan(step, start, (log_label, log_blank, over))
    count = jnp.minimum(target_length, labels)
    last = jax.nn.one_hot(count, labels + 1, dtype=phi.dtype)
    return -jnp.einsum("bn,bn->b", add(phi, emit), last)


@public("nn", "CTCLoss", "target output target_length output_length")
def ctc_loss(target: Any, output: Any, target_length: Any, output_length: Any, mask_index: int = 0) -> Any:
    """The negative logarithm of the probability that `output` spells `target`.

    Args:
        target: labels, int (batch, labels).
        output: logits (batch, steps, classes).
        target_length, output_length: how many labels and steps count, int (batch).
        mask_index: the class that means "no label".

    Source: Graves et al. 2006, section 4.1.
    """
    target, output, lengths, steps = (tensor(x) for x in (target, output, target_length, output_length))
    for first, a, second, b in (
        ("target", target, "output", output),
        ("target_length", lengths, "target", target),
        ("output_length", steps, "output", output),
    ):
        sizes = shape_of(a)[:1] + shape_of(b)[:1]
        if len(sizes) == 2 and all(is_static(s) for s in sizes) and sizes[0] != sizes[1]:
            raise ValueError(
                f"Arguments `{first}` and `{second}` must have the same first dimension. "
                f"Received shapes: `{known_shape(a)}` and `{known_shape(b)}`."
            )
    target, lengths, steps = (e.cast(x, "int32") for x in (target, lengths, steps))
    return _loss(target, _wide(output), lengths, steps, blank=int(mask_index))


def _wide(x: Any) -> Any:
    return x if str(x.dtype) == "float64" else e.cast(x, "float32")


# --- decoding -----------------------------------------------------------------------------------------------------


@lowered
def _greedy(inputs: Any, lengths: Any, *, merge: bool, blank: int) -> Any:
    batch, steps, _ = inputs.shape
    past = jnp.arange(steps)[None, :] >= lengths[:, None]
    classes = jnp.where(past, blank, jnp.argmax(inputs, axis=-1).astype("int32"))
    scores = jnp.where(past, 0.0, jnp.max(inputs, axis=-1))
    if merge:
        again = jnp.pad(classes[:, 1:] == classes[:, :-1], ((0, 0), (1, 0)))
        classes = jnp.where(again, blank, classes)
    skipped = classes == blank
    order = jnp.argsort(jnp.where(skipped, steps, jnp.arange(steps)[None, :]), axis=-1)
    paths = jnp.take_along_axis(jnp.where(skipped, NOTHING, classes), order, axis=-1)
    return paths[None], -jnp.sum(scores, axis=1)[:, None]


@lowered
def _beam_search(inputs: Any, lengths: Any, *, width: int, top: int, blank: int) -> Any:
    steps, classes = inputs.shape[1:]
    # Classes are counted backwards, so that of equal scores the lower class is the one kept.
    log_p = jnp.flip(jax.nn.log_softmax(inputs), axis=2)
    blank = classes - blank - 1
    past = jnp.arange(steps)[None, :] >= lengths[:, None]
    room = 2 * width * classes

    def merged(group: Any, scores: Any) -> Any:
        highest = jnp.max(scores)
        return jnp.log(jnp.zeros_like(scores).at[group].add(jnp.exp(scores - highest))) + highest

    def unique(paths: Any) -> Any:
        paths, group = jnp.unique(paths, return_inverse=True, size=room, axis=0, fill_value=NOTHING)
        return paths, group.reshape(-1)

    def extended(state: Any, p: Any) -> Any:
        paths, scores, ends_blank = (jnp.repeat(x, classes, axis=0) for x in state)
        end = jnp.argmax(paths == NOTHING, axis=1)
        rows = jnp.arange(room)
        tail = jnp.where(end == 0, NOTHING, paths[rows, end - 1])
        new = jnp.tile(jnp.arange(classes).at[blank].set(NOTHING), 2 * width)
        is_blank = new == NOTHING
        new = jnp.where(~ends_blank & (tail == new), NOTHING, new)
        paths, group = unique(paths.at[rows, end].set(new))
        scores = scores + jnp.tile(p, 2 * width)
        emit = merged(group, jnp.where(is_blank, -jnp.inf, scores))
        rest = merged(group, jnp.where(is_blank, scores, -jnp.inf))
        best = jnp.argsort(jnp.logaddexp(emit, rest))[-width:]
        ends = jnp.repeat(jnp.array([False, True]), width)
        return jnp.tile(paths[best], (2, 1)), jnp.concatenate([emit[best], rest[best]]), ends

    def decode(log_p: Any, past: Any) -> Any:
        count = min(classes, width)
        first = jnp.argsort(log_p[0])[-count:]
        paths = jnp.full((2 * width, steps), NOTHING, jnp.int32)
        paths = paths.at[:count, 0].set(jnp.where(first == blank, NOTHING, first).astype(jnp.int32))
        scores = jnp.full((2 * width,), -jnp.inf, log_p.dtype).at[:count].set(log_p[0][first])
        state = (paths, scores, paths[:, 0] == NOTHING)

        def step(state: Any, now: Any) -> Any:
            return jax.lax.cond(now[1], lambda s, p: s, extended, state, now[0]), None

        (paths, scores, _), _ = jax.lax.scan(step, state, (log_p[1:], past[1:]))
        paths, group = jnp.unique(paths, return_inverse=True, size=room, axis=0, fill_value=NOTHING)
        full = jnp.zeros((room,), scores.dtype).at[group.reshape(-1)].add(jnp.exp(scores - jnp.max(scores)))
        scores = (jnp.log(full) + jnp.max(scores))[: 2 * width]
        best = jnp.argsort(scores)[-top:][::-1]
        return paths[best], scores[best]

    paths, scores = jax.vmap(decode)(log_p, past)
    paths = jnp.where(paths == NOTHING, NOTHING, classes - paths - 1)
    return jnp.swapaxes(paths, 0, 1), scores


@public("nn", "CTCDecode", "inputs sequence_lengths")
def ctc_decode(
    inputs: Any,
    sequence_lengths: Any,
    strategy: str = "greedy",
    beam_width: int = 100,
    top_paths: int = 1,
    merge_repeated: bool = True,
    mask_index: int = 0,
) -> Any:
    """The label sequences that logits spell, and their scores.

    Args:
        inputs: logits (batch, steps, classes); sequence_lengths: how many steps count, int (batch).
        strategy: ``"greedy"`` or ``"beam_search"``.
        beam_width, top_paths: of the beam search: sequences kept in each step, sequences given back.
        merge_repeated: of the greedy search: whether a class repeated in successive steps is one label.
        mask_index: the class that means "no label"; None is the last one.

    Returns:
        Labels int32 (paths, batch, steps), padded with -1, and scores (batch, paths).

    Raises:
        ValueError: another strategy.
    """
    if strategy not in ("greedy", "beam_search"):
        raise ValueError(f"Invalid strategy {strategy}. Supported values are 'greedy' and 'beam_search'.")
    inputs, lengths = _wide(tensor(inputs)), e.cast(tensor(sequence_lengths), "int32")
    blank = shape_of(inputs)[-1] - 1 if mask_index is None else int(mask_index)
    if strategy == "greedy":
        return _greedy(inputs, lengths, merge=bool(merge_repeated), blank=blank)
    return _beam_search(inputs, lengths, width=int(beam_width), top=int(top_paths), blank=blank)
