"""Ask an exported ONNX file about pictures, with onnxruntime and Pillow alone.

>>> classify = Classifier("bundle/model.onnx")            # doctest: +SKIP
>>> probabilities = classify(["cat.jpg", pixels])         # doctest: +SKIP
>>> classify.class_names[probabilities[0].argmax()]       # doctest: +SKIP
'cat'
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.errors import ArtifactError
from mnv2tl.memory import explain_shortage
from mnv2tl_export.defaults import BATCH_SIZE, PROVIDERS
from mnv2tl_export.model import Model
from mnv2tl_export.onnx_file import read_onnx
from mnv2tl_export.runtime import RUNTIME_ERRORS, first_line, open_session


class Classifier(Model):
    """An exported model, opened once and asked often.

    It may be called from several threads.

    Args:
        path: An .onnx file that `mnv2tl export` wrote.
        batch_size: Pictures that are computed at once.
        threads: Threads of one computation; None for one per core.
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
        self._session = open_session(file.content, threads=threads, providers=providers)

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        less = f", or compute fewer at once (predict --batch {len(pixels) // 2})"
        fix = f"close other programs{less if len(pixels) > 1 else ''}"
        try:
            with explain_shortage(f"{len(pixels)} pictures at once", fix=fix):
                return np.asarray(self._session.run(None, {"image": pixels})[0])
        except RUNTIME_ERRORS as error:
            message = f"onnxruntime cannot run it: {first_line(error)}"
            raise ArtifactError("E412", message, path=self.path) from error
