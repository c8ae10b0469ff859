"""Tables on size: scans of many files, growth of features, and other scripts on the same task."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import markdown, origin

Results = Sequence[dict[str, Any]]


def scan_table(found: Results) -> str:
    """Return both scans beside what they are compared to, and the memory by number of files."""
    result = found[0]
    labels = {
        "first": ("first scan", "decoding each once with Pillow, one process per core"),
        "second": ("second scan, nothing changed", "`scandir` and `stat` of each"),
    }
    rows = []
    for key, (what, against) in labels.items():
        part = result[key]
        figures = (f"{part['ours']:.2f} s", f"{part['theirs']:.2f} s")
        rows.append((what, against, *figures, _ratio(part["ratio"], part["range"])))
    head = ("what", "against", "ours", "theirs", "ours / theirs (range)")
    memory = ", ".join(
        f"{row['files']:,} files {row['first_mb']:.0f} MB" for row in result["memory"]
    )
    below = f"{result['files']:,} files. Peak memory of a first scan, without the processes that "
    below += f"decode: {memory}."
    return f"{markdown(head, rows)}\n\n{below} {origin(result)}"


def growth_table(found: Results) -> str:
    """Return time per picture and peak memory of features by number of pictures."""
    result = found[0]
    runs: dict[int, list[dict[str, Any]]] = {}
    for run in result["runs"]:
        runs.setdefault(run["pictures"], []).append(run)
    rows = []
    for count, each in sorted(runs.items()):
        milliseconds = statistics.median(run["ms_per_picture"] for run in each)
        memory = statistics.median(run["peak_mb"] for run in each)
        rows.append(
            (
                f"{count:,}",
                f"{milliseconds:.2f} ms ({result['time_growth'][str(count)]:.2f}x)",
                f"{memory:.0f} MB ({result['memory_growth'][str(count)]:.2f}x)",
                f"{each[0]['cache_bytes'] / 1e6:.0f} MB",
            )
        )
    head = ("pictures", "time per picture", "peak memory", "cache on disk")
    return f"{markdown(head, rows)}\n\nAt {result['image_px']} px. {origin(result)}"


def peers_table(found: Results) -> str:
    """Return mnv2tl and its peers: accuracy, and seconds to the same accuracy."""
    result = found[0]
    runs = result["runs"]
    ours = [run["mnv2tl"] for run in runs]
    seconds = [run["seconds"] for run in ours]
    rows = [
        (
            f"mnv2tl on {result['backend']}, whole run",
            _accuracy([run["val_accuracy"] for run in ours]),
            _seconds(seconds),
            "1",
        )
    ]
    names = {"keras": "plain Keras and tf.data, TensorFlow", "torch": "plain PyTorch"}
    for name, label in names.items():
        if name not in result["median_ratio"]:
            continue
        each = [run[name] for run in runs]
        ratios = [run["ratio"] for run in each]
        rows.append(
            (
                label,
                _accuracy([run["best_val_accuracy"] for run in each]),
                _seconds([run["seconds"] for run in each]),
                _ratio(result["median_ratio"][name], [min(ratios), max(ratios)]),
            )
        )
    head = ("script", "best accuracy", "seconds to the same accuracy", "against mnv2tl (range)")
    peers = [
        f"{name} {version}"
        for versions in result["peer_versions"].values()
        for name, version in versions.items()
    ]
    below = f"{result['data']}, {result['epochs']} epochs, {len(runs)} seeds; {', '.join(peers)}."
    return f"{markdown(head, rows)}\n\n{below} {origin(result)}"


def _accuracy(values: Sequence[float]) -> str:
    return f"{100 * statistics.median(values):.1f} %"


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} s"


def _ratio(ratio: float, limits: Sequence[float]) -> str:
    return f"{ratio:.2f}x ({limits[0]:.2f} to {limits[1]:.2f})"
