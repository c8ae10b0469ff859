"""Ask an exported ONNX file about pictures, with onnxruntime and Pillow alone.

>>> classify = Classifier("bundle/model.onnx")            # doctest: +SKIP
>>> probabilities = classify(["cat.jpg", pixels])         # doctest: +SKIP
>>> classify.class_names[probabilities[0].argmax()]       # doctest: +SKIP
'cat'
"""

from __future__ import annotations

import functools
import os
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
        self._open = functools.partial(open_session, file.content, providers=providers)
        self._session = self._open(threads=threads)
        self._threads = threads or count_workers()
        self._is_on_processors = tuple(providers) == PROVIDERS

    def answer_all(
        self, load: Callable[[Item], NDArray[np.uint8] | Other], items: Sequence[Item]
    ) -> Iterator[NDArray[np.float32] | Other]:
        """Yield the probabilities of many pictures in order; see `Model.answer_all`."""
        if len(items) < _MANY or not self._is_on_processors:
            return super().answer_all(load, items)
        session = self._open(threads=1)

        def answer(item: Item) -> NDArray[np.float32] | Other:
            loaded = load(item)
            if not isinstance(loaded, np.ndarray):
                return loaded
            pixels = loaded[np.newaxis]
            row: NDArray[np.float32] = self._check(self._ask(session, pixels), pixels)[0]
            return row

        return map_ordered(answer, items, workers=self._threads)

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        return self._ask(self._session, pixels)

    def _ask(self, session: Any, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        less = f", or compute fewer at once (predict --batch {len(pixels) // 2})"
        fix = f"close other programs{less if len(pixels) > 1 else ''}"
        try:
            with explain_shortage(f"{len(pixels)} pictures at once", fix=fix):
                return np.asarray(session.run(None, {"image": pixels})[0])
        except RUNTIME_ERRORS as error:
            message = f"onnxruntime cannot run it: {first_line(error)}"
            raise ArtifactError("E412", message, path=self.path) from error
