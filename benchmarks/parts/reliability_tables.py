"""Tables on what faults, foreign files and long trainings leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.parts.markdown import markdown, origin, with_all_versions

Results = Sequence[dict[str, Any]]

PREFIXES = ("faults", "attacks", "corpus", "fuzz")
"""What `faults_table` reads."""


def faults_table(found: Results) -> str:
    """Return how many faults were tried on what, and what they broke."""
    result = next(each for each in found if "writers" in each)
    summary = result["summary"]
    writers = result["writers"].values()
    points = sum(each["all_points"] for each in writers)
    training = result["training"]["all_points"]
    kills, damage = result["kills"], list(result["damage"].values())
    flips = sum(sum(each["flips"].values()) for each in damage)
    cuts = sum(sum(each["truncations"].values()) for each in damage)
    rows = [
        [
            f"kill, half write, full disk, I/O error at each call of {len(writers)} writers",
            *(str(points), str(sum(sum(each["broken"].values()) for each in writers))),
        ],
        [
            "the same at some calls of a whole training on JAX",
            *(str(training), str(sum(result["training"]["broken"].values()))),
        ],
        [
            "trainings killed at a random moment and resumed: weights not bit-equal",
            *(str(kills["killed"]), str(kills["killed"] - kills["equal"])),
        ],
        [
            f"flipped bits in {len(damage)} kinds of file: not noticed, or a crash",
            *(str(flips), str(sum(e["flips"]["silent"] + e["flips"]["bug"] for e in damage))),
        ],
        [
            "lost ends of the same",
            str(cuts),
            str(sum(e["truncations"]["silent"] + e["truncations"]["bug"] for e in damage)),
        ],
        [
            "for comparison: `Model.save`, `save_weights` and `BackupAndRestore` of plain Keras",
            *(str(summary["plain_keras_points"]), str(summary["plain_keras_broken_points"])),
        ],
    ]
    rows[-1:-1] = [row for each in found for row in _list_readings(each)]
    return f"{markdown(('fault', 'tried', 'broken'), rows)}\n\n{origin(result)}"


def memory_table(found: Results) -> str:
    """Return how much a long training grows, on each backend."""
    rows = []
    for result in found:
        steps = result["steps_kb"].values()
        rows.append(
            (
                result["backend"],
                f"{result['epochs']:,}",
                f"{result['rss_mb']['after_warm_up']:.0f} MB",
                f"{result['rss_mb']['last']:.0f} MB",
                _show_slope(result, "kb_per_epoch"),
                _show_slope(result, "kb_per_epoch_without_steps"),
                f"{result['history_row_kb']:.1f} KB",
                f"{len(steps)}, {sum(steps) / 1024:.0f} MB" if steps else "none",
            )
        )
    warm_up = found[0]["warm_up"]
    head = (
        *("backend", "epochs", f"memory after {warm_up}", "at the end", "growth an epoch"),
        *("without steps of the heap", "of that, the history of epochs", "steps of the heap"),
    )
    return f"{markdown(head, rows)}\n\n{origin(with_all_versions(found))}"


def _show_slope(result: dict[str, Any], key: str) -> str:
    low, high = result[f"{key}_interval"]
    return f"{result[key]:.1f} KB ({low:.1f} to {high:.1f})"


def _list_readings(result: dict[str, Any]) -> list[list[str]]:
    """Return rows on foreign files: how many were tried, and how many crashed, hung or leaked."""
    if "archive" in result:
        broken = result["crashes"] + result["hangs"] + len(result["other_exceptions"])
        return [[f"test images of {result['archive']}", str(result["files"]), str(broken)]]
    if "roads" in result:
        ours = {n: row for n, row in result["roads"].items() if n.startswith("mnv2tl")}
        theirs = [row for name, row in result["roads"].items() if name not in ours]
        return [
            _count_leaks("ONNX files that name a file elsewhere, opened here", [*ours.values()]),
            _count_leaks("for comparison: the same, opened by onnxruntime alone", theirs),
        ]
    if "targets" not in result:
        return []
    targets = result["targets"]
    tried = {
        "mutated pictures": [targets["image"]],
        "mutated manifests, run.json, bundle.json and ONNX files": [
            each for name, each in targets.items() if name != "image"
        ],
    }
    rows = [
        [
            label,
            str(sum(each["mutants"] for each in several)),
            str(sum(each["crashes"] + each["hangs"] + each["other"] for each in several)),
        ]
        for label, several in tried.items()
    ]
    if guided := result.get("atheris"):
        executions = sum(guided["executions"].values())
        label = "the same four readers, guided by the code that is reached"
        rows.append([label, str(executions), str(guided["findings"])])
    return rows


def _count_leaks(label: str, roads: Sequence[dict[str, Any]]) -> list[str]:
    tried = sum(row["attacks"] for row in roads)
    return [label, str(tried), str(sum(len(row["leaks"]) for row in roads))]
