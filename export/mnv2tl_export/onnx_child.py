"""The process in which a foreign ONNX file runs: `python -m mnv2tl_export.onnx_child`."""

from __future__ import annotations

from typing import Any

import numpy as np

from mnv2tl.errors import ArtifactError
from mnv2tl_export.child import Message, serve
from mnv2tl_export.runtime import RUNTIME_ERRORS, first_line, open_session


class _Model:
    """A session, opened by the first question."""

    def __init__(self) -> None:
        self._session: Any = None

    def open(self, question: Message) -> Message:
        """Open the bytes of an .onnx file."""
        content = question.arrays["content"].tobytes()
        self._session = open_session(content, threads=question.values["threads"])
        return Message()

    def predict(self, question: Message) -> Message:
        """Return the answers to pixels (n, h, w, 3)."""
        name = self._session.get_inputs()[0].name
        try:
            answers = self._session.run(None, {name: question.arrays["pixels"]})
        except RUNTIME_ERRORS as error:
            raise ArtifactError(
                "E412", f"onnxruntime cannot run it: {first_line(error)}"
            ) from error
        return Message(arrays={"answers": np.asarray(answers[0])})


if __name__ == "__main__":
    model = _Model()
    serve({"open": model.open, "predict": model.predict})
