"""Open an ONNX file for the gate: the published bytes, and copies that show what is inside."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mnv2tl.errors import ArtifactError
from mnv2tl.mobilenet import INPUT
from mnv2tl_export.gate import Ask, Candidate
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_model import LOGITS, OUTPUT, RESIZED
from mnv2tl_export.parity import Floats
from mnv2tl_export.runtime import RUNTIME_ERRORS, first_line, open_session


def open_candidate(content: bytes, *, format_name: str = "onnx") -> Candidate:
    """Return an artifact of these bytes.

    Args:
        content: What `onnx_model.write_model` gave, as read back from the file.
        format_name: What the gate calls it.

    Raises:
        ArtifactError: onnxruntime or our reader refuses it (E411, E412).
    """
    model = onnx.load_from_string(content)
    texts = {each.key: each.value for each in model.metadata_props}
    metadata = Metadata.from_texts(texts)
    shape = (-1, metadata.image_px, metadata.image_px, 3)
    to_resized = _asker(_show_tensor(model, RESIZED, TensorProto.UINT8), RESIZED)
    return Candidate(
        format=format_name,
        predict=_asker(content, OUTPUT),
        logits=ask_logits(content),
        resize=lambda pixels: to_resized(pixels).reshape(shape),
        selftest=metadata.selftest,
    )


def ask_logits(content: bytes) -> Ask:
    """Return a function from pixels (n, h, w, 3) to the logits inside of an ONNX file."""
    part = _show_tensor(onnx.load_from_string(content), LOGITS, TensorProto.FLOAT)
    return _asker(part, LOGITS)


def _show_tensor(model: onnx.ModelProto, name: str, kind: int) -> bytes:
    """Return the part of a model that makes one tensor, as a model whose output that is."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    ends = [number for number, node in enumerate(part.graph.node) if name in node.output]
    del part.graph.node[ends[0] + 1 :]
    del part.graph.output[:]
    part.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    content: bytes = part.SerializeToString()
    return content


def _asker(content: bytes, output: str) -> Ask:
    session = open_session(content)

    def ask(pixels: NDArray[np.uint8]) -> Floats:
        try:
            return np.asarray(session.run([output], {INPUT: pixels})[0])
        except RUNTIME_ERRORS as error:
            message = f"onnxruntime cannot run it: {first_line(error)}"
            raise ArtifactError("E412", message) from error

    return ask
