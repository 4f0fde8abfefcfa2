"""Programs as bytes, damaged ones, and what calls and sources refuse."""

import dataclasses
import functools
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kerasoft.compiler import program as kp
from kerasoft.compiler import wireformat
from kerasoft.compiler.errors import ProgramError, ShapeError
from kerasoft.compiler.ir import Graph
from kerasoft.compiler.ops.registry import input_node, param_node

from tests.compiler.regression import N, arrays, regression


@functools.cache
def exported():
    return regression().export((4,)).to_bytes()


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_bytes_say_the_same_and_hold_no_paths_or_user_names():
    source = regression(synchronised=True)
    one, two = source.export((4,), (4,)), regression(synchronised=True).export((4,), (4,))
    assert one.fingerprint == two.fingerprint == hashlib.sha256(one.to_bytes()).hexdigest()
    assert one.fingerprint != source.export((5,), (4,)).fingerprint
    assert b".py" not in one.to_bytes() and b"lambda" not in one.to_bytes()
    again = kp.StepProgram.from_bytes(one.to_bytes())
    for name in ("layout", "inputs", "outputs", "slots", "flags"):
        assert getattr(again, name) == getattr(source, name)
    assert (again.train_rows, again.test_rows, again.predict_rows) == ((4,), (4,), ())
    assert repr(again) == f"<StepProgram {one.fingerprint[:12]}, {len(one.to_bytes())} bytes, 8 parameters>"


@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["flip", "cut", "grow"]))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_a_program_error(position, value, how):
    data = bytearray(exported())
    position %= len(data)
    if how == "flip":
        data[position] ^= value or 1
    elif how == "cut":
        data = data[:position]
    else:
        data += bytes([value])
    with pytest.raises(ProgramError):
        kp.StepProgram.from_bytes(bytes(data))


def headed(text):
    return wireformat.MAGIC + struct.pack("<IQ", 1, len(text)) + hashlib.sha256(text).digest() + text


def container(header, blobs=()):
    return wireformat.write(header, blobs)


@pytest.mark.parametrize(
    "data, error",
    [
        (b"", "these 0 bytes are no StepProgram"),
        (b"\x80\x04garbage", "these 9 bytes are no StepProgram: they start with b'\\x80\\x04garbag'"),
        (
            wireformat.MAGIC + struct.pack("<IQ", 99, 2) + b"{}",
            "format version 99, this kerasoft reads 1: install the same",
        ),
        (wireformat.MAGIC + struct.pack("<IQ", 1, 1 << 60), "header claims 1152921504606846976 bytes; at most"),
        (wireformat.MAGIC + struct.pack("<IQ", 1, 100), "cut short: its header's hash needs bytes up to 52, got 20"),
        (headed(b"{}")[:-1], "cut short: its header needs bytes up to 54, got 53"),
        (headed(b"[]"), "the StepProgram's header is damaged: list indices"),
        (headed(b"[" * 100_000), "the StepProgram's header is damaged: maximum recursion"),
        (headed(b"{}")[:20] + bytes(32) + b"{}", "the StepProgram's header is damaged: its SHA-256 differs"),
        (container({}), "the StepProgram's header is damaged: KeyError('layout')"),
        (container({}) + b"x", "the StepProgram ends after"),
    ],
)
def test_errors_of_bytes(data, error):
    with pytest.raises(ProgramError) as caught:
        kp.StepProgram.from_bytes(data)
    assert error in str(caught.value)


def test_a_stage_that_is_no_program_fails_when_it_is_compiled_and_only_then():
    header, blobs = wireformat.read(exported())
    header.pop("blobs")
    program = kp.StepProgram.from_bytes(wireformat.write(header, [b"nonsense"] * len(blobs)))
    with pytest.raises(ProgramError, match="a stage of the StepProgram cannot be read"):
        program.train(4)


def test_limits(monkeypatch):
    monkeypatch.setattr(wireformat, "MAX_BYTES", 10)
    with pytest.raises(ProgramError, match="the program is too large to ship: header .* are large arrays constants"):
        wireformat.write({}, [b"12345678901"])


# --- errors of use ---------------------------------------------------------------------------------------------------


def test_errors_of_calls():
    source = regression()
    program, (params, state, batch) = source.export((4,)), arrays()
    with pytest.raises(ProgramError, match="no train call for 5 rows; it has 4"):
        program.train(5)
    with pytest.raises(ProgramError, match="no test call for 4 rows; it has none"):
        program.test(4)
    call, ones = program.train(4), np.ones(4, "f")
    for args, error in [
        (kp.StepArgs(params, state, batch, valid=ones, rows=None, share=1), "the train call needs 'rows', got nothing"),
        (kp.StepArgs(params, state, {}, valid=ones, rows=4, share=1), "the batch has no 'x/0'; it holds "),
        (kp.StepArgs(params[:5], state, batch, valid=ones, rows=4, share=1), r"train\(4\): params needs float32\[8\], got float32\[5\]"),
        (kp.StepArgs(params, state, batch, valid=np.ones(4, "i4"), rows=4, share=1), r"valid needs float32\[4\], got int32\[4\]"),
        (kp.StepArgs(params, state, batch, rows=4, share=1), r"valid needs float32\[4\], got nothing"),
    ]:  # fmt: skip
        with pytest.raises(ShapeError, match=error):
            call.run(0, args)
    with pytest.raises(ShapeError, match=r"y/0 needs float32\[b, 2\], got shape \(4, 3\)"):
        source.local().test(params, state, {**batch, "y/0": batch["x/0"]}, ones, 4)
    with pytest.raises(ShapeError, match="the test graph reads 'valid', which was not given"):
        source.local().test(params, state, batch, None, 4)
    with pytest.raises(ShapeError, match="the batch has no 'y/0'; it holds x/0"):
        source.local().test(params, state, {"x/0": batch["x/0"]}, ones, 4)
    with pytest.raises(ProgramError, match="this StepSource has no predict graph"):
        dataclasses.replace(source, predict=None).local().predict(params, state, batch)


def test_errors_of_sources():
    source = regression()
    small = kp.Layout.of(params={"k": (3, 2)}, states={"moving": (3,)}, sums={"loss/total": ()})
    with pytest.raises(ProgramError, match="train graph: param 'c' is not in the layout"):
        dataclasses.replace(source, layout=small).export((4,))
    wrong = kp.Layout.of(params={"k": (2, 3), "c": (2,)}, states={"moving": (3,)})
    with pytest.raises(ProgramError, match=r"param 'k' has shape \(3, 2\), the layout says \(2, 3\)"):
        dataclasses.replace(source, layout=wrong).export((4,))
    no_count = kp.Layout.of(params={"k": (3, 2), "c": (2,)}, states={"moving": (3,)}, sums={"loss/total": ()})
    with pytest.raises(ProgramError, match="train graph: output 'sum/loss/count' has no place in the layout"):
        dataclasses.replace(source, layout=no_count).export((4,))
    with pytest.raises(ProgramError, match="train: a call needs at least one row, got 0"):
        source.export((0,))
    with pytest.raises(ProgramError, match="the layout's params hold 'k' twice"):
        kp.Layout.of(params=[("k", ()), ("k", (2,))])
    with pytest.raises(ProgramError, match="update_mode is 'sliced' or 'replicated', got 'both'"):
        kp.Flags(update_mode="both")
    p, stranger = input_node("param", (N,), "float32"), input_node("weight", (N,), "float32")
    for graph, error in [
        (
            Graph((p, stranger), (p * stranger,), ("param",)),
            "update graph: unknown input 'weight'; it may read counted, gradient,",
        ),
        (Graph((p,), (p * 2.0,), ("slot/m",)), "update graph: has no output 'param', got slot/m"),
        (
            Graph((p,), (p * 2.0, p), ("param", "velocity")),
            "unknown output 'velocity'; it may set param, slot/momentum",
        ),
        (Graph((p,), (p * param_node("k", ()),), ("param",)), "update graph: reads param 'k'; it gets vectors"),
    ]:
        with pytest.raises(ProgramError, match=error):
            dataclasses.replace(source, update=graph).export()
