"""The fault matrix: a sample of it in every run; all of it, and a random soak, by `make soak`."""

import os
import random

import pytest

from kerasoft import runtime
from tests.faults import matrix
from tests.faults.cases import CASES, SAME, SAMPLE, WAYS, Case
from tests.faults.strikes import HOWS, WHENS

pytestmark = pytest.mark.shipped
BY_NAME = {str(case): case for case in CASES}
SOAK_GROUPS = int(os.environ.get("KERASOFT_FAULT_GROUPS", "100"))
SEED = int(os.environ.get("KERASOFT_FAULT_SEED", "20261129"))


def test_the_table_is_large_and_names_every_strategy():
    assert len(CASES) >= 60 and len(BY_NAME) == len(CASES)
    assert {case.way for case in CASES} == set(WAYS)
    kinds = {
        type(way.make()).__name__
        for name, way in WAYS.items()
        if name not in ("ParameterContext", "ParameterServer file")
    }
    assert kinds >= set(runtime.__all__) - {"ParameterContext", "Strategy", "Threshold", "TopK", "TwoBit"}
    assert set(SAMPLE) <= set(BY_NAME)
    for case in CASES:
        if case.who != "driver" and case.how not in ("slow link",) and not WAYS[case.way].stateless:
            assert case.when in WHENS and case.how in HOWS, case


@pytest.fixture(scope="module")
def here(spark, cluster, tmp_path_factory):
    """A runner on the cluster that all tests share, on loopback."""
    from tests.faults.runner import Runner

    return Runner(spark, cluster, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory):
    """A runner on hosts that are network namespaces, where the machine allows it; and why not."""
    with matrix.runner(tmp_path_factory.mktemp("hosts")) as (runner, why):
        yield runner, why


def check(outcome):
    assert outcome.right, f"{outcome.case}: {outcome.why} ({outcome.said})"


@pytest.mark.spark
@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample(here, name):
    check(here.run(BY_NAME[name]))


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case(everywhere, case):
    runner, why = everywhere
    if case.hosts and why:
        pytest.skip(why)
    check(runner.run(case))


@pytest.mark.soak
def test_random_faults(everywhere):
    """Groups of ranks, each struck once or twice at random moments: every one ends as the undisturbed run."""
    runner, _ = everywhere
    wrong = [o for o in matrix.soak(runner, SOAK_GROUPS, random.Random(SEED)) if not o.right]
    assert not wrong, "\n".join(f"{o.case}: {o.why}" for o in wrong)


def test_a_hang_would_be_told(here, monkeypatch):
    from tests.faults import runner

    monkeypatch.setattr(runner, "LIMIT_S", 0.2)
    with pytest.raises(runner.Hang, match="no end after 0.2 s; stacks in "):
        here._watched(lambda: __import__("time").sleep(1))


def test_a_strike_must_be_known():
    from tests.faults.strikes import Strike

    with pytest.raises(ValueError, match="no such strike: 'compute', 'explode'"):
        Strike(0, "compute", "explode")
    assert Case("worker", "compute", "kill").expected == SAME
