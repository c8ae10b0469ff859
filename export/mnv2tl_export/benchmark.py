"""Time every artifact of a bundle, and Keras, on the same pictures in one run.

Each runtime lives in a process of its own that is kept on the wanted cores. The processes are
asked in turn, a few calls each, round after round, so that what else the machine does meets all
of them alike; what they measure is their own call, without the way there. Between two turns all
rest, and the first call of a turn is not counted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data import images
from mnv2tl.errors import ArtifactError, MachineError
from mnv2tl.metrics import top1_accuracy
from mnv2tl.parallel import map_ordered
from mnv2tl.progress import show_bar, show_step
from mnv2tl_export import golden
from mnv2tl_export.bundle import SEAL, read_seal
from mnv2tl_export.child import Child, ChildEndedError
from mnv2tl_export.defaults import FILES, REST_SECONDS
from mnv2tl_export.evaluate import read_split
from mnv2tl_export.gate import Pictures
from mnv2tl_export.onnx_file import read_onnx
from mnv2tl_export.saved_model_file import read_saved_model

Pixels = NDArray[np.uint8]

_MODULE = "mnv2tl_export.benchmark_child"
_WARM_UP_CALLS = 3
_RESAMPLES = 2000
_CHUNK_IMAGES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something that is timed."""

    runtime: str
    """Such as `onnxruntime` or `keras-jax`."""
    format: str
    """Such as `onnx`, or `keras` for a checkpoint."""
    via: str
    """What wrote the graph, or the backend."""
    kind: str
    """What the child opens: onnx, savedmodel or keras."""
    path: Path
    """The file or folder."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Changes of the child's environment."""

    @property
    def bytes(self) -> int:
        """Size of its files."""
        if self.path.is_file():
            return self.path.stat().st_size
        path = self.path / "best.keras" if self.kind == "keras" else self.path
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        return sum(each.stat().st_size for each in files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    batches: Sequence[int] = (1, 16)
    """Pictures per call."""
    threads: Sequence[int] = (1, 2)
    """Cores that a runtime may use."""
    rounds: int = 10
    """How often every runtime has its turn."""
    calls: int = 5
    """Calls in one turn."""

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        for name in ("batches", "threads"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"{name} must be 1 or more, got {tuple(values)}")
        if self.rounds < 2 or self.calls < 1:
            raise ValueError("rounds must be 2 or more, and calls 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPixels:
    """The pictures that are asked about."""

    pixels: Pixels
    """Shape (n, px, px, 3)."""
    labels: NDArray[np.int64] | None
    """Shape (n,); None for pictures without classes."""
    decode_ms: float | None
    """Median time to read and resize one file, in ms; None if none was read."""


def list_subjects(bundle: Path) -> tuple[list[Subject], list[str]]:
    """Return what of a bundle can be timed here, and a line for each thing that cannot.

    Raises:
        ArtifactError: It is no bundle, or its files are refused.
    """
    subjects, left_out = [], []
    for artifact in read_seal(bundle)["artifacts"]:
        if not artifact["passed"]:
            continue
        if artifact["path"] not in FILES.values():
            message = f"it names {artifact['path']!a}, which is no artifact"
            raise ArtifactError("E412", message, path=bundle / SEAL)
        path = bundle / artifact["path"]
        common = {"format": artifact["format"], "via": artifact["via"]}
        if artifact["format"] != "savedmodel":
            read_onnx(path)
            subjects.append(Subject(runtime="onnxruntime", kind="onnx", path=path, **common))
        elif importlib.util.find_spec("tensorflow") is None:
            left_out.append("savedmodel: tensorflow is not installed")
        else:
            place = read_saved_model(path).folder
            subjects.append(Subject(runtime="tensorflow", kind="savedmodel", path=place, **common))
    return subjects, left_out


def read_pixels(
    bundle: Path, data: Path | None, *, max_pixels: int = images.MAX_PIXELS
) -> LabelledPixels:
    """Return the validation pictures of a bundle, or the self-test's where there is no folder.

    Args:
        bundle: Of the artifacts.
        data: Folder of the images; None for the self-test's picture.
        max_pixels: Largest picture that is decoded.

    Raises:
        ArtifactError: The bundle is refused.
        DataError: A picture is missing or cannot be read.
    """
    px = int(read_seal(bundle)["image_px"])
    if data is None:
        pixels = images.resize(golden.draw_picture(), px)
        return LabelledPixels(pixels=pixels[np.newaxis], labels=None, decode_ms=None)
    entries = read_split(bundle / SEAL, data, "val")
    pictures = Pictures(entries=entries, root=data, image_px=px, max_pixels=max_pixels)

    def load(entry: Any) -> tuple[Pixels, float]:
        start = time.perf_counter()
        pixels = images.resize(pictures.load(entry), px)
        return pixels, time.perf_counter() - start

    loaded = list(map_ordered(load, entries))
    seconds = [each for _, each in loaded]
    return LabelledPixels(
        pixels=np.stack([pixels for pixels, _ in loaded]),
        labels=np.array([entry.label for entry in entries], np.int64),
        decode_ms=1000 * float(np.median(seconds)),
    )


def benchmark(
    subjects: Sequence[Subject], pictures: LabelledPixels, plan: Plan
) -> list[dict[str, Any]]:
    """Return one row per runtime, count of threads and batch size.

    `max_abs_diff` is from the first Keras among the subjects, else from the first of them all.

    Args:
        subjects: What is timed, at least one.
        pictures: What it is asked about; repeated where a batch is larger.
        plan: How much is measured.

    Raises:
        MachineError: One of their processes ended (E508), or a batch did not fit into memory
            (E505).
    """
    try:
        return _benchmark(subjects, pictures, plan)
    except ChildEndedError as error:
        fix = "measure with a smaller --batch, or without --run"
        raise MachineError("E508", f"a runtime failed: {error}", fix=fix) from error


def _benchmark(
    subjects: Sequence[Subject], pictures: LabelledPixels, plan: Plan
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    total = len(plan.threads) * len(plan.batches) * plan.rounds * len(subjects)
    with show_bar("benchmark", total=total, unit="turns") as advance:
        for threads in plan.threads:
            with _open_children(subjects, threads) as children:
                with show_step("asking each about all pictures"):
                    answers = [_answer_all(child, pictures.pixels) for child, _ in children]
                reference = _reference(subjects, answers)
                found = [
                    _time_in_turn(
                        [child for child, _ in children], pictures.pixels, size, plan, advance
                    )
                    for size in plan.batches
                ]
                for place, (child, opened) in enumerate(children):
                    common = {
                        **_describe(subjects[place], threads),
                        **opened,
                        **child.ask("memory").values,
                        "val_accuracy": None
                        if pictures.labels is None
                        else top1_accuracy(answers[place], pictures.labels),
                        "max_abs_diff": float(np.abs(answers[place] - reference).max()),
                    }
                    for size, seconds in zip(plan.batches, found, strict=True):
                        rows.append({**common, "batch": size, **summarise(seconds[place], size)})
    return rows


def summarise(seconds: NDArray[np.float64], batch: int) -> dict[str, Any]:
    """Return percentiles in ms with a 95 % bootstrap interval of each, and pictures per second.

    Args:
        seconds: Of each call, shape (calls,).
        batch: Pictures per call.
    """
    rng = np.random.default_rng(0)
    resampled = rng.choice(seconds, (_RESAMPLES, len(seconds)))
    row: dict[str, Any] = {"calls": len(seconds)}
    for share in (50, 90, 99):
        spread = np.percentile(np.percentile(resampled, share, axis=1), [2.5, 97.5])
        row[f"p{share}_ms"] = 1000 * float(np.percentile(seconds, share))
        row[f"p{share}_interval_ms"] = [1000 * float(each) for each in spread]
    row["images_per_s"] = batch / float(np.median(seconds))
    return row


@contextlib.contextmanager
def _open_children(
    subjects: Sequence[Subject], threads: int
) -> Iterator[list[tuple[Child, dict[str, float]]]]:
    """Give a process per subject, and how long it took to open it, in ms."""
    with contextlib.ExitStack() as held:
        children = []
        for subject in subjects:
            child = held.enter_context(Child(_MODULE, str(threads), env=subject.env))
            values: dict[str, Any] = {
                "kind": subject.kind,
                "path": str(subject.path),
                "threads": threads,
            }
            with show_step(f"opening {subject.format} with {subject.runtime}"):
                opened = child.ask("open", **values).values
            times = {"import_ms": 1000 * opened["import_s"], "load_ms": 1000 * opened["load_s"]}
            children.append((child, times))
        yield children


def _answer_all(child: Child, pixels: Pixels) -> NDArray[np.float64]:
    chunks = [pixels[i : i + _CHUNK_IMAGES] for i in range(0, len(pixels), _CHUNK_IMAGES)]
    answers = [child.ask("predict", arrays={"pixels": each}).arrays for each in chunks]
    return np.concatenate([each["probabilities"] for each in answers]).astype(np.float64)


def _reference(
    subjects: Sequence[Subject], answers: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    keras = [place for place, subject in enumerate(subjects) if subject.kind == "keras"]
    return answers[keras[0] if keras else 0]


def _time_in_turn(
    children: Sequence[Child], pixels: Pixels, size: int, plan: Plan, advance: Any
) -> list[NDArray[np.float64]]:
    batch = np.ascontiguousarray(np.resize(pixels, (size, *pixels.shape[1:])))
    for child in children:
        child.ask("time", arrays={"pixels": batch}, calls=_WARM_UP_CALLS)
    seconds: list[list[NDArray[np.float64]]] = [[] for _ in children]
    for _ in range(plan.rounds):
        for place, child in enumerate(children):
            time.sleep(REST_SECONDS)
            answer = child.ask("time", arrays={"pixels": batch}, calls=plan.calls + 1)
            seconds[place].append(answer.arrays["seconds"][1:])
            advance(1)
    return [np.concatenate(each) for each in seconds]


def _describe(subject: Subject, threads: int) -> dict[str, Any]:
    return {
        "runtime": subject.runtime,
        "format": subject.format,
        "via": subject.via,
        "threads": threads,
        "bytes": subject.bytes,
    }
