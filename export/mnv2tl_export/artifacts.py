"""Write one artifact of a run into a folder, and open it from there for the gate.

What is quantised or halved is made from the float32 file of the same road.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl.errors import ResultError
from mnv2tl.metrics import log_loss, top1_accuracy
from mnv2tl.progress import show_step
from mnv2tl_export import golden, onnx_model, saved_model, tf2onnx_model
from mnv2tl_export.defaults import FILES, REST_SECONDS
from mnv2tl_export.gate import Candidate
from mnv2tl_export.onnx_candidate import open_candidate
from mnv2tl_export.onnx_file import read_onnx
from mnv2tl_export.onnx_fp16 import convert_fp16
from mnv2tl_export.onnx_int8 import CALIBRATION_IMAGES, Score, search
from mnv2tl_export.parity import Floats
from mnv2tl_export.runtime import open_session
from mnv2tl_export.saved_model_file import VERSION
from mnv2tl_export.source import Source

# Half precision has 11 bits; an int8 network answers a little otherwise on other processors.
FP16_TOLERANCE = 2e-2
INT8_TOLERANCE = 0.05

_TIMED_IMAGES = 16
_TIMED_ROUNDS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What was written."""

    format: str
    """Of `FORMATS`."""
    via: str
    """What wrote the graph: native, tf2onnx or tensorflow."""
    path: Path
    """The file or folder."""
    candidate: Candidate
    """Opened from there; usable until the block that made it ends."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Further keys for bundle.json."""


class Workshop:
    """Makes the artifacts of one run.

    Args:
        source: The run.
        folder: Where the artifacts go.
        via: Of `ROADS`, what writes the graph of ONNX files.
        accuracy_budget: Validation accuracy that int8 may lose, as a share.
    """

    def __init__(self, source: Source, folder: Path, *, via: str, accuracy_budget: float) -> None:
        self.source = source
        self.folder = folder
        self.via = via
        self.accuracy_budget = accuracy_budget

    @contextlib.contextmanager
    def make(self, name: str) -> Iterator[Artifact]:
        """Write an artifact of a format and give it, opened.

        Raises:
            MachineError: A package is not installed (E508).
            ResultError: A converter gave another network than it was asked for (E601).
        """
        path = self.folder / FILES[name]
        if name == "savedmodel":
            metadata = self.source.make_metadata(format_name=name, via="tensorflow")
            folder = path / VERSION
            with show_step("writing savedmodel"):
                saved_model.write_saved_model(
                    self.source.arrays, folder, **self.source.network, metadata=metadata
                )
            with saved_model.open_candidate(folder, metadata) as candidate:
                yield Artifact(format=name, via="tensorflow", path=path, candidate=candidate)
            return
        with show_step(f"writing {name}"):
            content, notes = self._write_onnx(name)
        store.write_bytes(path, content)
        file = read_onnx(path)  # as a client would
        if file.metadata.class_names != self.source.run.class_names:
            raise ResultError("E601", f"{name} names other classes than the run", path=path)
        candidate = open_candidate(file.content, format_name=name)
        yield Artifact(format=name, via=self.via, path=path, candidate=candidate, notes=notes)

    @functools.cached_property
    def float32(self) -> bytes:
        """The float32 ONNX file; equal for equal runs and versions."""
        writer = tf2onnx_model if self.via == "tf2onnx" else onnx_model
        metadata = self.source.make_metadata(format_name="onnx", via=self.via)
        content: bytes = writer.write_model(
            self.source.arrays, **self.source.network, metadata=metadata.to_texts()
        )
        return content

    def _write_onnx(self, name: str) -> tuple[bytes, dict[str, Any]]:
        if name == "onnx-fp16":
            content = self._write_fp16()
            return content, {"latency": self._time(content)}
        if name == "onnx-int8":
            return self._write_int8()
        return self.float32, {}

    def _write_fp16(self) -> bytes:
        metadata = self.source.make_metadata(
            format_name="onnx-fp16", via=self.via, tolerance=FP16_TOLERANCE
        )
        return onnx_model.replace_metadata(convert_fp16(self.float32), metadata.to_texts())

    def _write_int8(self) -> tuple[bytes, dict[str, Any]]:
        calibration = self.source.pictures("train", at_most=CALIBRATION_IMAGES)
        found = search(
            self.float32,
            np.concatenate(list(calibration.resized_chunks())),
            self._score,
            budget=self.accuracy_budget,
        )
        picture = images.resize(golden.draw_picture(), self.source.config["image_px"])
        metadata = self.source.make_metadata(
            format_name="onnx-int8",
            via=self.via,
            tolerance=INT8_TOLERANCE,
            # Its own answer: another processor must give it too, whatever Keras says.
            answer=_ask(found.content, picture[np.newaxis])[0],
        )
        notes = {
            "recipe": found.recipe.name,
            "trials": [each.to_json() for each in found.trials],
            "latency": self._time(found.content),
        }
        return onnx_model.replace_metadata(found.content, metadata.to_texts()), notes

    def _time(self, content: bytes) -> dict[str, float]:
        """Return the median time of a call in ms beside that of float32, asked in turn."""
        px = self.source.config["image_px"]
        shown = {"image": np.full((_TIMED_IMAGES, px, px, 3), 128, np.uint8)}
        sessions = {"float32_ms": open_session(self.float32), "ms": open_session(content)}
        seconds: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(_TIMED_ROUNDS + 1):
            for name, session in sessions.items():
                time.sleep(REST_SECONDS)
                start = time.perf_counter()
                session.run(None, shown)
                seconds[name].append(time.perf_counter() - start)
        medians = {n: 1000 * statistics.median(each[1:]) for n, each in seconds.items()}
        return {"batch": _TIMED_IMAGES, **medians}

    def _score(self, content: bytes) -> Score:
        """Measure a file on the validation split."""
        pictures = self.source.pictures("val")
        session = open_session(content)
        answers = [session.run(None, {"image": pixels})[0] for pixels in pictures.resized_chunks()]
        labels = np.array([entry.label for entry in pictures.entries], np.int64)
        probabilities = np.concatenate(answers)
        return Score(
            accuracy=top1_accuracy(probabilities, labels), loss=log_loss(probabilities, labels)
        )


def _ask(content: bytes, pixels: NDArray[np.uint8]) -> Floats:
    return np.asarray(open_session(content).run(None, {"image": pixels})[0])
