"""The progress line, on a terminal and in a file."""

from __future__ import annotations

import io

from kerasoft.training.progress import Progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, steps=100, each=0.5, verbose=1, target=100):
    clock = Clock()
    display = Progress(target, verbose, stream, clock)
    for step in range(1, steps + 1):
        clock.now += each
        display.update(step, 8 * step, {"loss": 1.0 / step})
    display.finish(8 * steps, {"loss": 0.01, "mae": 0.00002})
    return stream.getvalue()


def test_a_terminal_rewrites_one_line():
    text = run(Terminal())
    assert text.count("\n") == 1 and text.endswith("\n")
    frames = text.rstrip("\n").split("\r")[1:]
    assert len(frames) == 101
    assert frames[49].rstrip() == " 50/100 ━━━━━━━━━━────────── 25s 500ms/step 16 rows/s - loss: 0.0200"
    assert (
        frames[-1].rstrip() == "100/100 ━━━━━━━━━━━━━━━━━━━━ 50s 500ms/step 16 rows/s - loss: 0.0100 - mae: 2.0000e-05"
    )


def test_a_terminal_is_not_drawn_more_often_than_ten_times_a_second():
    assert 9 <= run(Terminal(), each=0.01).count("\r") <= 12


def test_a_shorter_line_covers_the_longer_one_before():
    stream, clock = Terminal(), Clock()
    display = Progress(2, 1, stream, clock)
    display.update(1, 1, {"a long name": 1.0})
    clock.now = 1.0
    display.update(2, 2, {})
    first, second = stream.getvalue().split("\r")[1:]
    assert len(second) == len(first)


def test_a_file_gets_few_plain_lines():
    text = run(io.StringIO())
    assert "\r" not in text
    assert [line.split("/")[0].strip() for line in text.splitlines()] == ["10", "30", "70", "100"]


def test_one_line_with_verbose_2_and_none_with_0():
    assert run(Terminal(), verbose=2).count("\n") == 1
    assert run(Terminal(), verbose=0) == ""


def test_unknown_number_of_steps():
    stream = Terminal()
    frames = run(stream, steps=3, target=None).split("\r")[1:]
    assert frames[1].rstrip() == "2/unknown 1s 500ms/step 16 rows/s - loss: 0.5000"
    assert frames[-1].startswith("3/3 1s 500ms/step")


def test_a_note_stands_above_the_line():
    stream, clock = Terminal(), Clock()
    display = Progress(4, 1, stream, clock)
    display.update(1, 1, {})
    display.note("worker 1 was lost")
    clock.now = 1.0
    display.update(2, 2, {})
    lines = stream.getvalue().split("\n")
    assert lines[0].split("\r")[-1].rstrip() == "worker 1 was lost" and lines[1].startswith("\r2/4")


def test_a_stream_that_knows_ascii_only():
    class Ascii(io.StringIO):
        def write(self, text):
            text.encode("ascii")
            return super().write(text)

    assert "====" in run(Ascii())
