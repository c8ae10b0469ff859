"""Ask an exported ONNX file about pictures, with onnxruntime and Pillow alone.

>>> classify = Classifier("bundle/model.onnx")            # doctest: +SKIP
>>> probabilities = classify(["cat.jpg", pixels])         # doctest: +SKIP
>>> classify.class_names[probabilities[0].argmax()]       # doctest: +SKIP
'cat'
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.errors import ArtifactError
from mnv2tl.memory import explain_shortage
from mnv2tl.parallel import count_workers, map_ordered
from mnv2tl_export.defaults import BATCH_SIZE, PROVIDERS
from mnv2tl_export.model import Item, Model, Other
from mnv2tl_export.onnx_file import read_onnx
from mnv2tl_export.runtime import RUNTIME_ERRORS, first_line, open_session

_MANY = 64
"""Pictures that repay opening the file a second time, which takes as long as 64 save."""


class Classifier(Model):
    """An exported model, opened once and asked often.

    It may be called from several threads. On processors, each of many pictures is read and computed
    by a thread of its own: threads that work at one picture wait for each other after every layer.

    Args:
        path: An .onnx file that `mnv2tl export` wrote.
        batch_size: Pictures that are asked about together, where there are few.
        threads: Threads that compute; None for one per core.
        providers: onnxruntime's execution providers, in the order of preference.

    Raises:
        ArtifactError: The file is refused; see `onnx_file.read_onnx`.
        MachineError: A provider is not available here (E508).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        providers: Sequence[str] = PROVIDERS,
    ) -> None:
        file = read_onnx(Path(path))
        super().__init__(file.path, file.metadata, batch_size=batch_size)
        self._content, self._providers = file.content, providers
        self._session = open_session(file.content, threads=threads, providers=providers)
        self._threads = threads or count_workers()
        self._lone_session: Any = None  # is asked by several threads, each on its own
        self._lock = threading.Lock()

    def answer_all(
        self, load: Callable[[Item], NDArray[np.uint8] | Other], items: Sequence[Item]
    ) -> Iterator[NDArray[np.float32] | Other]:
        """Yield the probabilities of many pictures in order; see `Model.answer_all`."""
        is_on_processors = tuple(self._providers) == PROVIDERS
        # With fewer threads than cores, the others still read ahead.
        if len(items) < _MANY or not is_on_processors or self._threads < count_workers():
            return super().answer_all(load, items)
        session = self._open_lone_session()
        count = self._threads
        less = f"use fewer threads (predict --threads {count // 2})"

        def answer(item: Item) -> NDArray[np.float32] | Other:
            loaded = load(item)
            if not isinstance(loaded, np.ndarray):
                return loaded
            pixels = loaded[np.newaxis]
            found = self._ask(session, pixels, count=count, less=less)
            row: NDArray[np.float32] = self._check(found, pixels)[0]
            return row

        return map_ordered(answer, items, workers=self._threads)

    def _open_lone_session(self) -> Any:
        with self._lock:
            if self._lone_session is None:
                self._lone_session = open_session(
                    self._content, threads=1, providers=self._providers, is_known=True
                )
            return self._lone_session

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        count = len(pixels)
        less = f"compute fewer at once (predict --batch {count // 2})"
        return self._ask(self._session, pixels, count=count, less=less)

    def _ask(
        self, session: Any, pixels: NDArray[np.uint8], *, count: int, less: str
    ) -> NDArray[Any]:
        """Run the model; `count` pictures are computed at once, `less` says how to lower it."""
        fix = f"close other programs{f', or {less}' if count > 1 else ''}"
        try:
            with explain_shortage(f"{count} pictures at once", fix=fix):
                return np.asarray(session.run(None, {"image": pixels})[0])
        except RUNTIME_ERRORS as error:
            message = f"onnxruntime cannot run it: {first_line(error)}"
            raise ArtifactError("E412", message, path=self.path) from error
