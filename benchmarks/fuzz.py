"""Damaged files by the hundred thousand for each reader of foreign bytes: none may end it.

A mutant is a small seed with flipped bits, changed bytes, a lost or doubled piece, another length
in a chunk, or a piece of another seed; of JSON, half of them are whole, with another value in them
and without the hash of the content. Seed and number give the same mutant anywhere. Readers:

- image: the decoder, on JPEG, PNG, GIF, BMP and WebP of many modes
- manifest.json, run.json, bundle.json: what is in them is read too, not the files they name
- model.onnx: the reader that judges a file before any runtime sees it

Anything but a value or an error of ours with exit 3 or 4 is a finding, and so is a mutant that
takes 5 seconds.

    python -m benchmarks.fuzz --mutants 100000

The exit status is 1 if there is a finding.
"""

from __future__ import annotations

import collections
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.fuzz_targets import TARGETS, Target
from mnv2tl.parallel import count_workers

HANG_SECONDS = 5.0
MEMORY_BYTES = 3 * 2**30
_PART = 2_000
_EXAMPLES = 5
_CHILD = "import sys; from benchmarks.fuzz import run_child; run_child(*sys.argv[1:])"


@click.command(help=record.help_text(__doc__))
@click.option("--target", "names", multiple=True, type=click.Choice(list(TARGETS)), help="Or all.")
@click.option("--mutants", default=10_000, show_default=True, help="Of each reader.")
@click.option("--first", default=0, show_default=True, help="Number of the first mutant.")
@click.option("--seed", default=0, show_default=True, help="Draws the mutants.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "fuzz.json",
    show_default="benchmarks/results/fuzz.json",
    help="JSON file; what an earlier run with other numbers found stays in it.",
)
def main(names: tuple[str, ...], mutants: int, first: int, seed: int, out: Path) -> None:
    """Let each reader read its mutants, in processes, and write what happened."""
    known = json.loads(out.read_bytes()) if out.exists() else {}
    figures = known.get("targets", {})
    for name in names or TARGETS:
        figures[name] = add(figures.get(name), fuzz(name, first, mutants, seed=seed))
        click.echo(f"{name}: {json.dumps(figures[name])}", err=True)
        guided = {"atheris": known["atheris"]} if "atheris" in known else {}
        record.write(out, {"hang_seconds": HANG_SECONDS, "targets": figures} | guided)
    if any(each["findings"] for each in figures.values()):
        sys.exit(1)


def fuzz(name: str, first: int, count: int, *, seed: int, workers: int = 0) -> dict[str, Any]:
    """Try mutants first to first + count of a reader in processes; return what happened."""
    starts = range(first, first + count, _PART)
    started = time.monotonic()

    def try_part(start: int) -> dict[str, Any]:
        return _watch(name, seed, start, min(start + _PART, first + count))

    total: dict[str, Any] | None = None
    with ThreadPoolExecutor(workers or count_workers()) as pool:
        for part in pool.map(try_part, starts):
            total = add(total, part)
    if total is None:
        raise ValueError("count must be 1 or more")
    return total | {"seconds": round(time.monotonic() - started, 1)}


def add(before: dict[str, Any] | None, more: dict[str, Any]) -> dict[str, Any]:
    """Return two results as one; what is measured by its largest value keeps that."""
    if before is None:
        return more
    both = {key: before[key] + more[key] for key in ("mutants", "crashes", "hangs", "other")}
    both["findings"] = before["findings"] + more["findings"]
    both["seconds"] = round(before["seconds"] + more["seconds"], 1)
    both["verdicts"] = {
        key: before["verdicts"].get(key, 0) + more["verdicts"].get(key, 0)
        for key in sorted({*before["verdicts"], *more["verdicts"]})
    }
    both["examples"] = (before["examples"] + more["examples"])[:_EXAMPLES]
    return both | {key: max(before[key], more[key]) for key in ("slowest_seconds", "peak_mb")}


def _watch(name: str, seed: int, first: int, last: int) -> dict[str, Any]:
    """Try mutants in a process; if it dies, go on behind the mutant that killed it."""
    total: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory() as made:
        while first < last:
            note = Path(made) / "at"
            note.write_text(str(first))
            command = [sys.executable, "-c", _CHILD, name, *map(str, (seed, first, last, note))]
            child = subprocess.run(command, cwd=record.ROOT, capture_output=True, check=False)
            if child.returncode == 0:
                return add(total, json.loads(child.stdout))
            at = int(note.read_text())
            if child.returncode > 0 and at == first and not total:
                raise RuntimeError(child.stderr.decode("utf-8", "replace")[-2000:])
            if at > first:  # what it knew of them is lost
                total = add(total, _watch(name, seed, first, at))
            is_hang = child.returncode == -signal.SIGALRM
            text = f"mutant {at}: ended with {child.returncode}"
            total = add(total, _result(1, is_hang=is_hang, is_crash=not is_hang, text=text))
            first = at + 1
    return total if total is not None else _result(0)


def _result(
    mutants: int, *, is_hang: bool = False, is_crash: bool = False, text: str = ""
) -> dict[str, Any]:
    return {
        "mutants": mutants,
        "crashes": int(is_crash),
        "hangs": int(is_hang),
        "other": 0,
        "findings": int(is_hang or is_crash),
        "verdicts": {},
        "examples": [text] if text else [],
        "slowest_seconds": 0.0,
        "peak_mb": 0,
        "seconds": 0.0,
    }


def run_child(name: str, seed: str, first: str, last: str, note: str) -> None:
    """Try mutants in this process, which may end by it, and print what happened as JSON."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as made, open(note, "r+b", buffering=0) as file:
        target = TARGETS[name](Path(made))

        def before(number: int) -> None:
            os.pwrite(file.fileno(), str(number).encode(), 0)
            signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)

        print(json.dumps(try_mutants(target, int(seed), int(first), int(last), before=before)))
        signal.setitimer(signal.ITIMER_REAL, 0)


def try_mutants(
    target: Target, seed: int, first: int, last: int, *, before: Any = lambda number: None
) -> dict[str, Any]:
    """Try mutants of a reader in this process.

    Args:
        target: The reader and its seeds.
        seed: Draws the mutants.
        first: Number of the first.
        last: Number behind the last.
        before: Called with the number of each before it is tried.
    """
    verdicts: collections.Counter[str] = collections.Counter()
    found = _result(last - first)
    for number in range(first, last):
        before(number)
        content = target.mutate(seed, number)
        started = time.perf_counter()
        try:
            verdict = target.read(content)
        except MemoryError:
            verdict = "out of memory"
        except Exception as error:  # whatever it is, it is a finding
            verdict = "other"
            found["examples"].append(f"mutant {number}: {error!r}"[:300])
        verdicts[verdict] += 1
        found["slowest_seconds"] = max(found["slowest_seconds"], time.perf_counter() - started)
    found["slowest_seconds"] = math.ceil(found["slowest_seconds"] * 1000) / 1000
    found["other"] = found["findings"] = verdicts["other"] + verdicts["out of memory"]
    found["examples"] = found["examples"][:_EXAMPLES]
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return found | {"verdicts": dict(sorted(verdicts.items()))}


if __name__ == "__main__":
    main()
