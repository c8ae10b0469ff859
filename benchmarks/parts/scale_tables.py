"""Tables on size: scans of many files, growth of features, and other scripts on the same task."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.parts.markdown import markdown, origin

Results = Sequence[dict[str, Any]]


def scan_table(found: Results) -> str:
    """Return both scans beside what they are compared to, and the memory by number of files."""
    result = found[0]
    larger = result["photographs"]
    low, high = larger["sides_px"]
    small, photographs = "first scan", f"first scan of {larger['files']:,} of {low} to {high} px"
    decoding = "decoding each to RGB with Pillow, one process per core"
    rows = [
        (
            *(what, against, f"{part['ours']:.2f} s", f"{part['theirs']:.2f} s"),
            *(
                _show_part(part),
                _show_asked("most", part["asked"], is_reached=part["ratio"] <= part["asked"]),
            ),
        )
        for what, against, part in (
            (small, decoding, result["first"]),
            (f"{small}, without near duplicates", decoding, result["first"]["plain"]),
            (photographs, decoding, larger),
            (f"{photographs}, without near duplicates", decoding, larger["plain"]),
            ("second scan, nothing changed", "`scandir` and `stat` of each", result["second"]),
        )
    ]
    head = ("what", "against", "ours", "theirs", "times as long (range)", "asked")
    memory = ", ".join(
        f"{row['files']:,} files {row['first_mb']:.0f} MB" for row in result["memory"]
    )
    first, last = result["memory"][0], result["memory"][-1]
    more_mib = (last["first_mb"] - first["first_mb"]) / (last["files"] - first["files"])
    low, high = result["sides_px"]
    rounds = len(result["first"]["runs"]["ours"])
    below = (
        f"{result['files']:,} drawn pictures of {low} to {high} px, if nothing else is said, in "
        f"the system's cache; {rounds} rounds of a first scan. Peak memory "
        f"of a first scan, without the processes that decode: {memory}; so {more_mib * 2**20:.0f} "
        "bytes more for each file."
    )
    return f"{markdown(head, rows)}\n\n{below} {origin(result)}"


def near_duplicates_table(found: Results) -> str:
    """Return which copies are found, and what each way takes for one that is none."""
    result = found[0]
    pooled, sides = result["pooled"], ("mnv2tl", "bilinear", "ImageHash")
    rows = [
        (f"copies found: {name}", *(_show_share(row[side]) for side in sides))
        for name, row in pooled["found"].items()
    ]
    strangers, seconds = pooled["strangers"], result["seconds"]
    rows.append(
        (
            f"strangers taken for copies, of {pooled['pairs']:,} pairs",
            *(str(strangers[side]) for side in sides),
        )
    )
    rows.append(
        (
            "time to decode and hash a file",
            *(f"{1e6 * seconds[side]['median']:.0f} us" for side in sides),
        )
    )
    theirs = f"`dhash` of ImageHash {result['imagehash']}"
    head = ("what", "ours", "ours with a bilinear filter", theirs)
    names = ", ".join(f"`{name}`" for name in result["folders"])
    below = (
        f"{pooled['pictures']:,} pictures of {names}; in brackets 95 % intervals. A copy is what "
        f"differs in at most {result['bits']} of 64 bits."
    )
    return f"{markdown(head, rows)}\n\n{below} {origin(result)}"


def _show_share(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['share']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


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
    below = f"At {result['image_px']} px, one run of each; asked was at most {result['asked']:g}x."
    return f"{markdown(head, rows)}\n\n{below} {origin(result)}"


def peers_table(found: Results) -> str:
    """Return each peer: seconds to the accuracy that both reach, and those of mnv2tl."""
    result = found[0]
    runs, asked = result["runs"], result["asked"]
    rows = []
    names = {"keras": "plain Keras and tf.data, TensorFlow", "torch": "plain PyTorch"}
    for name, label in names.items():
        if name not in result["median_ratio"]:
            continue
        each = [run[name] for run in runs]
        ratios = [run["ratio"] for run in each]
        whole = [run["ratio_to_whole_run"] for run in each]
        rows.append(
            (
                label,
                _accuracy([run["target"] for run in each]),
                _seconds([run["seconds"] for run in each]),
                _seconds([run["our_seconds"] for run in each]),
                _ratio(result["median_ratio"][name], [min(ratios), max(ratios)]),
                _show_asked("least", asked, is_reached=result["median_ratio"][name] >= asked),
                _ratio(statistics.median(whole), [min(whole), max(whole)]),
            )
        )
    head = (
        *("script", "accuracy", "seconds to it", f"mnv2tl on {result['backend']}"),
        *("ratio (range)", "asked", "ratio to mnv2tl's whole run"),
    )
    peers = [
        f"{name} {version}"
        for versions in result["peer_versions"].values()
        for name, version in versions.items()
    ]
    best = [max(each["val_accuracy"] for each in run["mnv2tl"]["epochs"]) for run in runs]
    below = f"{result['data']}, {result['epochs']} epochs, {len(runs)} seeds; "
    below += "ratios are medians of theirs, so not those of the seconds. Best epoch of mnv2tl "
    below += f"{_accuracy(best)}; {', '.join(peers)}."
    return f"{markdown(head, rows)}\n\n{below} {origin(result)}"


def _show_asked(bound: str, asked: float, *, is_reached: bool) -> str:
    """Return a ratio that was asked for, and whether it was missed.

    >>> _show_asked("most", 1.2, is_reached=False), _show_asked("least", 5.0, is_reached=True)
    ('at most 1.2x: missed', 'at least 5x')
    """
    return f"at {bound} {asked:g}x" + ("" if is_reached else ": missed")


def _show_part(part: dict[str, Any]) -> str:
    return _ratio(part["ratio"], part["range"])


def _accuracy(values: Sequence[float]) -> str:
    return f"{100 * statistics.median(values):.1f} %"


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} s"


def _ratio(ratio: float, limits: Sequence[float]) -> str:
    return f"{ratio:.2f}x ({limits[0]:.2f} to {limits[1]:.2f})"
