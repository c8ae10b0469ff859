"""How every benchmark takes time: compiled bytecode, two things in turn, medians with their spread.

A result file holds `conditions`, the answers' largest difference, and `bars`: what is compared to
what, both figures, and what was asked for. speed_tables.py and chart.py read the bars.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import click
import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.parts import record

MNV2TL = ("-c", "from mnv2tl.cli import run; run()")
"""Arguments of an interpreter that make it the command line, installed or not."""

NAMES = {"jax": "JAX", "tensorflow": "TensorFlow"}
"""Backend -> what people call it."""

Call = Callable[[], object]
Kind = Literal["speed", "rate", "difference", "value"]


class UnequalError(click.ClickException):
    """Two sides gave other answers, so their speeds are not comparable."""


def get_ready(*pythons: str) -> dict[str, Any]:
    """Compile the bytecode of all interpreters, here too, and let Python write more of it.

    Returns:
        The conditions of the measurement.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # compiling is a load too
    record.ask_git()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for python in dict.fromkeys(pythons):
        compile_everything(python)
    return {
        "bytecode": "compiled before",
        "PYTHONDONTWRITEBYTECODE": "unset",
        "load_average": load,
    }


def compile_everything(python: str) -> None:
    """Write the bytecode of the interpreter's packages and of this checkout."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout
    folders = [site.strip(), *(str(record.ROOT / name) for name in ("mnv2tl", "benchmarks"))]
    folders.append(str(record.ROOT / "export" / "mnv2tl_export"))
    # Packages carry files of other Python versions, which do not compile.
    command = [python, "-m", "compileall", "-q", *folders]
    subprocess.run(command, check=False, capture_output=True, env=make_environment())


def make_environment(**changes: str) -> dict[str, str]:
    """Return the environment of a timed process: this one's, quiet, and bytecode may be written.

    Args:
        changes: Variables to set.
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | changes
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def run_process(command: Sequence[str], **changes: str) -> tuple[float, str]:
    """Run a process from start to exit; return its seconds and what it printed.

    Args:
        command: Program and arguments; it starts in the checkout.
        changes: Environment variables to set.

    Raises:
        click.ClickException: Its exit status is not 0.
    """
    environment = make_environment(**changes)
    start = time.perf_counter()
    done = subprocess.run(
        command, check=False, cwd=record.ROOT, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise click.ClickException(f"exit {done.returncode}: {done.stderr[-2000:]}")
    return seconds, done.stdout


def time_in_turn(
    calls: Mapping[str, Call], *, rounds: int, count: int, rest_seconds: float = 0.0
) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each call, shape (rounds, count).

    All have their turn in every round, in an order that is drawn. The first round, and the first
    call of each turn, are not counted.

    Args:
        calls: What is timed.
        rounds: Counted turns of each.
        count: Counted calls in one turn.
        rest_seconds: Pause before each turn, so that threads of the former one look for no more
            work.
    """
    rng = np.random.default_rng(0)
    names = list(calls)
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(rounds + 1):
        for place in rng.permutation(len(names)):
            call = calls[names[place]]
            time.sleep(rest_seconds)
            seconds[names[place]].append([_time(call) for _ in range(count + 1)][1:])
    return {name: np.array(each[1:]) for name, each in seconds.items()}


def run_in_turn(calls: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """Return what each call says of itself, once a round, in an order that is drawn.

    Args:
        calls: Each returns its seconds; the first round is not counted.
        rounds: Counted rounds.
    """
    rng = np.random.default_rng(0)
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds + 1):
        for place in rng.permutation(len(names)):
            found[names[place]].append(calls[names[place]]())
    return {name: each[1:] for name, each in found.items()}


def spread(values: ArrayLike) -> dict[str, Any]:
    """Return median, quartiles, extremes and number of measured values.

    >>> spread([3.0, 1.0, 2.0])["median"]
    2.0
    """
    flat = np.asarray(values, np.float64).reshape(-1)
    low, median, high = (float(each) for each in np.percentile(flat, [25, 50, 75]))
    extremes = {"min": float(flat.min()), "max": float(flat.max())}
    return {"median": median, "quartiles": [low, high], **extremes, "runs": len(flat)}


def largest_difference(ours: ArrayLike, theirs: ArrayLike, *, limit: float) -> float:
    """Return the largest absolute difference of two sides' answers.

    Args:
        ours: Answers of one side.
        theirs: Of the other, of the same shape.
        limit: Above it their speeds are not compared.

    Raises:
        UnequalError: They differ by more, in shape, or one is not a number.
    """
    first, second = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if first.shape != second.shape:
        raise UnequalError(f"no speed is reported: shapes {first.shape} and {second.shape}")
    difference = float(np.abs(first - second).max())
    if not difference <= limit:
        message = f"answers differ by {difference:.1e}, allowed {limit:.0e}"
        raise UnequalError(f"no speed is reported: {message}")
    return difference


def make_bar(
    what: str,
    against: str,
    *,
    kind: Kind,
    ours: Sequence[float],
    theirs: Sequence[float],
    unit: str,
    asked: float | None,
) -> dict[str, Any]:
    """Return one comparison: both medians, the figure that is judged, and its range over rounds.

    Args:
        what: What was measured.
        against: What it was compared to.
        kind: `speed`: theirs / ours, at least `asked`. `rate`: ours / theirs, at least `asked`.
            `difference`: ours - theirs, at most. `value`: ours alone, at most.
        ours: A measurement per round.
        theirs: The same of the other side, of the same rounds; empty for `value` without one.
        unit: Of the measurements.
        asked: The bar; None if there is none.

    Raises:
        ValueError: The sides were not measured equally often.
    """
    if theirs and len(ours) != len(theirs):
        raise ValueError(f"{what}: {len(ours)} measurements against {len(theirs)}")
    pair = statistics.median(ours), statistics.median(theirs) if theirs else 0.0
    figure = _judge(kind, *pair)
    rounds = [_judge(kind, *each) for each in zip(ours, theirs or [0.0] * len(ours), strict=True)]
    reached = None
    if asked is not None:
        reached = figure >= asked if kind in ("speed", "rate") else figure <= asked
    return {
        "what": what,
        "against": against,
        "kind": kind,
        "ours": pair[0],
        "theirs": pair[1] if theirs else None,
        "unit": unit,
        "figure": figure,
        "range": [min(rounds), max(rounds)],
        "asked": asked,
        "reached": reached,
    }


def _judge(kind: Kind, ours: float, theirs: float) -> float:
    match kind:
        case "speed":
            return theirs / ours
        case "rate":
            return ours / theirs
        case "difference":
            return ours - theirs
        case "value":
            return ours


def show_bar(bar: Mapping[str, Any]) -> str:
    """Return a bar as one line of text."""
    theirs = "" if bar["theirs"] is None else f", theirs {bar['theirs']:.4g}"
    verdict = {True: "reached", False: "MISSED", None: "no bar"}[bar["reached"]]
    return (
        f"{bar['what']} against {bar['against']}: {bar['kind']} {bar['figure']:.3g} "
        f"(ours {bar['ours']:.4g}{theirs} {bar['unit']}; asked {bar['asked']}: {verdict})"
    )


def _time(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
