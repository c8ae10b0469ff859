"""Look at this machine: can it train, on what, and what is missing.

Only metadata and folders are looked at; what has to be imported for an answer is imported in
another process, and only if that is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mnv2tl import __version__
from mnv2tl.backend import BACKENDS, choose_backend
from mnv2tl.config import RUNTIMES
from mnv2tl.doctor_packages import Problem, find_version, judge_packages, list_packages
from mnv2tl.errors import MachineError
from mnv2tl.parallel import count_workers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LEAST_FREE = 2 * 10**9
_LEAST_MEMORY = 2 * 10**9
_PYTHONS = ((3, 11), (3, 14))
_PROBE_SECONDS = 120
_DEFAULT_WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224"
# What each prints is a list of names.
_PROBES = {
    "jax": "import jax; names = [f'{d.platform} {d.device_kind}' for d in jax.devices()]",
    "tensorflow": "import tensorflow as t; "
    "names = [d.name for d in t.config.list_physical_devices()]",
    "onnxruntime": "import onnxruntime; names = onnxruntime.get_available_providers()",
}


def examine(backend: str | None = None, *, with_devices: bool = False) -> dict[str, Any]:
    """Return what is here, and under `problems` what is wrong; under `can_train` the verdict.

    Args:
        backend: Keras backend that is asked for; None as in a training.
        with_devices: Ask backends and runtimes for their devices, which takes seconds each.
    """
    packages = list_packages()
    problems = [*_judge_python(), *judge_packages(packages)]
    chosen = None
    try:
        chosen = choose_backend(backend)
    except MachineError as error:
        problems.append(Problem(level="error", message=error.message, fix=error.fix or ""))
    except ValueError as error:
        fix = "unset KERAS_BACKEND, or set it to one of these"
        problems.append(Problem(level="error", message=f"KERAS_BACKEND: {error}", fix=fix))
    try:
        caches = _look_at_caches(problems)
    except OSError as error:
        caches = {}
        message, fix = (
            f"the caches cannot be read: {error}",
            "name a folder of yours by MNV2TL_CACHE",
        )
        problems.append(Problem(level="warning", message=message, fix=fix))
    folders = _look_at_folders(caches, problems)
    memory = _memory()
    if memory["bytes"] is not None and memory["bytes"] < _LEAST_MEMORY:
        message = f"{memory['bytes'] / 1e9:.1f} GB of memory; training takes 1 to 2 GB"
        problems.append(Problem(level="warning", message=message, fix="use a larger machine"))
    found = {
        "mnv2tl": __version__,
        "python": {"version": platform.python_version(), "path": sys.executable},
        "platform": platform.platform(),
        "cores": count_workers(),
        "memory": memory,
        "packages": [dataclasses.asdict(each) for each in packages],
        "backends": [name for name in BACKENDS if importlib.util.find_spec(name)],
        "backend": chosen,
        "trunk_runtimes": _list_runtimes(),
        "devices": _ask_devices(problems) if with_devices else None,
        "caches": caches,
        "folders": folders,
    }
    found["problems"] = [dataclasses.asdict(each) for each in problems]
    found["can_train"] = all(each.level != "error" for each in problems)
    return found


def _judge_python() -> Iterator[Problem]:
    low, high = _PYTHONS
    if not low <= sys.version_info[:2] < high:
        message = f"Python {platform.python_version()} is not tested"
        fix = f"use Python {low[0]}.{low[1]} or newer, below {high[0]}.{high[1]}"
        yield Problem(level="warning", message=message, fix=fix)
    if sys.maxsize < 2**32:
        message = "this Python has 32 bits, for which neither JAX nor TensorFlow exists"
        yield Problem(level="error", message=message, fix="install a Python of 64 bits")
    if "eatmydata" in os.environ.get("LD_PRELOAD", ""):
        message = "LD_PRELOAD turns fsync off: after a power cut a run may be damaged"
        yield Problem(level="warning", message=message, fix="unset LD_PRELOAD")


def _list_runtimes() -> list[dict[str, Any]]:
    """Return what can run the frozen layers, the one that is taken first."""
    found = []
    for name in RUNTIMES:
        version = find_version(name)
        if version is not None:
            found.append({"name": name, "version": version})
    return found


def _look_at_caches(problems: list[Problem]) -> dict[str, Any]:
    if importlib.util.find_spec("platformdirs") is None:
        return {}
    from mnv2tl.cache_folder import cache_folder  # noqa: PLC0415  needs platformdirs
    from mnv2tl.feature_cache import list_packs  # noqa: PLC0415

    weights, features = cache_folder("weights"), cache_folder("features")
    files = sorted(each for each in weights.glob("*.h5") if each.is_file())
    packs = list_packs(features)
    if not any(each.name.startswith(_DEFAULT_WEIGHTS) for each in files):
        message = f"the default base weights, imagenet, are not in {weights}"
        fix = "mnv2tl weights fetch imagenet"
        others = " imagenet-dogs, which are there" if files else " imagenet-dogs, a path, or none"
        fix += f"; or train with --weights{others}"
        problems.append(Problem(level="hint", message=message, fix=fix))
    index = cache_folder("index")
    return {
        "weights": {
            "path": str(weights),
            "files": [{"name": each.name, "bytes": each.stat().st_size} for each in files],
        },
        "features": {
            "path": str(features),
            "packs": len(packs),
            "bytes": sum(size for _, _, size in packs),
        },
        "index": {
            "path": str(index),
            "bytes": sum(each.stat().st_size for each in index.glob("*") if each.is_file()),
        },
    }


def _look_at_folders(caches: dict[str, Any], problems: list[Problem]) -> list[dict[str, Any]]:
    places: dict[str, Callable[[], str | Path]] = {
        "caches": lambda: caches["features"]["path"],
        "current folder": Path.cwd,
        "temporary files": tempfile.gettempdir,
    }
    if not caches:
        del places["caches"]
    found = []
    for name, find in places.items():
        try:
            found.append(_look_at_folder(name, Path(find()), problems))
        except OSError as error:
            message, fix = f"{name}: {error}", "name a folder that is there and that you may write"
            problems.append(Problem(level="warning", message=message, fix=fix))
    return found


def _look_at_folder(name: str, path: Path, problems: list[Problem]) -> dict[str, Any]:
    """Return room and kind of a folder's file system, and whether it keeps locks and flushes."""
    place = next(each for each in (path, *path.parents) if each.exists())
    free = shutil.disk_usage(place).free
    if free < _LEAST_FREE:
        message = f"{free / 1e9:.1f} GB are free for {name}, {path}"
        fix = "free some space, or name another place" + (
            " by MNV2TL_CACHE" if name == "caches" else " by TMPDIR" if "temp" in name else ""
        )
        problems.append(Problem(level="warning", message=message, fix=fix))
    trouble = _try_file(place)
    if trouble is not None:
        fix = "name a local folder that you may write" + (
            " by MNV2TL_CACHE" if name == "caches" else " by TMPDIR" if "temp" in name else ""
        )
        level = "hint" if name == "current folder" else "warning"
        message = f"{name}, {place}: {trouble}"
        problems.append(Problem(level=level, message=message, fix=fix))
    return {
        "name": name,
        "path": str(path),
        "free_bytes": free,
        "file_system": _file_system(place),
        "trouble": trouble,
    }


def _try_file(folder: Path) -> str | None:
    """Write, flush and lock a nameless file; return what does not work."""
    step = "cannot be written"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mnv2tl-doctor-") as first:
            first.write(b"\0")
            step = "files cannot be flushed to the disk"
            first.flush()
            os.fsync(first.fileno())
            if fcntl is None:
                return None
            step = "files cannot be locked"
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(first.name, "rb") as second, contextlib.suppress(BlockingIOError):
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return "locks are not kept: two processes could write one run"
    except OSError as error:
        return f"{step}: {error.strerror}"
    return None


def _file_system(folder: Path) -> str | None:
    """Return the kind of a folder's file system, such as ext4 or nfs; None if it is not known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:  # not Linux
        return None
    best: tuple[str, str | None] = ("", None)
    where = str(folder.resolve())
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = left.split(" ")[4].replace("\\040", " ")
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, right.split(" ")[0])
    return best[1]


def _memory() -> dict[str, int | None]:
    """Return the memory of the machine and what of it is free, or of the control group."""
    sizes: dict[str, int | None] = {"bytes": None, "available_bytes": None}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sizes["bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        sizes["available_bytes"] = 1024 * int(found.split()[1])
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii"))
        sizes["bytes"] = min(limit, sizes["bytes"] or limit)
    return sizes


def _ask_devices(problems: list[Problem]) -> dict[str, list[str]]:
    """Return package -> devices or providers, each asked in a process of its own."""
    devices = {}
    for name, code in _PROBES.items():
        if importlib.util.find_spec(name) is None:
            continue
        try:
            devices[name] = _ask(code)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            words = getattr(error, "stderr", None) or str(error)
            text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
            last = (text.strip().splitlines() or ["no message"])[-1]
            message = f"{name} cannot be imported: {ascii(last)[1:-1]}"
            level = "error" if name in BACKENDS and len(_installed_backends()) == 1 else "warning"
            fix = f"pip install --force-reinstall {name}"
            problems.append(Problem(level=level, message=message, fix=fix))
    return devices


def _installed_backends() -> Sequence[str]:
    return [name for name in BACKENDS if importlib.util.find_spec(name)]


def _ask(code: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}; import json; print(json.dumps(list(names)))"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PROBE_SECONDS,
        check=True,
    )
    names: list[str] = json.loads(result.stdout.splitlines()[-1])
    return names
