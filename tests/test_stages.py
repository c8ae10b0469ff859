from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest

from mnv2tl.stages import work_beside


def test_an_error_leaves_what_was_to_be_done_beside() -> None:
    """Nobody waits for views and networks that a failed training does not need."""
    begun = threading.Event()
    futures: list[Future[None]] = []

    def work() -> None:
        begun.set()
        time.sleep(0.1)

    def fail() -> None:
        with work_beside() as beside:
            futures.extend(beside.submit(work) for _ in range(3))
            begun.wait(20)
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        fail()

    assert [future.cancelled() for future in futures] == [False, True, True]
