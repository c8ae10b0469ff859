from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from mnv2tl import progress
from tests.unread_log import run_unread

_WORK = """
import time
from mnv2tl import progress

for _ in progress.track(range(6), "read", total=6, unit="files"):
    time.sleep(0.05)
    progress.say("warning: a message beside the bar")
with progress.show_step("think"), progress.show_bar("inner", total=2) as advance:
    print("the result")
    advance(2)
"""


def _run_on_terminal(code: str) -> tuple[str, str]:
    """Run Python code with a terminal as stderr; return stdout and what the terminal got."""
    leader, follower = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=follower, env=env, text=True
    ) as process:
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so when nobody writes any more
            while part := os.read(leader, 4096):
                shown += part
        os.close(leader)
        assert process.stdout is not None
        result = process.stdout.read()
    assert process.returncode == 0, shown
    return result, shown.decode()


def _objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _set_clock(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    times = iter(seconds)
    monkeypatch.setattr("mnv2tl.progress.time.perf_counter", lambda: next(times))


def test_say_prints_one_line_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to results; what only machines want is left out of the text."""
    progress.say("phase 1 trains 3 layers", event="phase", layers=3)

    assert capsys.readouterr() == ("", "phase 1 trains 3 layers\n")


def test_quiet_says_nothing_and_can_be_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither messages nor bars nor steps, but the work is done all the same; errors are told."""
    progress.set_quiet(True)
    progress.say("one")
    items = list(progress.track(range(5), "read", total=5))
    with progress.show_step("think"), progress.show_bar("read", total=5) as advance:
        advance(5)
    progress.tell_error("error[E309 bad-image] it is broken", code="E309")
    progress.set_quiet(False)
    progress.say("two")

    assert items == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "error[E309 bad-image] it is broken\ntwo\n")


def test_track_yields_the_items_and_keeps_stdout_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """In a log what takes less than two seconds prints no line at all."""
    items = list(progress.track("abc", "read", total=3))
    with progress.show_step("think"):
        pass

    assert items == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_lines_at_intervals_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first after two seconds, then every ten: count, total, unit, rate and time left."""
    _set_clock(monkeypatch, 0.0, 1.0, 2.5, 4.0, 12.5, 19.0, 20.0)

    with progress.show_bar("features", total=440, unit="views") as advance:
        for count in (10, 10, 30, 200):
            advance(count)
        advance(190)

    assert capsys.readouterr() == (
        "",
        "features: 20/440 views, 8/s, 52 s left\n"
        "features: 250/440 views, 20/s, 10 s left\n"
        "features: 440/440 views in 20 s\n",
    )


def test_a_log_names_a_step_that_takes_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be counted is named once, while it runs."""
    monkeypatch.setattr(progress, "_FIRST_SECONDS", 0.01)

    with progress.show_step("writing savedmodel"):
        time.sleep(0.2)
        seen = capsys.readouterr().err

    assert seen == "writing savedmodel ...\n"
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    """On a real terminal: description, count, unit, rate, time left, and messages between."""
    result, shown = _run_on_terminal(_WORK)

    assert result == "the result\n"
    for word in ("read", "6/6", "think", "inner", "2/2", "warning: a message beside the bar"):
        assert word in shown
    assert re.search(r"\d+ files/s", shown)
    assert re.search(r"0:00:0\d", shown)
    assert "\x1b[?25h" in shown  # the cursor is shown again


def test_a_terminal_that_can_draw_nothing_gets_lines() -> None:
    """TERM=dumb is what editors and build servers set."""
    code = "import os\nos.environ['TERM'] = 'dumb'\n" + _WORK

    _, shown = _run_on_terminal(code)

    assert shown.split("\r\n") == [*["warning: a message beside the bar"] * 6, ""]


def test_json_on_a_terminal_is_json() -> None:
    """Who asks for JSON gets nothing else, wherever stderr goes."""
    code = "from mnv2tl import progress\nlog = progress.log_as_json()\nlog.__enter__()\n" + _WORK
    code += "import logging, warnings\nlogging.warning('a log line')\nwarnings.warn('it is old')\n"

    result, shown = _run_on_terminal(code)

    assert result == "the result\n"
    lines = _objects(shown)
    assert {each["event"] for each in lines} == {"progress", "message", "start", "end", "output"}
    printed = "".join(each["message"] for each in lines if each["event"] == "output")
    assert "a log line" in printed
    assert "it is old" in printed


def test_an_error_in_the_block_gets_out_of_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar hides nothing, and does not say that the work is done."""

    def fail() -> None:
        with progress.show_bar("read", total=3) as advance:
            advance(1)
            raise KeyError

    with pytest.raises(KeyError), progress.log_as_json():
        fail()

    assert [each["done"] for each in _objects(capsys.readouterr().err)] == [0]


def test_json_tells_start_rate_time_left_and_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object a line, with keys that do not change."""
    _set_clock(monkeypatch, 0.0, 0.5, 2.5, 3.0, 4.0)

    with progress.log_as_json(), progress.show_bar("read", total=40, unit="files") as advance:
        advance(5)
        advance(5)
        advance(30)

    lines = _objects(capsys.readouterr().err)
    keys = {"time", "level", "event", "message", "step", "done", "total", "unit", "rate"}
    assert all(line.keys() == keys | {"seconds_left"} for line in lines)
    assert [line["done"] for line in lines] == [0, 10, 40]
    assert [line["seconds_left"] for line in lines] == [None, 7.5, 0.0]
    assert lines[1]["rate"] == 4.0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["time"])


def test_everything_on_stderr_becomes_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Also what other packages print; numbers that JSON lacks become null."""
    with progress.log_as_json():
        progress.say("warning: left out caf\udce9.jpg")
        progress.say("epoch 1", event="epoch", loss=float("nan"), rows=[{"x": float("inf")}])
        progress.tell_error("error[E302 one-class] it has one", code="E302", message="it has one")
        print("half a line", end="", file=sys.stderr)
        print(", and the rest\n\nanother", file=sys.stderr)
        sys.stderr.write("no end")

    lines = _objects(capsys.readouterr().err)
    found = [(line["level"], line["event"], line["message"]) for line in lines]
    assert found[:5] == [
        ("warning", "message", "left out caf\udce9.jpg"),
        ("info", "epoch", "epoch 1"),
        ("error", "error", "it has one"),
        ("info", "output", "half a line, and the rest"),
        ("info", "output", "another"),
    ]
    assert (lines[1]["loss"], lines[1]["rows"]) == (None, [{"x": None}])
    assert lines[2]["code"] == "E302"
    assert lines[-1]["message"] == "no end"


def test_stderr_is_itself_again_after_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that calls a command goes on as before."""
    before = sys.stderr

    with progress.log_as_json():
        assert progress.is_json()

    assert sys.stderr is before
    assert not progress.is_json()


def test_a_log_that_nobody_reads_does_not_end_the_work() -> None:
    """The pipe of a dead collector breaks under the first line; the work goes on."""
    script = """
import sys
from mnv2tl import progress
sys.stdin.readline()
progress.say("a line of text")
with progress.log_as_json():
    print("of another package", file=sys.stderr)
    for number in progress.track(range(3), "work", total=3):
        progress.say("a line")
    progress.tell_error("an error")
print("done")
"""
    assert run_unread(script) == (0, b"done\n")
