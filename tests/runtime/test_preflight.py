"""Preflight: each failure names the fix, before any data is touched."""

import dataclasses

import numpy as np
import pytest
from kerasoft.runtime import LBFGS, AllReduce, LocalSGD, ParameterAveraging, preflight
from kerasoft.runtime.preflight import HostFacts, MemoryNeed, Report

DRIVER = {"python": "3.11.7", "jax": "0.10.2", "kerasoft": "0.1.0"}


def host(rank=0, name="node-1", memory=8 << 30, cpu="EPYC", **versions):
    return HostFacts(rank, name, {**DRIVER, **versions}, 2, memory, cpu)


def configuration(conf, slots=2, fewest=1):
    report = Report()
    preflight.check_configuration(conf, slots, fewest, report)
    return report


def test_a_good_cluster_passes():
    report = configuration({}, slots=4)
    preflight.check_versions(DRIVER, [host(0), host(1, "node-2", python="3.11.9")], report)
    preflight.check_memory({}, [host()], MemoryNeed(10**6, 10**6, 2, 10**6, 10**6), report)
    assert not report.failures and not report.warnings
    report.require()


@pytest.mark.parametrize(
    "conf, slots, workers, text",
    [
        (
            {"spark.dynamicAllocation.enabled": "true", "spark.dynamicAllocation.maxExecutors": "2"},
            1,
            3,
            "3 workers were asked for and 2 can run at once",
        ),
        ({}, 0, 1, "no executor has registered with the driver"),
        ({}, 2, 3, "3 workers were asked for and 2 can run at once. Use AllReduce(workers=2) or less"),
        ({"spark.executor.pyspark.memory": "1g"}, 2, 2, "Unset it, or give at least 2g"),
    ],
)
def test_configuration_failures_name_the_fix(conf, slots, workers, text):
    report = configuration(conf, slots, workers)
    assert any(text in line for line in report.failures)
    with pytest.raises(preflight.ClusterError) as error:
        report.require()
    assert text in str(error.value)


def test_versions_name_host_and_both_versions():
    report = Report()
    preflight.check_versions(
        DRIVER, [host(), host(1, "node-2", jax="0.9.0"), host(2, "node-3", kerasoft="missing")], report
    )
    assert report.failures == [
        "node-2 (rank 1) has jax 0.9.0; the driver has 0.10.2. Install the same version on both (pip install jax==0.10.2).",
        "node-3 (rank 2) has no kerasoft; the driver has 0.1.0. Install it there (pip install kerasoft==0.1.0), or ship an "
        "environment with --archives env.tar.gz#env and PYSPARK_PYTHON=./env/bin/python.",
    ]


def test_kernels_that_a_host_lacks_are_named_before_data_is_touched():
    there = {"native": "native-v4", "onednn": "onednn-v4-3.2.0"}
    chosen = tuple(there.values())
    report = Report()
    preflight.check_kernels(chosen, [dataclasses.replace(host(), kernels=there)], report)
    assert report.passed == ["the same kernels (native-v4, onednn-v4-3.2.0) on every worker"]
    lacking = there | {"onednn": "The library onednn_v4.so was not built."}
    older = {name: text.replace("v4", "v3") for name, text in there.items()}
    hosts = [dataclasses.replace(host(i, f"node-{i}"), kernels=k) for i, k in enumerate((lacking, older, {}))]
    preflight.check_kernels(chosen[1:], hosts, report)
    assert report.failures == [
        "node-2 (rank 2) cannot run the onednn kernels that the driver chooses from (onednn-v4-3.2.0): kerasoft cannot be "
        "imported there. Install the same kerasoft on all hosts, or set KERASOFT_NATIVE=0 on the driver.",
    ]
    assert report.warnings[0].startswith(
        "node-0 (rank 0) cannot run onednn kernels: The library onednn_v4.so was not built. No worker uses them in this fit"
    )
    assert "node-1 (rank 1) computes with onednn-v3-3.2.0, the driver with onednn-v4-3.2.0" in report.warnings[1]
    assert report.left_out == ("onednn", "onednn-bfloat16")
    before = len(report.failures)
    preflight.check_kernels((), hosts, report)  # a driver without libraries asks for none
    assert len(report.failures) == before


def test_memory_rule_and_its_numbers_are_printed():
    need = MemoryNeed(params=10**8, vector=10**8, slots=2, data_bytes=4 << 30, step_bytes=1 << 20)
    total, rule = preflight.estimate(need, 2)
    assert total == preflight.BASE_BYTES + 8 * 4 * 10**8 + 4 * 10**8 + (1 << 20) + int(1.25 * (2 << 30))
    assert "2 × 100,000,000 + 6 × 100,000,000 floats" in rule
    report = Report()
    preflight.check_memory({"spark.master": "yarn"}, [host(), host(1)], need, report)
    assert any("384 MB are spark.executor.memoryOverhead" in line and "Raise" in line for line in report.failures)
    report = Report()
    preflight.check_memory({"spark.master": "spark://a:7077"}, [host(memory=1 << 30)], need, report)
    assert not report.failures and "free on node-1" in report.warnings[0]


def test_tables_by_rows_have_no_whole_gradients():
    from kerasoft.compiler.costs import peak_bytes
    from kerasoft.compiler.program import footprint
    from kerasoft.runtime import AllReduce

    import kerasoft as ks
    from kerasoft.training.inputs import to_arrays

    model = ks.Sequential([ks.Input((3,), dtype="int32"), ks.layers.Embedding(100_000, 8), ks.layers.Flatten()])
    model.add(ks.layers.Dense(1))
    model.compile("adam", "mse")
    arrays = to_arrays(model, np.zeros((1, 3), np.int32), np.zeros((1, 1), np.float32), None)
    source = model._program(arrays.signature, "train").source
    (name,) = AllReduce().tables_by_rows(source, 64)
    assert AllReduce(wire_dtype="bfloat16").tables_by_rows(source, 64) == ()
    found = footprint(source, [name], 64)
    assert (found.tables, found.touched) == (800_000, 8 * 3 * 64)
    assert peak_bytes(found.graph, {"b": 64}) < 1 << 20 < 3_200_000 < peak_bytes(source.optimised("train"), {"b": 64})
    layout = source.layout
    need = MemoryNeed(layout.P, layout.V, 2, 0, 0, tables=found.tables, touched=found.touched)
    total, rule = preflight.estimate(need, 2)
    rest = 25 * (2 * 4 + 6 * 4) + 6 * 4 * (layout.V - layout.P) + 25 * 4
    assert total == preflight.BASE_BYTES + rest + 3 * 4 * 800_000 + 6 * 4 * 1536
    assert "tables by rows (3 × 800,000 + 6 × 1,536 floats)" in rule


def test_a_cap_bounds_the_data():
    loose = MemoryNeed(10, 10, 0, 8 << 30, 0)
    tight = MemoryNeed(10, 10, 0, 8 << 30, 0, cap_bytes=1 << 20)
    assert preflight.estimate(loose, 1)[0] - preflight.estimate(tight, 1)[0] == int(1.25 * (8 << 30)) - (1 << 20)


def test_different_cpus_are_a_warning():
    report = Report()
    preflight.check_versions(DRIVER, [host(cpu="A"), host(1, cpu="B")], report)
    assert not report.failures and "different CPUs (A; B)" in report.warnings[0]


@pytest.mark.parametrize("text, count", [("512m", 512 << 20), ("2g", 2 << 30), ("1024", 1 << 30), ("1gb", 1 << 30)])
def test_sizes(text, count):
    assert preflight.parse_bytes(text, "m") == count


def test_what_a_strategy_keeps_is_counted():
    bare, _ = preflight.estimate(MemoryNeed(10**6, 10**6, 2, 0, 0), 2)
    kept, text = preflight.estimate(MemoryNeed(10**6, 10**6, 2, 0, 0, more=5), 2)
    assert kept - bare == 20 * 10**6 and "5 × 1,000,000 floats" in text
    assert LocalSGD(shards=4).more_vectors(2, 2) == 2 + 2 * 3
    assert AllReduce(compression="2bit").more_vectors(2, 2) == 4 and AllReduce().more_vectors(2, 2) == 0
    assert LBFGS(10).more_vectors(2, 4) == 8 and ParameterAveraging().more_vectors(0, 2) == 1
