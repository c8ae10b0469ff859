"""Apply a function in threads, in order and in constant memory.

Threads, not processes: Pillow and the runtimes let go of the interpreter lock while they work. A
scan, which meets foreign files first, decodes in processes with limits instead; see `worker_pool`.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_workers() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None
) -> Generator[Result]:
    """Yield function(item) for every item in order; at most four per thread wait to be taken.

    Args:
        function: Called in a thread; what it raises is raised at its turn.
        items: Read as far ahead as results may wait.
        workers: Number of threads; None for one per processor.

    >>> list(map_ordered(abs, [-1, 2, -3], workers=2))
    [1, 2, 3]
    """
    workers = workers or count_workers()
    waiting: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
