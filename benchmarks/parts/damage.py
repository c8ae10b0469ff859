"""Damage every kind of file that the project reads back, and see whether it is found out.

A copy gets one flipped bit, or loses its end; then it is read in the way in which the project reads
it. Found is an error of ours with exit 3 or 4, or, of a cache and of the newest state, that it is
dropped with a warning or computed again. Harmless is that what is read is equal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fault_points.file_writers import make_manifest
from benchmarks.parts.index_reader import read_index, tell_index
from benchmarks.parts.record import ROOT
from mnv2tl import store, weight_cache
from mnv2tl.cache_folder import VARIABLE
from mnv2tl.checkpoint import load_run
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.stat_index import Record, StatIndex
from mnv2tl.errors import Mnv2tlError
from mnv2tl.feature_cache import FeatureSpace
from mnv2tl.state import Best, Commit, StateStore
from mnv2tl.weights import hash_arrays
from mnv2tl_export import bundle
from mnv2tl_export.evaluate import read_split
from mnv2tl_export.onnx_file import read_onnx

VERDICTS = ("found", "harmless", "silent", "bug")
"""Found and harmless are as they must be. Silent: something else was read without a word. Bug: an
exception that is none of ours, exit 1."""

_REFUSALS = (3, 4)
_MODEL = ROOT / "tests" / "golden" / "tiny.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One kind of file."""

    name: str
    """Shown in the table."""
    path: Path
    """The file."""
    read: Callable[[], Any]
    """Reads it as the project does; JSON, with None for what was dropped and is computed again."""


def run(place: Path, *, trials: int, seed: int) -> dict[str, Any]:
    """Damage one file of each kind, those of a run after a training of its own."""
    from benchmarks.fault_points import training  # noqa: PLC0415  it needs a Keras backend

    training.draw_data(place / "data")
    training.train_in(place / "trained", place / "data", lambda _: None)
    (place / "kinds").mkdir()
    kinds = make_artifacts(place / "kinds", run=place / "trained" / "run", model=_MODEL)
    return {kind.name: damage(kind, trials=trials, seed=seed) for kind in kinds}


def make_artifacts(place: Path, *, run: Path, model: Path) -> list[Artifact]:
    """Make one file of each kind.

    Args:
        place: An empty folder; the cache of this process is moved there.
        run: A finished run; it is copied.
        model: An exported .onnx file; it is copied.
    """
    os.environ[VARIABLE] = str(place / "cache")
    shutil.copytree(run, place / "run")
    return [
        *_run_artifacts(place / "run"),
        *_state_artifacts(place / "state"),
        *_feature_artifacts(place / "features"),
        _index_artifact(place / "index"),
        *_weight_artifacts(),
        *_bundle_artifacts(place, model),
    ]


def damage(artifact: Artifact, *, trials: int, seed: int) -> dict[str, Any]:
    """Return how often each verdict was given, for flipped bits and for lost ends.

    Args:
        artifact: What is damaged; it is whole again afterwards.
        trials: Flipped bits; of lost ends there are a fifth of that.
        seed: Draws the places.
    """
    rng = np.random.default_rng(seed)
    content = artifact.path.read_bytes()
    whole = artifact.read()
    table: dict[str, Any] = {"bytes": len(content)}
    ways = {"flips": _flip, "truncations": _truncate}
    for (name, harm), count in zip(ways.items(), (trials, trials // 5), strict=True):
        verdicts: Counter[str] = Counter()
        for _ in range(count):
            harmed = harm(content, rng)
            artifact.path.write_bytes(harmed)
            verdict, text = judge(artifact, whole)
            verdicts[verdict] += 1
            if verdict in ("silent", "bug"):
                table.setdefault("examples", []).append(f"{name}: {text}"[-600:])
            restore(artifact.path, content)
        table[name] = {verdict: verdicts[verdict] for verdict in VERDICTS}
    if "examples" in table:
        table["examples"] = table["examples"][:5]
    return table


def restore(path: Path, content: bytes) -> None:
    """Put a file back that a reader may have removed, and drop what it made in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    harmed = bytearray(content)
    harmed[rng.integers(len(harmed))] ^= 1 << int(rng.integers(8))
    return bytes(harmed)


def _truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def judge(artifact: Artifact, whole: Any) -> tuple[str, str]:
    """Return the verdict on a damaged file, and the error if there was one.

    Args:
        artifact: Its file is damaged.
        whole: What was read before.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            found = artifact.read()
    except Mnv2tlError as error:
        return ("found" if error.exit_code in _REFUSALS else "bug"), error.line()
    except Exception:  # whatever it is, the command line would exit with 1
        return "bug", traceback.format_exc()
    if found == whole:
        return "harmless", ""
    if isinstance(found, dict) and found.keys() >= whole.keys():
        others = [found[key] for key in whole if found[key] != whole[key]]
        if not others:
            return "harmless", "a key that nobody asks for"
        if others == [None] * len(others):
            return "found", "dropped"
    if isinstance(found, dict) and "warning" in said.getvalue():
        return "found", "the former state is used"
    return "silent", json.dumps(found)[:300]


def _run_artifacts(run: Path) -> Iterator[Artifact]:
    yield Artifact(name="run.json", path=run / "run.json", read=lambda: load_run(run).info)
    yield Artifact(
        name="best.keras",
        path=run / "best.keras",
        read=lambda: hash_arrays(load_run(run).read_arrays()),
    )
    path = run / "manifest.json"
    make_manifest("old").save(path)
    yield Artifact(name="manifest.json", path=path, read=lambda: Manifest.load(path).to_json())


def _state_artifacts(folder: Path) -> Iterator[Artifact]:
    state = StateStore(folder)
    rng = np.random.default_rng(3)
    for epoch in (1, 2):
        kernel = rng.normal(size=(40, 30)).astype(np.float32)
        best = state.save_arrays(f"best-{epoch:04}", {"kernel": kernel})
        file = state.save_arrays(f"epoch-{epoch:04}", {"kernel": kernel, "moment": kernel / 2})
        history = tuple({"epoch": n, "loss": 1 / n, "val_loss": 2 / n} for n in range(1, epoch + 1))
        value = Best(epoch=epoch, phase=0, value=1 / epoch, file=best)
        state.commit(Commit(phase=0, file=file, history=history, best=value))
    newest = state.commits[-1]

    def read() -> dict[str, Any]:
        again = StateStore(folder)
        commit = again.load()
        if commit is None:
            return {"commit": "none"}
        files = (commit.file, commit.best.file)
        return {
            "commit": asdict(commit),
            "arrays": [hash_arrays(again.load_arrays(name)) for name in files],
        }

    yield Artifact(name="state.json", path=folder / "state.json", read=read)
    yield Artifact(name="state, last epoch", path=folder / newest.file, read=read)
    yield Artifact(name="state, best epoch", path=folder / newest.best.file, read=read)


def _feature_artifacts(folder: Path) -> Iterator[Artifact]:
    shape, keys = (4, 4, 8), [f"{store.sha256_bytes(bytes([n]))}-{n}" for n in range(16)]
    features = np.random.default_rng(4).normal(size=(16, *shape)).astype(np.float16)

    def open_space() -> FeatureSpace:
        return FeatureSpace.open(folder, {}, shape=shape, dtype=features.dtype, wanted=keys)

    space = open_space()
    space.add(keys, features)
    (index,) = space.index_paths
    array = index.with_suffix(".npy")
    contents = {path: path.read_bytes() for path in (index, array)}

    def read() -> dict[str, Any]:
        space = open_space()
        rows = {key: space.read([key]).tolist() if key in space.rows else None for key in keys}
        for path, content in contents.items():
            if not path.exists():  # a damaged pack is removed whole
                path.write_bytes(content)
        return rows

    yield Artifact(name="features", path=array, read=read)
    yield Artifact(name="features, index", path=index, read=read)


def _index_artifact(folder: Path) -> Artifact:
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    files = [pictures / f"{number:03}.png" for number in range(60)]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * number)
    stats = [file.stat() for file in files]
    time.sleep(0.3)  # the index does not take files that are younger than a tick of the clock
    path = folder / "images.sqlite"
    index = StatIndex(path, rule="rule")
    index.load([str(pictures)])
    for number, (file, status) in enumerate(zip(files, stats, strict=True)):
        record = Record(sha256=store.sha256_bytes(bytes([number])), width=number, height=9)
        tell_index(index, file, status, record)
    index.flush()

    def read() -> dict[str, Any]:
        index = StatIndex(path, rule="rule")
        index.load([str(pictures)])
        found = read_index(index, files, stats)
        return {file.name: each and each._asdict() for file, each in zip(files, found, strict=True)}

    return Artifact(name="stat index", path=path, read=read)


def _weight_artifacts() -> Iterator[Artifact]:
    def read() -> str:
        content = weight_cache.read_cached("imagenet", alpha=0.35, image_px=96)
        return store.sha256_bytes(content)

    path = weight_cache.cached_path("imagenet", alpha=0.35, image_px=96)
    # Only its hash is looked at before anything else is.
    store.write_bytes(path, np.random.default_rng(5).bytes(20_000))
    read()
    yield Artifact(name="base weights", path=path, read=read)
    record = path.with_name(f"{path.name}.json")
    yield Artifact(name="base weights, record", path=record, read=read)


def _bundle_artifacts(place: Path, model: Path) -> Iterator[Artifact]:
    out, data = place / "bundle", place / "data"
    data.mkdir()
    digests = []
    for number in range(6):
        content = b"\x89PNG\r\n\x1a\n" + bytes([number]) * 100
        (data / f"{number}.png").write_bytes(content)
        digests.append((store.sha256_bytes(content), number % 3))
    with bundle.new_bundle(out) as folder:
        shutil.copy(model, folder / "model.onnx")
        split = {"schema": 1, "train": digests[:3], "val": digests[3:], "test": []}
        store.write_json(folder / "split.json", split)
        store.write_json(folder / "parity.json", [{"format": "onnx", "max_abs_diff": 1.25e-6}])
        bundle.seal(folder, {"class_names": ["a", "b"], "image_px": 96, "artifacts": []})

    def read_paper(name: str) -> Callable[[], str]:
        def read() -> str:
            content = (out / name).read_bytes()
            bundle.check_content(out / name, content)
            return store.sha256_bytes(content)

        return read

    path = out / "model.onnx"
    yield Artifact(
        name="model.onnx", path=path, read=lambda: store.sha256_bytes(read_onnx(path).content)
    )
    yield Artifact(
        name="split.json",
        path=out / "split.json",
        read=lambda: [asdict(entry) for entry in read_split(path, data, "all")],
    )
    # Nobody but people read this one; the check is the one of the other files.
    yield Artifact(name="parity.json", path=out / "parity.json", read=read_paper("parity.json"))
    yield Artifact(name="bundle.json", path=out / "bundle.json", read=lambda: bundle.read_seal(out))
