"""In which order a stage of a pipeline runs its microbatches: pure functions, and how long a step then takes.

A task is ``("forward", a)`` or ``("backward", a)`` of microbatch a. Every stage runs backward tasks in the order of
microbatches, so that gradients are added in the same order, to the bit, by every schedule.

Sources: GPipe (Y. Huang et al., 2019) and one-forward-one-backward of PipeDream-Flush (D. Narayanan et al.,
Memory-Efficient Pipeline-Parallel DNN Training, 2021; Megatron-LM, 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

FORWARD, BACKWARD = "forward", "backward"
Task = tuple[str, int]


def gpipe(stage: int, stages: int, microbatches: int) -> list[Task]:
    """All forward, then all backward: every stage holds all microbatches at once.

    >>> gpipe(0, 2, 2)
    [('forward', 0), ('forward', 1), ('backward', 0), ('backward', 1)]
    """
    return [(kind, a) for kind in (FORWARD, BACKWARD) for a in range(microbatches)]


def one_forward_one_backward(stage: int, stages: int, microbatches: int) -> list[Task]:
    """A stage goes forward until its first backward task can come, then in turns: it holds at most ``stages - stage``.

    >>> one_forward_one_backward(0, 2, 3)
    [('forward', 0), ('forward', 1), ('backward', 0), ('forward', 2), ('backward', 1), ('backward', 2)]
    """
    ahead = min(stages - stage, microbatches)
    tasks: list[Task] = [(FORWARD, a) for a in range(ahead)]
    for a in range(microbatches):
        tasks.append((BACKWARD, a))
        if ahead + a < microbatches:
            tasks.append((FORWARD, ahead + a))
    return tasks


SCHEDULES: dict[str, Callable[[int, int, int], list[Task]]] = {"gpipe": gpipe, "1f1b": one_forward_one_backward}


def bubble(stages: int, microbatches: int) -> float:
    """The share of a step in which a stage waits, if all tasks of a kind take the same time and messages none:
    ``(p - 1) / (k + p - 1)`` for p stages and k microbatches, by either schedule.

    >>> bubble(4, 12)
    0.2
    """
    return (stages - 1) / (microbatches + stages - 1)


def held(tasks: Sequence[Task]) -> int:
    """The most microbatches that are forward and not yet backward at once: what a stage must keep in memory."""
    now = most = 0
    for kind, _ in tasks:
        now += 1 if kind == FORWARD else -1
        most = max(most, now)
    return most


def makespan(
    schedule: str, stages: int, microbatches: int, forward_s: Sequence[float], backward_s: Sequence[float]
) -> float:
    """Seconds of a step, each task starting when its stage is free and what it needs is there.

    Args:
        forward_s, backward_s: seconds of a task by stage.
    """
    queues = [list(SCHEDULES[schedule](i, stages, microbatches)) for i in range(stages)]
    free = [0.0] * stages
    ends: dict[tuple[str, int, int], float] = {}
    while any(queues):
        moved = False
        for i, queue in enumerate(queues):
            while queue:
                kind, a = queue[0]
                if kind == FORWARD:
                    needs = [(FORWARD, i - 1, a)] if i else []
                else:
                    needs = [(FORWARD, i, a), *([(BACKWARD, i + 1, a)] if i + 1 < stages else [])]
                if any(n not in ends for n in needs):
                    break
                start = max([free[i], *(ends[n] for n in needs)])
                free[i] = ends[kind, i, a] = start + (forward_s if kind == FORWARD else backward_s)[i]
                queue.pop(0)
                moved = True
        if not moved:
            raise ValueError(f"schedule {schedule!r} of {stages} stages and {microbatches} microbatches stands still")
    return max(free)
