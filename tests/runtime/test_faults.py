"""Verdicts on failures: who is blamed, in what words, and whether another attempt makes sense."""

import os
import signal

import pytest
from kerasoft.runtime.errors import DataChanged, DriverLost, PeerFrozen, TrainingFailed, WorkerLost
from kerasoft.runtime.faults import Fault, Script, Sign, describe, may_retry, verdict
from kerasoft.runtime.rendezvous import WorkerStatus

TABLE = {0: ("a", 10), 1: ("b", 11), 2: ("c", 12)}
LOST = {"reason": "its connection closed", "host": "b", "pid": 11, "step": 1, "phase": "compute, epoch 2"}


def failed(rank, error, epoch=1, step=4):
    return Sign("failed", rank, {**describe(error), "epoch": epoch, "step": step})


def accuses(rank, culprit):
    return failed(rank, PeerFrozen(f"rank {culprit} moved no byte", rank=culprit, phase="reduce_scatter"))


def test_a_workers_own_error_beats_all():
    try:
        raise KeyError("bad label")
    except KeyError as error:
        own = failed(2, error)
    error = verdict([Sign("lost", 1, LOST), accuses(0, 2), own], TABLE, None)
    assert isinstance(error, TrainingFailed) and not may_retry(error)
    assert str(error).startswith("rank 2 (host c, pid 12) raised KeyError in epoch 2, step 5: 'bad label'\n\nTraceback")


def test_changed_data_keeps_its_type():
    error = verdict([Sign("failed", 1, describe(DataChanged("shard 3 is not what it was")))], TABLE, None)
    assert isinstance(error, DataChanged) and str(error) == "shard 3 is not what it was" and not may_retry(error)


def test_the_one_who_died_is_blamed_at_the_step_that_others_name():
    error = verdict([accuses(0, 1), Sign("lost", 1, LOST)], TABLE, ("Job aborted", False))
    assert str(error) == (
        "rank 1 (host b, pid 11) was lost (its connection closed) in epoch 2, step 5 (reduce_scatter)"
    )
    assert (error.rank, error.host, error.pid, error.step, error.phase) == (1, "b", 11, 4, "reduce_scatter")
    assert may_retry(error)


def test_the_frozen_one_is_blamed_at_the_step_of_the_latest_heartbeat():
    seen = [
        WorkerStatus(0, "a", 10, "", 6, "compute, epoch 1", 0.2, True),
        WorkerStatus(1, "b", 11, "", 5, "compute, epoch 1", 20.0, True),
    ]
    error = verdict([Sign("frozen", 1, {**LOST, "silent_s": 20.04})], TABLE, None, seen)
    assert str(error) == "rank 1 (host b, pid 11) gave no sign of life for 20.0 s in epoch 1, step 7 (compute)"


def test_without_a_death_the_accused_is_blamed():
    error = verdict([accuses(0, 2), accuses(1, 2), accuses(2, 0)], TABLE, None)
    assert error.rank == 2 and "is lost to the others (rank 2 moved no byte) in epoch 2, step 5" in str(error)


def test_who_saw_it_itself_is_quoted():
    told = failed(2, PeerFrozen("rank 1 died, says rank 0, while rank 2 was in all_gather", rank=1, phase="all_gather"))
    saw = failed(0, PeerFrozen("rank 1 is not understood by rank 0", rank=1, phase="all_gather"))
    assert "is lost to the others (rank 1 is not understood by rank 0) in epoch 2" in str(
        verdict([told, saw], TABLE, None)
    )


def test_a_full_disk_is_worth_another_attempt():
    error = verdict([failed(1, OSError("No space left on device"))], TABLE, None)
    assert may_retry(error) and "gave up (OSError: No space left on device)" in str(error)
    assert describe(FileNotFoundError("x"))["cause"] == "own"
    assert describe(DriverLost("x"))["cause"] == "driver"


def test_before_the_first_step_the_phase_is_named():
    seen = [WorkerStatus(1, "b", 11, "", -1, "compile", 0.1, True)]
    error = verdict([Sign("lost", 1, LOST)], TABLE, None, seen)
    assert str(error).endswith("was lost (its connection closed) in phase 'compile'")


def test_with_no_sign_sparks_word_is_given():
    error = verdict([], {}, ("Job aborted due to stage failure", False))
    assert isinstance(error, WorkerLost) and may_retry(error)
    assert str(error) == "the Spark job of the workers ended: Job aborted due to stage failure"
    error = verdict([], {}, ("ValueError: no such column", True))
    assert isinstance(error, TrainingFailed) and not may_retry(error)


def test_a_script_strikes_one_rank_at_one_step_of_one_attempt(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid == os.getpid(), number)))
    script = Script((Fault(1, 0, 2, "stop"), Fault(1, 0, 3, "raise", phase="validation", generation=None)))
    for rank, step in ((0, 2), (1, 1), (1, 3)):
        script.at(rank, 0, step, "step")
    assert sent == []
    script.at(1, 0, 2, "step")
    assert sent == [(True, signal.SIGSTOP)]
    later = Script(script.faults, generation=1)
    later.at(1, 0, 2, "step")
    assert len(sent) == 1
    with pytest.raises(ValueError, match="scripted failure of rank 1 in epoch 0, step 3"):
        later.at(1, 0, 3, "validation")
    with pytest.raises(ValueError, match="no such fault: 'explode'"):
        Script((Fault(0, 0, 0, "explode"),)).at(0, 0, 0, "step")
