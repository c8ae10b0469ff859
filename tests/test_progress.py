from __future__ import annotations

import io
import sys

import pytest

from mnv2tl import progress


class _Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_say_prints_one_line_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to results."""
    progress.say("phase 1 trains 3 layers")

    assert capsys.readouterr() == ("", "phase 1 trains 3 layers\n")


def test_quiet_says_nothing_and_can_be_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither messages nor bars, but the work is done all the same."""
    progress.set_quiet(True)
    progress.say("one")
    items = list(progress.track(range(5), "read", total=5))
    with progress.show_bar("read", total=5) as advance:
        advance(5)
    progress.set_quiet(False)
    progress.say("two")

    assert items == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "two\n")


def test_track_yields_the_items_and_keeps_stdout_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """In a log a short run prints no line at all."""
    items = list(progress.track("abc", "read", total=3))

    assert items == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_after_every_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count, total, unit, rate and time left, at most once per interval."""
    seconds = iter([0.0, 4.0, 11.0, 12.0, 22.0])
    monkeypatch.setattr("mnv2tl.progress.time.perf_counter", lambda: next(seconds))

    with progress.show_bar("features", total=440, unit="views") as advance:
        for count in (10, 100, 10, 100):
            advance(count)

    assert capsys.readouterr() == (
        "",
        "features: 110/440 views, 10/s, 33 s left\nfeatures: 220/440 views, 10/s, 22 s left\n",
    )


def test_a_terminal_gets_a_bar_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar shows description, count and unit, and ends complete."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    items = list(progress.track(range(7), "read", total=7, unit="files"))

    shown = terminal.getvalue()
    assert len(items) == 7
    assert "read" in shown
    assert "7/7" in shown
    assert "files/s" in shown
    assert capsys.readouterr().out == ""


def test_an_error_in_the_block_gets_out_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar hides nothing."""
    monkeypatch.setattr(sys, "stderr", _Terminal())

    with pytest.raises(KeyError), progress.show_bar("read", total=3):
        raise KeyError
