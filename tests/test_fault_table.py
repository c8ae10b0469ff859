"""The fault table through the command line: state, machine, and what no other file tests so.

Rows 1 to 25 of the data stand in test_scan.py, models in test_export_*.py, full disks, kills and
broken decoders in files of their own; `test_every_row_has_a_test` looks for them all.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mnv2tl import store
from mnv2tl.cli import main
from mnv2tl.state import StateStore

if TYPE_CHECKING:
    from mnv2tl.checkpoint import Run

ROOT = Path(__file__).resolve().parent.parent
QUICK = (
    *("--weights", "none", "--alpha", "0.35", "--image-px", "96", "--epochs", "3"),
    *("--batch-size", "8", "--views", "2", "--no-near-duplicates", "--no-index"),
)
NOT_BUILT = {44: "no work is spread over machines, so no shard can be lost"}


def test_every_row_has_a_test() -> None:
    """All rows but those of the server, which does not exist; what is not built is named."""
    pattern = re.compile(r"^def test_rows?_(\d+(?:_(?:and_)?\d+)*)_", re.MULTILINE)
    found = {
        int(number)
        for path in ROOT.glob("tests/test_*.py")
        for rows in pattern.findall(path.read_text("utf-8"))
        for number in re.findall(r"\d+", rows)
    }

    assert sorted(set(range(1, 51)) - found) == sorted(NOT_BUILT)


def _call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def _assert_refused(result: Result, exit_code: int, start: str) -> None:
    """The exit code, and one line of an error at the end of stderr."""
    assert result.exit_code == exit_code, result.output
    lines = result.stderr.splitlines()
    assert [line for line in lines if line.startswith("error[")] == lines[-1:]
    assert lines[-1].startswith(f"error[{start}]"), lines[-1]
    assert "Traceback" not in result.output


def _content(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): store.sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def _weights_of(run: Path) -> dict[str, NDArray[np.float32]]:
    from mnv2tl.checkpoint import load_run

    return load_run(run).read_arrays()


def _assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fault-table")


def _stop_after(monkeypatch: pytest.MonkeyPatch, epochs: int, number: signal.Signals) -> None:
    """Let a signal come right after a commit."""
    commit = StateStore.commit

    def commit_and_stop(self: StateStore, value: Any) -> None:
        commit(self, value)
        if len(value.history) == epochs:
            signal.raise_signal(number)

    monkeypatch.setattr(StateStore, "commit", commit_and_stop)


@pytest.fixture
def stopped(
    _made: Path, tiny_folder: Path, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a run on `tiny_folder` that SIGTERM stopped after two of three epochs."""
    kept, run = _made / "stopped", tmp_path / "run"
    if not kept.exists():
        with monkeypatch.context() as patch:
            _stop_after(patch, 2, signal.SIGTERM)
            assert _call("train", tiny_folder, "--out", run, *QUICK).exit_code == 143
        shutil.copytree(run, kept)
    else:
        shutil.copytree(kept, run)
    return run


def _resume(stopped: Path, tiny_folder: Path) -> Result:
    return _call("train", tiny_folder, "--out", stopped, "--resume", "--no-index")


def _cloud(seed: int) -> NDArray[np.uint8]:
    """Return a gray picture of soft clouds, shape (64, 64): no two seeds look alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8)
    soft = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(6)), np.float64)
    levels: NDArray[np.uint8] = np.round((soft - soft.min()) / np.ptp(soft) * 255).astype(np.uint8)
    return levels


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """Two classes of four pictures that no one could confuse."""
    for number in range(8):
        path = tmp_path / "data" / ("cats", "dogs")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_cloud(number)).convert("RGB").save(path)
    return tmp_path / "data"


def _audit(root: Path, *options: str) -> dict[str, Any]:
    result = _call("audit", root, "--no-index", "--quiet", "--json", *options)
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return value


def _draw_mode(mode: str, path: Path) -> None:
    gray = Image.fromarray(_cloud(0))
    if mode == "LA":
        Image.merge("LA", (gray, Image.new("L", gray.size, 255))).save(path)
    elif mode == "P":
        gray.convert("P").save(path, transparency=255)
    elif mode == "I;16":
        Image.fromarray(_cloud(0).astype(np.uint16) * 257).save(path)
    else:
        gray.convert(mode).save(path)


@pytest.mark.parametrize(
    ("mode", "name"), [("CMYK", "x.jpg"), ("L", "x.png"), ("P", "x.png"), ("LA", "x.png")]
)
def test_row_10_every_mode_becomes_the_same_picture(clouds: Path, mode: str, name: str) -> None:
    """The picture in another mode is used, and looks as the RGB one does."""
    _draw_mode(mode, clouds / "cats" / name)
    before = _content(clouds)

    value = _audit(clouds)

    assert (value["images"], value["left_out"]) == (9, [])
    assert value["near_duplicates"]["pairs"] == 1
    assert _content(clouds) == before


def test_row_10_one_bit_pictures_are_used(clouds: Path) -> None:
    """Black and white dots."""
    _draw_mode("1", clouds / "cats" / "x.png")

    assert (_audit(clouds)["images"], _audit(clouds)["left_out"]) == (9, [])


def test_row_11_sixteen_bits_are_scaled_and_not_clipped(clouds: Path) -> None:
    """Clipped, all but the darkest levels would be white, and look like no other picture."""
    _draw_mode("I;16", clouds / "cats" / "x.png")

    value = _audit(clouds)

    assert (value["images"], value["left_out"]) == (9, [])
    assert value["near_duplicates"]["pairs"] == 1


def test_row_18_hostile_class_names_go_the_whole_way(
    tiny_folder: Path, tmp_path: Path, backend: str
) -> None:
    """Exact in run.json and in the exported file; harmless in a terminal and in a spreadsheet."""
    names = ["-a\nb\x1b[31m", "<script>[red]\u202e", "=1+1"]
    for old, new in zip(("disc", "square", "stripes"), names, strict=True):
        (tiny_folder / old).rename(tiny_folder / new)
    (tiny_folder / "=1+1" / "00.png").rename(tiny_folder / "=1+1" / "@x\t.png")
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    words = (*QUICK, "--epochs", "1", "--tensorboard")

    results = [
        _call("train", tiny_folder, "--out", run, *words),
        _call("evaluate", run),
        _call("export", run, "--out", bundle, "--format", "onnx"),
        _call("predict", bundle / "model.onnx", tiny_folder / "=1+1" / "@x\t.png"),
        _call("predict", bundle / "model.onnx", tiny_folder / "=1+1" / "@x\t.png", "--csv"),
        _call("predict", bundle / "model.onnx", tiny_folder / "=1+1" / "@x\t.png", "--json"),
    ]

    assert [each.exit_code for each in results] == [0] * 6, results[0].stderr
    for each in (
        *results[:4],
        results[5],
    ):  # CSV is for machines: the names stand in it as they are
        assert not {"\x1b", "\u202e"} & set(each.output)
    assert json.loads((run / "run.json").read_bytes())["class_names"] == names
    answer = json.loads(results[-1].stdout)
    assert {name for name, _ in answer["top"]} == set(names)
    cells = next(csv.reader(results[4].stdout.splitlines()[1:]))
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_row_26_other_images_are_no_resume(stopped: Path, tiny_folder: Path) -> None:
    """E401 counts them; run and pictures stay as they are."""
    (tiny_folder / "square" / "00.png").unlink()
    Image.new("RGB", (64, 64), "navy").save(tiny_folder / "stripes" / "00.png")
    before = _content(stopped), _content(tiny_folder)

    result = _resume(stopped, tiny_folder)

    _assert_refused(result, 4, "E401 dataset-differs")
    assert "dataset differs: +0 -1 ~1. Fix: resume with --accept-changes" in result.stderr
    assert (_content(stopped), _content(tiny_folder)) == before


def test_row_27_other_classes_are_no_resume(stopped: Path, tiny_folder: Path) -> None:
    """E402 prints both lists."""
    (tiny_folder / "disc").rename(tiny_folder / "zebra")
    before = _content(stopped)

    result = _resume(stopped, tiny_folder)

    _assert_refused(result, 4, "E402 classes-differ")
    assert re.search(r"'disc', 'square', 'stripes'.*'square', 'stripes', 'zebra'", result.stderr)
    assert _content(stopped) == before


def test_row_28_a_full_disk_keeps_the_former_file(clouds: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; real ones are filled in another file."""
    resource = pytest.importorskip("resource")
    out = tmp_path / "out" / "manifest.json"
    words = ("audit", clouds, "--no-index", "--quiet", "--out", out)
    assert _call(*words).exit_code == 0
    before = _content(out.parent)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        result = _call(*words, "--split-seed", "7")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert result.exit_code == 5, result.output
    assert result.stderr.count("\n") == 1
    assert re.match(r"error\[E50[12] ", result.stderr)
    assert _content(out.parent) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows flushes no folders")
def test_row_31_what_is_saved_outlives_a_power_cut(
    clouds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is flushed before it gets its name, and its folder after that."""
    events: list[tuple[str, str]] = []
    out = tmp_path / "out" / "manifest.json"
    flush, replace = os.fsync, os.replace

    def note_flush(descriptor: int) -> None:
        flush(descriptor)
        events.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))

    def note_replace(source: Any, target: Any, **options: Any) -> None:
        replace(source, target, **options)
        events.append(("name", os.fspath(target)))

    if not Path("/proc/self/fd").exists():
        pytest.skip("the names of open files are not known here")
    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "replace", note_replace)
    monkeypatch.setattr(os, "rename", note_replace)

    assert _call("audit", clouds, "--no-index", "--quiet", "--out", out).exit_code == 0

    (first, part), *rest = [each for each in events if str(out.parent) in each[1]]
    assert first == "flush"
    assert part.startswith(f"{out}.tmp-")
    assert rest == [("name", str(out)), ("flush", str(out.parent))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_row_32_a_signal_leaves_a_run_that_goes_on(
    tiny_folder: Path,
    tmp_path: Path,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    """Exit 130 or 143, the command that goes on, and it does."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        _stop_after(patch, 1, number)
        result = _call("train", tiny_folder, "--out", run, *QUICK, "--epochs", "2")

    _assert_refused(result, 128 + number, "E901 interrupted")
    assert f"1 of 2 epochs are saved in {json.dumps(str(run))}. Fix: to go on: " in result.stderr
    assert f"mnv2tl train {tiny_folder} --out {run} --resume" in result.stderr
    assert _resume(run, tiny_folder).exit_code == 0
    assert len(json.loads((run / "run.json").read_bytes())["history"]) == 2


def test_row_33_a_used_folder_is_left_alone(stopped: Path, tiny_folder: Path) -> None:
    """E504 before any work, whatever the folder holds."""
    before = _content(stopped)

    _assert_refused(_call("train", tiny_folder, "--out", stopped, *QUICK), 2, "E504 folder-exists")
    _assert_refused(
        _call("train", tiny_folder, "--out", tiny_folder, *QUICK, "--force"),
        2,
        "E504 folder-exists",
    )

    assert _content(stopped) == before


def test_row_34_a_folder_in_use_is_busy(stopped: Path, tiny_folder: Path) -> None:
    """E701 names the holder; the kernel frees the lock, so there is nothing to remove."""
    before = _content(stopped)

    with store.lock_folder(stopped):
        result = _resume(stopped, tiny_folder)

    _assert_refused(result, 7, "E701 locked")
    assert f"locked by pid {os.getpid()} on " in result.stderr
    assert _content(stopped) == before


@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_row_36_a_damaged_cache_entry_is_computed_again(
    tiny_folder: Path, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """One warning, exit 0, and the weights of a run with a whole cache."""
    monkeypatch.setenv("MNV2TL_CACHE", str(tmp_path / "cache"))
    first, second = tmp_path / "first", tmp_path / "second"
    words = (*QUICK, "--epochs", "1")
    assert _call("train", tiny_folder, "--out", first, *words).exit_code == 0
    (pack,) = (tmp_path / "cache" / "features").rglob("*.npy")
    content = bytearray(pack.read_bytes())
    content[-9] ^= 4
    pack.write_bytes(content if harm == "flip" else content[:-9])

    result = _call("train", tiny_folder, "--out", second, *words)

    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: dropped a damaged cache entry")
    _assert_equal(_weights_of(second), _weights_of(first))


def _damage(state: Path, epochs: tuple[int, ...]) -> None:
    for epoch in epochs:
        (path,) = state.glob(f"epoch-{epoch:04}-*.npz")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_row_37_a_damaged_state_falls_back_to_the_one_before(
    stopped: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """A warning, the epoch again, and the weights of a run that was never stopped."""
    whole = tmp_path / "whole"
    assert _call("train", tiny_folder, "--out", whole, *QUICK).exit_code == 0
    _damage(stopped / "state", (2,))

    result = _resume(stopped, tiny_folder)

    assert result.exit_code == 0, result.output
    assert "warning: state after epoch 2 is damaged: epoch-0002-" in result.stderr
    _assert_equal(_weights_of(stopped), _weights_of(whole))


def test_row_37_without_a_whole_state_nothing_is_deleted(stopped: Path, tiny_folder: Path) -> None:
    """E403 lists what was tried."""
    _damage(stopped / "state", (1, 2))
    before = _content(stopped)

    result = _resume(stopped, tiny_folder)

    _assert_refused(result, 4, "E403 no-valid-state")
    assert re.search(r"tried epoch-0001-\w{64}\.npz, epoch-0002-\w{64}\.npz", result.stderr)
    assert _content(stopped) == before


@pytest.mark.parametrize("name", ["state/state.json", "run.json", "manifest.json"])
def test_row_39_files_of_a_newer_version_are_refused(
    stopped: Path, tiny_folder: Path, name: str
) -> None:
    """E404 gives both numbers, and the file stays for the newer version."""
    path = stopped / name
    value = json.loads(path.read_bytes())
    del value[store.CONTENT_HASH]
    store.write_sealed_json(path, value | {"schema": 9})
    before = _content(stopped)

    result = _resume(stopped, tiny_folder)

    _assert_refused(result, 4, "E404 config-differs")
    assert "schema 9, this version reads <= 1. Fix: update mnv2tl" in result.stderr
    assert _content(stopped) == before


def test_row_39_another_network_is_refused(stopped: Path, tiny_folder: Path) -> None:
    """E404 names the field and both values."""
    words = ("--out", stopped, "--resume", "--no-index", "--alpha", "0.5")
    before = _content(stopped)

    result = _call("train", tiny_folder, *words)

    _assert_refused(result, 4, "E404 config-differs")
    assert "alpha was 0.35, now 0.5" in result.stderr
    assert _content(stopped) == before


def test_row_40_a_head_of_other_classes_is_refused(stopped: Path, tiny_folder: Path) -> None:
    """Without a manifest the head itself says what it expects."""
    (stopped / "manifest.json").unlink()
    shutil.rmtree(tiny_folder / "disc")
    before = _content(stopped / "state")

    result = _resume(stopped, tiny_folder)

    _assert_refused(result, 4, "E405 class-count")
    assert "the saved head has 3 outputs, the dataset has 2 classes" in result.stderr
    assert _content(stopped / "state") == before


def _save_weights(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    h5py = pytest.importorskip("h5py")
    from mnv2tl.weights import initial_arrays

    arrays = {key: array.copy() for key, array in initial_arrays(0.35, 0).items()}
    change(arrays)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


def _enlarge(name: str, factor: float) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] *= np.float32(factor)

    return change


@pytest.mark.parametrize(
    ("change", "exit_code", "message"),
    [
        (
            _enlarge("Conv_1_bn/moving_variance", -1.0),
            6,
            "the loss is not finite at step 1 of the epoch",
        ),
        (_enlarge("block_16_project/kernel", 1e30), 6, "a feature that is not finite"),
        # The file is at fault, and nothing was computed yet.
        (_enlarge("Conv1/kernel", np.nan), 4, "Conv1/kernel holds values that are not finite"),
    ],
    ids=["loss", "feature", "weight file"],
)
def test_row_41_what_is_not_finite_stops_the_training(
    tiny_folder: Path,
    tmp_path: Path,
    backend: str,
    change: Callable[[dict[str, Any]], None],
    exit_code: int,
    message: str,
) -> None:
    """E602, and a former run that was to be replaced stays."""
    run, weights = tmp_path / "run", tmp_path / "mine.h5"
    _save_weights(weights, change)
    words = ("--out", run, *QUICK, "--trainable-layers", "4", "--augment", "none")
    assert _call("train", tiny_folder, *words, "--epochs", "1").exit_code == 0
    before = _content(run)

    result = _call("train", tiny_folder, *words, "--weights", weights, "--force")

    _assert_refused(result, exit_code, "E602 not-finite")
    assert message in result.stderr
    assert _content(run) == before


_LIMITED = """
import resource, sys
import keras, mnv2tl.train
from mnv2tl.cli import main
keras.ops.convert_to_numpy(keras.ops.zeros(1))
status = open("/proc/self/status").read()
limit = 1024 * int(status.split("VmSize:")[1].split()[0]) + 1_000_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory")
def test_row_42_a_batch_that_does_not_fit_names_a_smaller_one(
    trained_run: Run, tmp_path: Path, backend: str
) -> None:
    """A step of 128 large images needs 1.4 GB and is left 1 GB; the former run stays."""
    if backend != "jax":
        pytest.skip("takes a minute; test_memory.py asks TensorFlow for too much")
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(80):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    run = tmp_path / "run"
    shutil.copytree(trained_run.folder, run)
    before = _content(run)
    words = ["train", tmp_path / "data", "--out", run, "--force", *QUICK, "--quiet"]
    words += ["--image-px", "224", "--alpha", "1.0", "--batch-size", "128", "--augment", "none"]
    words += ["--trainable-layers", "60", "--finetune-layers", "60"]

    result = subprocess.run(
        [sys.executable, "-c", _LIMITED, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 5, result.stderr
    assert result.stderr.splitlines()[-1] == (
        "error[E505 out-of-memory] batch 128 did not fit into memory. Fix: try --batch-size 64"
    )
    assert _content(run) == before


@pytest.fixture
def bare() -> dict[str, str]:
    """Return an environment without HOME, in a language of ASCII only, with no temporary folder."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}",
        "LANG": "C",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "TMPDIR": "/no/such/folder",
    }


def test_row_45_a_bare_environment_is_enough(
    clouds: Path, tmp_path: Path, bare: dict[str, str]
) -> None:
    """A name that its language cannot print is escaped, and the index finds a place or none."""
    (clouds / "cats" / "0.png").rename(clouds / "cats" / "caf\xe9.png")
    (clouds / "cats" / "\u6f22.png").write_bytes(b"text")
    command = [sys.executable, "-c", "from mnv2tl.cli import main; main()", "audit", str(clouds)]
    command += ["--max-bad", "0.2", "--no-near-duplicates", "--json"]

    result = subprocess.run(
        [*command, "--no-index"],
        cwd=tmp_path,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 8
    assert "Traceback" not in result.stderr


_NO_ROOM = """
import errno, os, sys

def refuse(event, args, places=tuple(os.environ["PYTHON_PLACES"].split(os.pathsep))):
    creates = event in ("os.mkdir", "tempfile.mkstemp", "tempfile.mkdtemp")
    if event == "open" and isinstance(args[0], (str, bytes)):
        creates = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if creates and not os.path.abspath(os.fsdecode(args[0])).startswith(places):
        raise OSError(errno.ENOSPC, f"{event}: {os.strerror(errno.ENOSPC)}", args[0])

sys.addaudithook(refuse)
"""


def test_row_45_no_temporary_folder_is_needed(
    clouds: Path, tmp_path: Path, bare: dict[str, str]
) -> None:
    """No file or folder can be made but the manifest, wherever Python looks for a place."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_NO_ROOM)
    out = tmp_path / "out" / "manifest.json"
    environment = bare | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), bare["PYTHONPATH"]]),
        "PYTHON_PLACES": os.pathsep.join([str(out.parent), os.devnull]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    del environment["TMPDIR"]

    def run(code: str, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    words = ("audit", clouds, "--no-index", "--json", "--out", out)
    result = run("from mnv2tl.cli import main; main()", *words)

    assert "No usable temporary directory" in run("import tempfile; tempfile.mkdtemp()").stderr
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 8
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_row_45_a_training_needs_no_temporary_folder(
    clouds: Path, tmp_path: Path, backend: str
) -> None:
    """No file can be made but in the run folder and the cache."""
    if backend != "jax":
        pytest.skip("TensorFlow needs one to be imported (absl/testing/absltest.py)")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_NO_ROOM)
    run, cache = tmp_path / "run", tmp_path / "cache"
    words = ["train", clouds, "--out", run, *QUICK, "--epochs", "1"]
    environment = {key: value for key, value in os.environ.items() if "COMPILATION" not in key}

    result = subprocess.run(
        [sys.executable, "-c", "from mnv2tl.cli import main; main()", *map(str, words)],
        cwd=tmp_path,
        env=environment
        | {
            "PYTHONPATH": os.pathsep.join(map(str, (tmp_path / "site", ROOT, ROOT / "export"))),
            "PYTHON_PLACES": os.pathsep.join(map(str, (run, cache, os.devnull))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MNV2TL_CACHE": str(cache),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert (run / "best.keras").is_file()


def test_row_45_a_closed_pipe_is_a_quiet_end(clouds: Path, bare: dict[str, str]) -> None:
    """Whoever read the output had enough: exit 0, and nothing on stderr."""
    code = "import sys; from mnv2tl.cli import main; sys.stdin.read(); main()"
    command = [sys.executable, "-c", code, "audit", str(clouds), "--no-index", "--quiet", "--json"]
    with subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": bare["PYTHONPATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        noise = process.stderr.read()

    assert (process.returncode, noise) == (0, b"")


@pytest.mark.parametrize("seconds", [0, 2**33], ids=["1970", "2242"])
def test_row_45_the_wall_clock_does_not_matter(
    clouds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """Files of the future or the past are read alike, with an index and without."""
    monkeypatch.setattr(time, "time", lambda: float(seconds))
    monkeypatch.setattr(time, "time_ns", lambda: seconds * 10**9)
    words = ("audit", clouds, "--quiet", "--json")
    index = ("--index", tmp_path / "images.sqlite")

    results = [_call(*words, *more) for more in (index, index, ("--no-index",))]

    assert [each.exit_code for each in results] == [0] * 3
    values = [json.loads(each.stdout) | {"files_read": 0} for each in results]
    assert values[0] == values[1] == values[2]
