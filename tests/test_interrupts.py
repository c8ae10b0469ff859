from __future__ import annotations

import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from mnv2tl.data.scan import ScanConfig, inspect
from mnv2tl.errors import InterruptError
from mnv2tl.interrupts import raise_pending, wait_for, watch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_block(number: signal.Signals) -> None:
    """The error tells which signal it was, and the former handlers are back afterwards."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    with pytest.raises(InterruptError) as caught, watch_signals():
        signal.raise_signal(number)

    assert caught.value.signal_number == number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_became_another_error_is_one_again() -> None:
    """As Keras does with what is raised inside of a layer (utils/traceback_utils.py, 3.15.1)."""

    def call_layer() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except InterruptError as error:
            raise RuntimeError("Exception encountered when calling Layer.call()") from error

    with pytest.raises(InterruptError) as caught, watch_signals():
        call_layer()

    assert caught.value.signal_number == signal.SIGTERM
    with pytest.raises(ValueError, match="no signal came"), watch_signals():
        raise ValueError("no signal came")


def test_a_signal_whose_exception_was_lost_is_found_later() -> None:
    """Code that swallows the exception does not swallow the wish to stop."""
    with watch_signals():
        raise_pending()
        with pytest.raises(InterruptError):
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(InterruptError):
            raise_pending()

    with watch_signals():
        raise_pending()


def test_a_signal_in_a_finalizer_is_found_later_and_shows_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Python drops what a callback of a weak reference raises; other errors there are told."""

    class Thing:
        pass

    def finalize(call: Callable[[], object]) -> None:
        thing = Thing()
        # The reference must outlive the thing.
        reference = weakref.ref(thing, lambda _: call())
        del thing
        assert reference() is None

    former = sys.unraisablehook
    sys.unraisablehook = sys.__unraisablehook__  # pytest has its own
    try:
        with watch_signals():
            finalize(lambda: signal.raise_signal(signal.SIGINT))
            assert "Traceback" not in capsys.readouterr().err

            finalize(lambda: [].pop())
            assert "pop from empty list" in capsys.readouterr().err

            with pytest.raises(InterruptError):
                raise_pending()
        assert sys.unraisablehook is sys.__unraisablehook__
        raise_pending()
    finally:
        sys.unraisablehook = former


def test_a_scan_asks_for_a_signal_whose_exception_was_lost(tmp_path: Path) -> None:
    """A large folder takes minutes to read."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for level in range(2):
            color = (level, ord(name), 0)
            Image.new("RGB", (16, 16), color).save(tmp_path / name / f"{level}.png")

    with watch_signals():
        with pytest.raises(InterruptError):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(InterruptError):
            inspect(tmp_path, ScanConfig())

    assert inspect(tmp_path, ScanConfig()).files_read == 4


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Give Ctrl-C its usual meaning; what runs in the background may have to ignore it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("_ctrl_c")
def test_a_second_signal_does_what_it_did_before() -> None:
    """The first signal gives the handlers back, so that impatience works."""
    with watch_signals():
        with pytest.raises(InterruptError):
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_nothing_changes() -> None:
    """Python allows handlers in the main thread only; a training elsewhere still runs."""
    seen: list[object] = []

    def work() -> None:
        with watch_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [signal.getsignal(signal.SIGINT)]


def test_waiting_gives_what_the_future_gives() -> None:
    """Also its error."""

    def answer() -> int:
        time.sleep(0.15)
        return 7

    with ThreadPoolExecutor(1) as pool:
        assert wait_for(pool.submit(answer)) == 7
        with pytest.raises(ZeroDivisionError):
            wait_for(pool.submit(lambda: 1 / 0))


def test_a_signal_ends_the_wait() -> None:
    """What nobody can end any more must not hold up a Ctrl-C."""
    with watch_signals():
        with pytest.raises(InterruptError):
            signal.raise_signal(signal.SIGTERM)

        with pytest.raises(InterruptError):
            wait_for(Future[None]())
