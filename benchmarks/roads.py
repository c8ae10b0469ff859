"""Four roads from one run to ONNX: what they answer, their size, their latency in onnxruntime.

- native: `mnv2tl export --format onnx`;
- tf2onnx: the same `--via tf2onnx`;
- keras-tensorflow, keras-jax: Keras' own `model.export(format="onnx")`, which goes through tf2onnx
  on TensorFlow and through jax2onnx on JAX. An error of theirs is written in place of figures.

Each is written by a process of its own. The files of Keras take float pixels of the network's size
to logits. So all roads get the validation pictures as Pillow resizes them; Keras' get them as
floats already, and temperature and softmax are left out of what is timed. That is in their favour.
Like for like stands beside it twice: native-network is the native file cut to the same input and
output, and whole_work times both from decoded pictures to their probabilities.

Differences are from Keras on the backend of this process. The native and the tf2onnx file are also
compared at each of the 52 convolutions, after BatchNorm, and at the end of each of the 17 blocks.

Latency: all files are open in this process, with equal options. They are asked in turn, in an order
that is drawn for each round; the first round, and the first call of each turn, are not counted.
Threads stop spinning when a call ends (`session.force_spinning_stop`), since those of one file
would take the cores from the next; within a call they spin as they do by default. Intervals are
95 %, from resampled rounds; ratios are taken within a round. OpenVINO, if it is installed, runs the
native file in the same turns, in float32, compiled for pictures of this size.

    KERAS_BACKEND=jax python -m benchmarks.roads RUN

Needs TensorFlow, tf2onnx, JAX and jax2onnx. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.parts import record, road_points
from benchmarks.parts.road_latency import (
    OURS,
    THREADS,
    Pixels,
    as_input,
    measure_latency,
    measure_whole_work,
    open_session,
)
from benchmarks.parts.road_writer import ROADS
from benchmarks.parts.run_options import run_options
from benchmarks.parts.timing import get_ready
from mnv2tl import store
from mnv2tl.backend import list_versions
from mnv2tl.checkpoint import load_run
from mnv2tl.metrics import softmax, top1_accuracy
from mnv2tl.mobilenet import INPUT, list_layers
from mnv2tl.progress import track
from mnv2tl_export.gate import ask_reference
from mnv2tl_export.onnx_candidate import ask_logits
from mnv2tl_export.onnx_model import LOGITS, RESIZED, replace_metadata
from mnv2tl_export.onnx_network import walk
from mnv2tl_export.runtime import RUNTIME_ERRORS, first_line
from mnv2tl_export.source import Source, open_source

NETWORK = "native-network"
"""What the native file is called without all that Keras' files lack."""
_CHUNK_IMAGES = 16


def write_road(source: Source, road: str, path: Path) -> dict[str, Any]:
    """Write one file; return the seconds it took, or the first line of the error.

    Args:
        source: The run.
        road: A key of `ROADS`.
        path: File in a folder of its own, where further files may come to lie.
    """
    path.parent.mkdir()
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if road not in OURS:
        environment["KERAS_BACKEND"] = road.removeprefix("keras-")
    words = ["-m", "benchmarks.parts.road_writer", os.path.abspath(source.run.folder)]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words, "--road", road, "--out", str(path)],
        check=False,
        cwd=record.ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        return {"error": find_error(done.stderr) or f"exit {done.returncode}"}
    if road in OURS:
        texts = source.make_metadata(format_name="onnx", via=road).to_texts()
        store.write_bytes(path, replace_metadata(path.read_bytes(), texts))
    written = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": written["seconds"], "process_seconds": seconds}


def find_error(stderr: str) -> str:
    r"""Return the first line of the error that ended a Python process.

    >>> find_error("Traceback (most recent call last):\n  File\nImportError: no x\nInstall it")
    'ImportError: no x'
    """
    lines = stderr.rpartition("Traceback (most recent call last):")[2].splitlines()
    return next((line for line in lines if line and not line.startswith(" ")), "")[:300]


def describe_file(path: Path) -> dict[str, Any]:
    """Return nodes, versions and bytes of a file and the data beside it."""
    files = [each.stat().st_size for each in path.parent.iterdir()]
    model = onnx.load(path, load_external_data=False)
    nodes = list(walk(model.graph.node))
    return {
        "nodes": len(nodes),
        "nodes_of_resize": sum(node.output[0].startswith("resize/") for node in nodes),
        "bytes": sum(files),
        "files": len(files),
        "opset": next(each.version for each in model.opset_import if not each.domain),
        "ir_version": model.ir_version,
    }


def cut_network(content: bytes) -> bytes:
    """Return the network of one of our files alone: float pixels (n, px, px, 3) to logits."""
    model = onnx.load_from_string(content)
    graph = model.graph
    px = _constants(graph, "resize/square")
    nodes = [each for each in graph.node if not each.output[0].startswith("resize/")]
    last = next(at for at, node in enumerate(nodes) if LOGITS in node.output)
    read = {name for node in nodes[: last + 1] for name in node.input}
    constants = [each for each in graph.initializer if each.name in read]
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    for part in (graph.node, graph.initializer, graph.input, graph.output):
        del part[:]
    for node in nodes[: last + 1]:
        node.input[:] = [INPUT if name == RESIZED else name for name in node.input]
        graph.node.append(node)
    graph.initializer.extend(constants)
    float32 = TensorProto.FLOAT
    graph.input.append(helper.make_tensor_value_info(INPUT, float32, ("N", *px, 3)))
    graph.output.append(helper.make_tensor_value_info(LOGITS, float32, ("N", classes)))
    onnx.checker.check_model(model, full_check=True)
    network: bytes = model.SerializeToString()
    return network


def ask_road(road: str, path: Path, pixels: Pixels, *, temperature: float) -> list[NDArray[Any]]:
    """Return the logits and the probabilities for pixels (n, px, px, 3)."""
    chunks = [pixels[at : at + _CHUNK_IMAGES] for at in range(0, len(pixels), _CHUNK_IMAGES)]
    session = open_session(path, threads=max(THREADS))
    answers = [session.run(None, {"image": as_input(road, each)})[0] for each in chunks]
    if road not in OURS:
        logits = np.concatenate(answers)
        return [logits, softmax(logits, temperature=temperature)]
    ask = ask_logits(path.read_bytes())
    return [np.concatenate([ask(each) for each in chunks]), np.concatenate(answers)]


def _constants(graph: onnx.GraphProto, name: str) -> list[int]:
    tensor = next(each for each in graph.initializer if each.name == name)
    values: list[int] = numpy_helper.to_array(tensor).tolist()
    return values


def _judge(
    answers: list[NDArray[Any]], expected: list[NDArray[Any]], labels: NDArray[np.int64]
) -> dict[str, float]:
    """Return the largest differences of logits and probabilities, and the accuracy."""
    logits, probabilities = (
        float(np.abs(a - b).max()) for a, b in zip(answers, expected, strict=True)
    )
    return {
        "max_logit_diff": logits,
        "max_probability_diff": probabilities,
        "accuracy": top1_accuracy(answers[1], labels),
    }


def measure(source: Source, folder: Path, *, rounds: int, count: int) -> dict[str, Any]:
    """Write all files into a folder and return the figures."""
    pictures, temperature = source.pictures("val"), source.temperature or 1.0
    chunks = list(pictures.resized_chunks())
    pixels = np.concatenate(chunks)
    labels = np.array([entry.label for entry in pictures.entries], np.int64)
    logits = ask_reference(source.reference, pictures)
    expected = [logits, softmax(logits, temperature=temperature)]
    rows: dict[str, dict[str, Any]] = {}
    files: dict[str, Path] = {}
    for road in track(ROADS, "write", total=len(ROADS), unit="roads"):
        path = folder / road / "model.onnx"
        rows[road] = write_road(source, road, path)
        if "error" in rows[road]:
            continue
        try:
            answers = ask_road(road, path, pixels, temperature=temperature)
        except RUNTIME_ERRORS as error:
            rows[road]["error"] = first_line(error)
            continue
        files[road] = path
        rows[road] |= describe_file(path) | _judge(answers, expected, labels)
    if "native" not in files:
        raise click.ClickException(f"native: {rows['native']['error']}")
    files[NETWORK] = folder / NETWORK / "model.onnx"
    files[NETWORK].parent.mkdir()
    store.write_bytes(files[NETWORK], cut_network(files["native"].read_bytes()))
    answers = ask_road(NETWORK, files[NETWORK], pixels, temperature=temperature)
    rows[NETWORK] = describe_file(files[NETWORK]) | _judge(answers, expected, labels)
    for name, each in measure_latency(files, pixels, rounds=rounds, count=count).items():
        rows.setdefault(name, {})["latency"] = each
    whole_work = []
    if "keras-tensorflow" in files:
        whole_work = measure_whole_work(
            files,
            image_px=source.config["image_px"],
            temperature=temperature,
            rounds=rounds,
            count=count,
        )
    between = None
    if set(OURS) <= files.keys():
        layers = list_layers(alpha=source.config["alpha"], image_px=source.config["image_px"])
        between = road_points.compare([files[road] for road in OURS], layers, chunks)
    return {
        "val_images": len(pixels),
        "keras_accuracy": top1_accuracy(expected[1], labels),
        "roads": rows,
        "whole_work": whole_work,
        "native_against_tf2onnx": between,
    }


def _list_versions() -> dict[str, str]:
    """Return the versions that every result file has, and that of jax2onnx."""
    versions = list_versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["jax2onnx"] = importlib.metadata.version("jax2onnx")
    return versions


@click.command(help=record.help_text(__doc__))
@run_options("roads", rounds=40)
def main(run: Path, data: Path | None, out: Path, rounds: int, calls: int) -> None:
    """Measure and write the figures."""
    conditions = get_ready(sys.executable)
    source = open_source(load_run(run), data=data)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(source, Path(folder), rounds=rounds, count=calls)
    settings = {
        "data": source.root.name,
        "trained_on": source.run.info["backend"],
        "compared_with": f"keras on {keras.backend.backend()}",
        "image_px": source.config["image_px"],
        "alpha": source.config["alpha"],
        "temperature": source.temperature,
        "rounds": rounds,
        "calls": calls,
        "spinning": "stopped when a call ends",
        "conditions": conditions,
    }
    record.write(out, settings | figures | {"versions": _list_versions()})
    for name, row in figures["roads"].items():
        click.echo(f"{name}: {json.dumps(row)}")


if __name__ == "__main__":
    main()
