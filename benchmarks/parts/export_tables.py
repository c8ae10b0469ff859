"""Tables on exported files: roads to ONNX, runtimes, 8 bits, and the gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.parts.markdown import markdown, origin

Results = Sequence[dict[str, Any]]


def roads_table(found: Results) -> str:
    """Return size, differences and latency of the ONNX file of each road."""
    result = found[0]
    settings = [
        f"{each['threads']} thread{'s' * (each['threads'] > 1)}, batch {each['batch']}"
        for each in result["roads"]["native"]["latency"]
    ]
    rows = []
    for name, label in _ROADS.items():
        row = result["roads"].get(name)
        if row is None:
            continue
        if "error" in row:
            rows.append((label, f"`{row['error']}`", *["-"] * (4 + len(settings))))
            continue
        cells = ["-"] * 5
        if "bytes" in row:
            made = f"{row['seconds']:.1f} s" if "seconds" in row else "-"
            differences = (row["max_logit_diff"], row["max_probability_diff"])
            sizes = (str(row["nodes"]), f"{row['bytes'] / 1e6:.2f} MB", made)
            cells = [*sizes, *(f"{each:.1e}" for each in differences)]
        rows.append((label, *cells, *(_latency(each) for each in row["latency"])))
    head = ("road", "nodes", "size", "written in", "logits", "probabilities", *settings)
    text = f"{markdown(head, rows)}\n\n"
    if result["whole_work"]:
        text += f"{_whole_work(result['whole_work'])}\n\n"
    if result["native_against_tf2onnx"]:
        text += f"{_between_roads(result['native_against_tf2onnx'])}\n\n"
    return text + origin(result, "onnxruntime", "tf2onnx", "jax2onnx")


def _whole_work(found: Results) -> str:
    rows = [
        (
            f"{row['batch']} of {row['picture'][1]} x {row['picture'][0]}",
            str(row["threads"]),
            f"{row['native']['p50_ms']:.1f} ms",
            _latency(row["keras-tensorflow"]),
        )
        for row in found
    ]
    theirs = "`model.export`, Keras on TensorFlow, with Pillow and NumPy"
    head = ("from decoded pictures to probabilities", "threads", "`export`", theirs)
    return markdown(head, rows)


def runtimes_table(found: Results) -> str:
    """Return what `mnv2tl benchmark` found about each artifact and Keras."""
    result = found[0]
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        road = f", {row['via']}" if row["format"] == "onnx" else ""
        keras = {"keras-jax": "Keras on JAX", "keras-tensorflow": "Keras on TensorFlow"}
        rows.setdefault(keras.get(row["runtime"], row["format"] + road), []).append(row)
    settings = [(row["threads"], row["batch"]) for row in next(iter(rows.values()))]
    head = [
        *("file", "size", "start", "memory", "accuracy", "largest difference"),
        *(f"{threads} core{'s' * (threads > 1)}, batch {batch}" for threads, batch in settings),
    ]
    cells = []
    for name, each in rows.items():
        first = each[0]
        cells.append(
            [
                *(name, f"{first['bytes'] / 1e6:.1f} MB"),
                f"{(first['import_ms'] + first['load_ms']) / 1000:.1f} s",
                f"{max(row['peak_rss_mb'] for row in each):.0f} MB",
                f"{100 * first['val_accuracy']:.1f} %",
                f"{max(row['max_abs_diff'] for row in each):.0e}",
                *(f"{row['p50_ms']:.1f} ms ({row['p99_ms']:.1f})" for row in each),
            ]
        )
    decode = f"Reading and resizing a picture takes {result['decode_ms']:.1f} ms besides."
    return f"{markdown(head, cells)}\n\n{decode} {origin(result, 'onnxruntime', 'tf2onnx')}"


def quantised_table(found: Results) -> str:
    """Return size, accuracy and speed of every recipe beside float32."""
    result = found[0]
    keys = {
        f"speed, batch {batch}, {threads} thread{'s' * (threads > 1)}": (
            f"p50_ms_batch_{batch}_threads_{threads}"
        )
        for batch in (1, 16)
        for threads in (1, 2)
    }
    rows = [
        [
            *(row["model"], f"{row['bytes'] / 1e6:.1f} MB", f"{100 * row['accuracy']:.1f} %"),
            *(f"{row['loss']:.3f}", f"{row['max_abs_diff']:.3f}"),
            *(f"{row['speed'][key]:.2f}x" for key in keys.values()),
        ]
        for row in result["rows"]
    ]
    head = ["model", "size", "accuracy", "log loss", "largest difference", *keys]
    return f"{markdown(head, rows)}\n\n{origin(result, 'onnxruntime')}"


def gate_table(found: Results) -> str:
    """Return what a sound file differs by, and which planted faults each pair of limits finds."""
    head = ["limit on probabilities", "on logits"]
    kinds = list(found[0]["found"])
    pairs = [row["limits"] for row in found[0]["found"][kinds[0]]]
    for result in found:
        head += [f"{kind}, Keras on {result['backend']}" for kind in kinds]
    rows = []
    for place, pair in enumerate(pairs):
        counts = [
            f"{result['found'][kind][place]['found']} of {result['trials']}"
            for result in found
            for kind in kinds
        ]
        rows.append([f"{pair[0]:.0e}", f"{pair[1]:.0e}", *counts])
    sound = ", ".join(
        f"{result['sound']['probability']:.1e} and {result['sound']['logit']:.1e} from Keras on "
        f"{result['backend']}"
        for result in found
    )
    text = f"A sound file differs by {sound} (probabilities, logits; {found[0]['images']} images)."
    return f"{markdown(head, rows)}\n\n{text} {origin(found[0], 'onnxruntime')}"


_ROADS = {
    "native": "`export`",
    "tf2onnx": "`export --via tf2onnx`",
    "keras-tensorflow": "`model.export`, Keras on TensorFlow",
    "keras-jax": "`model.export`, Keras on JAX",
    "native-network": "the first without resize, temperature and softmax",
    "openvino": "the first, in OpenVINO",
}
"""Key in roads.json -> what the table calls it, in its order."""


def _latency(row: dict[str, Any]) -> str:
    low, high = row["against_native_interval"]
    return f"{row['p50_ms']:.1f} ms, {row['against_native']:.2f} ({low:.2f} to {high:.2f})"


def _between_roads(points: dict[str, list[dict[str, Any]]]) -> str:
    words = []
    for name, label in (("convolutions", "convolutions"), ("blocks", "ends of blocks")):
        worst = max(points[name], key=lambda each: each["max"])
        mean = max(each["mean"] for each in points[name])
        words.append(
            f"at {len(points[name])} {label} at most {worst['max']:.1e} (`{worst['name']}`, values "
            f"up to {worst['largest_value']:.0f}), {mean:.1e} on average where it is most"
        )
    return f"The first two differ {'; '.join(words)}."
