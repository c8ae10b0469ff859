from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("keras")

from mnv2tl import store
from mnv2tl.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
QUICK = (
    *("--weights", "none", "--alpha", "0.35", "--image-px", "96", "--epochs", "2"),
    *("--batch-size", "8", "--views", "2", "--no-near-duplicates", "--no-index"),
)


def _call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def _json(result: Result) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return value


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path, backend: str) -> Path:
    """Return the folder of a finished run."""
    result = _call("train", tiny_folder, "--out", tmp_path / "run", *QUICK)
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def test_train_prints_the_promised_keys(tiny_folder: Path, tmp_path: Path, backend: str) -> None:
    """The JSON object is the last line of stdout; other tools read these keys."""
    result = _call("train", tiny_folder, "--out", tmp_path / "run", "--json", *QUICK)

    value = _json(result)
    promised = {"run", "backend", "class_names", "train_images", "val_images", "epochs"}
    promised |= {"best_epoch", "val_accuracy", "val_loss", "seconds"}
    assert promised <= value.keys()
    assert {"total", "scan", "features", "fit"} <= value["seconds"].keys()
    assert value["class_names"] == ["disc", "square", "stripes"]
    assert value["train_images"] + value["val_images"] == 36
    assert value["backend"] == backend
    assert result.stdout.count("\n") == 1
    assert "epoch   2/2" in result.stderr


def test_evaluate_prints_the_promised_keys(run: Path) -> None:
    """Accuracy, loss and per-class figures of each split; all splits add up."""
    value = _json(_call("evaluate", run, "--json"))

    assert {"runtime", "images", "accuracy", "loss", "per_class"} <= value.keys()
    counts = [
        _json(_call("evaluate", run, "--split", split, "--json"))["images"]
        for split in ("train", "val", "all")
    ]
    assert counts[0] + counts[1] == counts[2] == 36


def test_evaluate_shows_a_table(run: Path) -> None:
    """A person gets every class with precision, recall, F1 and the number of images."""
    result = _call("evaluate", run)

    assert result.exit_code == 0
    for word in ("disc", "square", "stripes", "precision", "recall", "F1", "95 % interval"):
        assert word in result.stdout


def test_evaluate_refuses_a_split_without_images(run: Path) -> None:
    """A run without a test split has nothing to say about one."""
    result = _call("evaluate", run, "--split", "test")

    assert result.exit_code == 3
    assert "error[E301" in result.stderr


def test_row_46_evaluate_refuses_other_models(tmp_path: Path) -> None:
    """A folder that is no run, and a foreign .keras file, are never parsed."""
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04 not for us")
    for model in (tmp_path, tmp_path / "model.keras", tmp_path / "missing"):
        result = _call("evaluate", model)

        assert result.exit_code == 4, result.output
        assert "error[E410 unsupported-model]" in result.stderr


def test_an_expected_error_is_one_line(tiny_folder: Path, tmp_path: Path, backend: str) -> None:
    """Missing weights: one line on stderr, the same facts as JSON on stdout, exit 4."""
    result = _call("train", tiny_folder, "--out", tmp_path / "run", "--no-index", "--json")

    assert result.exit_code == 4
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error[E414 weights-missing]")
    for way in ("mnv2tl weights fetch imagenet", "--weights PATH", "--weights none"):
        assert way in line
    assert _json(result)["code"] == "E414"
    assert "Traceback" not in result.output


def test_debug_shows_the_traceback(tiny_folder: Path, tmp_path: Path, backend: str) -> None:
    """--debug lets an expected error through for those who look for its cause."""
    out = tmp_path / "run"

    result = _call("--debug", "train", tiny_folder, "--out", out, "--no-index")

    assert type(result.exception).__name__ == "ArtifactError"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--image-px", "100"), "image_px must be one of (96, 128, 160, 192, 224), got 100"),
        (("--alpha", "0.9"), "alpha must be one of"),
        (("--epochs", "0"), "--epochs"),
        (("--augment", "wild"), "none"),
        (("--zoom", "2"), "--zoom"),
        (("--trainable-layers", "155"), "--trainable-layers"),
        (("--weights", "resnet"), "weights must be"),
        (("--finetune-epochs", "1", "--finetune-layers", "1"), "finetune_layers must be at least"),
    ],
)
def test_a_wrong_value_is_a_usage_error(
    tiny_folder: Path, tmp_path: Path, words: tuple[str, str], text: str, backend: str
) -> None:
    """Exit 2 with the allowed values and what came, before any work starts."""
    out = tmp_path / "run"

    result = _call("train", tiny_folder, "--out", out, "--no-index", *words)

    assert result.exit_code == 2, result.output
    assert text in result.stderr


def test_settings_come_from_flag_then_file_then_recipe(
    tiny_folder: Path, tmp_path: Path, backend: str
) -> None:
    """--config wins over --recipe, a flag wins over both."""
    settings = tmp_path / "settings.toml"
    settings.write_text('epochs = 1\nbatch_size = 4\nsplit = "exact"\nzoom = 0.25\n')
    out = tmp_path / "run"

    words = ("--recipe", "classic", "--config", settings, "--batch-size", "6")
    quick = [word for word in QUICK if word not in ("--epochs", "2", "--batch-size", "8")]
    quick = quick[: quick.index("--views")] + quick[quick.index("--views") + 1 :]
    result = _call("train", tiny_folder, "--out", out, *words, *quick)

    assert result.exit_code == 0, result.output
    config = json.loads((out / "run.json").read_text())["config"]
    assert (config["epochs"], config["batch_size"], config["scaling"]) == (1, 6, "unit")
    assert config["scan"]["split_rule"] == "exact"
    assert config["augment"]["zoom"] == 0.25
    assert config["augment"]["rotation_degrees"] == 20.0


def test_a_former_run_is_a_settings_file(run: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """--config run.json repeats a run: the same weights, here on the same backend."""
    again = tmp_path / "again"

    result = _call("train", tiny_folder, "--out", again, "--config", run / "run.json", "--no-index")

    assert result.exit_code == 0, result.output
    infos = [json.loads((folder / "run.json").read_text()) for folder in (run, again)]
    assert infos[0]["history"][-1]["val_loss"] == infos[1]["history"][-1]["val_loss"]


def test_an_augment_flag_wins_over_the_amounts_of_a_file(
    run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """A former run.json holds all five amounts; the preset that a flag names replaces them."""
    out = tmp_path / "again"
    words = ("--config", run / "run.json", "--augment", "none", "--zoom", "0.3", "--epochs", "1")

    result = _call("train", tiny_folder, "--out", out, *words, "--no-index")

    assert result.exit_code == 0, result.output
    augment = json.loads((out / "run.json").read_text())["config"]["augment"]
    assert augment["rotation_degrees"] == 0.0
    assert augment["zoom"] == 0.3
    assert augment["horizontal_flip"] is False


def test_from_takes_the_network_of_the_former_run(
    run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """Width, size and scaling need not be said again."""
    out = tmp_path / "next"

    result = _call("train", tiny_folder, "--out", out, "--from", run, "--epochs", 1, "--no-index")

    assert result.exit_code == 0, result.output
    config = json.loads((out / "run.json").read_text())["config"]
    assert (config["alpha"], config["image_px"]) == (0.35, 96)


def test_a_settings_file_may_name_a_recipe(tiny_folder: Path, tmp_path: Path, backend: str) -> None:
    """Its other settings win over the recipe's."""
    settings = tmp_path / "settings.toml"
    settings.write_text('recipe = "classic"\nbatch_norm = "frozen"\n')
    out = tmp_path / "run"
    quick = QUICK[: QUICK.index("--views")] + QUICK[QUICK.index("--views") + 2 :]

    result = _call("train", tiny_folder, "--out", out, "--config", settings, *quick)

    assert result.exit_code == 0, result.output
    config = json.loads((out / "run.json").read_text())["config"]
    assert (config["scaling"], config["best_by"]) == ("unit", "val_accuracy")
    assert config["batch_norm"] == "frozen"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resume = true", "'resume' is no setting of a file"),
        ("epoch = 3", "unknown setting 'epoch'; did you mean epochs?"),
        ('epochs = "many"', "is not a valid"),
        ("epochs = ", "neither TOML nor a run.json"),
    ],
)
def test_a_wrong_settings_file_is_a_usage_error(
    tiny_folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    """Exit 2; an unknown name is shown with those that are known."""
    settings = tmp_path / "settings.toml"
    settings.write_text(text)

    result = _call("train", tiny_folder, "--out", tmp_path / "run", "--config", settings)

    assert result.exit_code == 2
    assert message in result.stderr


def test_resume_takes_the_settings_of_the_run(run: Path, tiny_folder: Path) -> None:
    """No flag has to be repeated; one that differs is refused by name."""
    result = _call("train", tiny_folder, "--out", run, "--resume", "--json", "--no-index")
    assert result.exit_code == 0, result.output
    assert _json(result)["epochs"] == 2

    result = _call("train", tiny_folder, "--out", run, "--resume", "--no-index", "--seed", "5")
    assert result.exit_code == 4
    assert "seed was 0, now 5" in result.stderr


def test_a_used_folder_is_exit_2(run: Path, tiny_folder: Path) -> None:
    """A run is not written over."""
    result = _call("train", tiny_folder, "--out", run, *QUICK)

    assert result.exit_code == 2
    assert "error[E504 folder-exists]" in result.stderr


def test_an_exported_file_is_evaluated_as_its_run(
    run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """The ONNX file gives the accuracy of the run on the same images, through onnxruntime."""
    result = _call("export", run, "--out", tmp_path / "bundle", "--json")
    assert result.exit_code == 0, result.output
    model = tmp_path / "bundle" / "model.onnx"

    value = _json(_call("evaluate", model, tiny_folder, "--split", "all", "--json"))

    of_run = _json(_call("evaluate", run, "--split", "all", "--json"))
    assert value["runtime"].startswith("onnxruntime")
    assert (value["images"], value["accuracy"]) == (36, of_run["accuracy"])
    assert value["loss"] == pytest.approx(of_run["loss"], abs=1e-4)
    assert _call("evaluate", model).exit_code == 2


def test_evaluate_takes_another_limit_of_pixels(
    run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """It holds for a run in place of the training's own, and for an exported file."""
    assert _call("export", run, "--out", tmp_path / "bundle", "--format", "onnx").exit_code == 0
    info = json.loads((run / "run.json").read_bytes())
    info["config"]["scan"]["max_pixels"] = 4095
    store.write_sealed_json(run / "run.json", info)
    model = (tmp_path / "bundle" / "model.onnx", tiny_folder)

    refused = [
        _call("evaluate", run),
        _call("evaluate", run, "--max-pixels", 4094),
        _call("evaluate", *model, "--max-pixels", 4095),
    ]
    taken = [_call("evaluate", *each, "--max-pixels", 4096) for each in ((run,), model)]

    assert [each.exit_code for each in refused] == [3] * 3
    assert ["4,096 pixels > limit 4,095" in each.stderr for each in refused] == [True, False, True]
    assert [each.exit_code for each in taken] == [0] * 2


def test_the_cache_is_shown_and_cleared(run: Path) -> None:
    """Features can be counted and removed; clearing frees what show counts, or more."""
    shown = _json(_call("cache", "show", "--json"))
    assert shown["packs"] > 0
    assert "MB in" in _call("cache", "show").stdout

    freed = _json(_call("cache", "clear", "--json"))

    assert freed["bytes"] >= shown["bytes"] > 0
    assert _json(_call("cache", "show", "--json")) == {**shown, "packs": 0, "bytes": 0}


def test_help_names_every_command_and_option() -> None:
    """Every sub-command has a help page; options show defaults and units."""
    listed = _call("--help").stdout
    for name in COMMANDS:
        assert name in listed
    text = _call("train", "--help").stdout
    for word in ("--learning-rate", "[default: 0.001", "degrees", "--resume", "[default: 16"):
        assert word in text


def _leaves(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every sub-command with its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _leaves(found, *words, name)
    else:
        yield " ".join(words), command


def test_every_command_that_may_take_seconds_can_be_quiet_or_tell_machines() -> None:
    """These two options are the same everywhere; only what lists things lacks them."""
    without = {
        words
        for words, command in _leaves(main)
        if {"quiet", "log_format"} - {parameter.name for parameter in command.params}
    }

    assert without == {"cache show", "samples list", "weights list"}


def test_every_line_on_stderr_is_json(tiny_folder: Path, tmp_path: Path, backend: str) -> None:
    """Training and export, whose parts run in other threads and processes."""
    out, bundle = tmp_path / "run", tmp_path / "bundle"

    trained = _call("train", tiny_folder, "--out", out, *QUICK, "--log-format", "json")
    options = ("--format", "onnx", "--log-format=json", "--json")
    exported = _call("export", out, "--out", bundle, *options)

    assert (trained.exit_code, exported.exit_code) == (0, 0), trained.output + exported.output
    lines = [json.loads(line) for line in (trained.stderr + exported.stderr).splitlines()]
    assert all({"time", "level", "event", "message"} <= line.keys() for line in lines)
    steps = {line["step"] for line in lines if line["event"] == "progress"}
    assert {"train", "evaluate", "gate: Keras", "gate: onnx"} <= steps
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [(line["done"], line["total"]) for line in epochs] == [(1, 2), (2, 2)]
    assert all(line["val_loss"] > 0 for line in epochs)
    (gate,) = [line for line in lines if line["event"] == "gate"]
    assert (gate["format"], gate["passed"]) == ("onnx", True)
    assert _json(exported)["bundle"] == str(bundle)


def test_libraries_write_nothing_past_the_json_lines(
    tiny_folder: Path, tmp_path: Path, backend: str
) -> None:
    """On the real descriptor, where the native parts of a backend write, and not Python's stderr.

    They are asked to be quiet as the command does it, and not by this process.
    """
    words = ["train", tiny_folder, "--out", tmp_path / "run", *QUICK, "--log-format", "json"]
    command = [sys.executable, "-c", "from mnv2tl.cli import main; main()", *map(str, words)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "export")])

    done = subprocess.run(
        [*command, "--json"], env=environment, cwd=tmp_path, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "event", "message"} <= line.keys() for line in lines)
    assert "epoch" in {line["event"] for line in lines}
    assert json.loads(done.stdout)["epochs"] == 2


def test_quiet_is_silent(tiny_folder: Path, tmp_path: Path, backend: str) -> None:
    """Nothing on stderr, with either format."""
    for name, words in (("a", ()), ("b", ("--log-format", "json"))):
        result = _call("train", tiny_folder, "--out", tmp_path / name, *QUICK, "--quiet", *words)
        assert (result.exit_code, result.stderr) == (0, ""), result.output


@pytest.mark.parametrize(
    ("words", "exit_code", "code"),
    [
        (("audit", "missing"), 3, "E300"),
        (("audit", "--wrong"), 2, "usage"),
        (("train",), 2, "usage"),
        (("weights", "fetch", "resnet"), 2, "usage"),
        (("evaluate", "missing", "--quiet"), 4, "E410"),
    ],
)
def test_errors_are_json_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    exit_code: int,
    code: str,
) -> None:
    """One object with level and code, also for wrong usage, and although all else is quiet."""
    monkeypatch.chdir(tmp_path)

    result = _call(*words, "--log-format", "json")

    assert result.exit_code == exit_code, result.output
    line = json.loads(result.stderr.splitlines()[-1])
    assert (line["level"], line["event"], line["code"]) == ("error", "error", code)
    assert line["message"]
    assert len(result.stderr.splitlines()) == 1


def test_train_writes_its_report(run: Path, tiny_folder: Path) -> None:
    """--report at the end of a training, here of one that was finished before."""
    pytest.importorskip("jinja2")

    result = _call(
        "train", tiny_folder, "--out", run, "--resume", "--report", "--json", "--no-index"
    )

    assert result.exit_code == 0, result.output
    assert _json(result)["report"] == str(run / "report.html")
    assert (run / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (("--report",), "jinja2", "report"),
        (("--tensorboard",), "tensorboardX", "tensorboard"),
        (("--tracker", "mlflow"), "mlflow", "mlflow"),
        (("--tracker", "wandb", "--tracker", "mlflow"), "wandb", "wandb"),
    ],
)
def test_what_a_training_needs_at_its_end_is_asked_for_before(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    package: str,
    extra: str,
    backend: str,
) -> None:
    """E508 with the extra, before hours of training."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == package else real(name)
    )

    result = _call("train", tiny_folder, "--out", tmp_path / "run", *QUICK, *words)

    assert result.exit_code == 5, result.output
    assert f"{package} is not installed. Fix: install the extra {extra}" in result.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_trackers_are_told_of_a_training(tiny_folder: Path, tmp_path: Path, backend: str) -> None:
    """Both names of the option mean the same, and a resume may do without."""
    pytest.importorskip("tensorboardX")
    out = tmp_path / "run"

    result = _call(
        "train", tiny_folder, "--out", out, *QUICK, "--tensorboard", "--tracker", "tensorboard"
    )

    assert result.exit_code == 0, result.output
    assert result.stderr.count("tensorboard: ") == 1
    assert json.loads((out / "run.json").read_bytes())["config"]["trackers"] == ["tensorboard"]
    assert json.loads((out / "trackers.json").read_bytes())["tensorboard"]["epoch"] == 2
    assert len(list((out / "tensorboard" / "train").iterdir())) == 1


def test_ctrl_c_in_a_real_process_keeps_the_finished_epochs(
    tiny_folder: Path, tmp_path: Path, backend: str
) -> None:
    """SIGINT after the first epoch: exit 130, and --resume finishes the run."""
    command = [sys.executable, "-m", "mnv2tl", "train", tiny_folder, "--out", tmp_path / "run"]
    words = [*QUICK, "--epochs", "2000"]
    with subprocess.Popen(
        [str(word) for word in (*command, *words)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        log = ""
        for line in process.stderr:
            log += line
            if line.startswith("epoch   1/"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, log
    assert "--resume" in log
    assert "Traceback" not in log

    result = _call(
        "train", tiny_folder, "--out", tmp_path / "run", "--resume", "--epochs", "1", "--no-index"
    )

    assert result.exit_code == 0, result.output


_SLOW = """
import sys, time
print("import begins", file=sys.stderr, flush=True)
time.sleep(60)
print("import ends", file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("package", "backend_name"), [("keras", None), ("tensorflow", "tensorflow")]
)
def test_a_signal_does_not_wait_for_an_import(
    tiny_folder: Path,
    tmp_path: Path,
    backend: str,
    number: signal.Signals,
    package: str,
    backend_name: str | None,
) -> None:
    """It takes many seconds where nothing was compiled to bytecode; then nothing is left behind."""
    (tmp_path / "site" / package).mkdir(parents=True)
    (tmp_path / "site" / package / "__init__.py").write_text(_SLOW)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT), str(ROOT / "export")])
    command = [sys.executable, "-m", "mnv2tl", "train", tiny_folder, "--out", tmp_path / "run"]
    with subprocess.Popen(
        [str(word) for word in (*command, *QUICK)],
        env=os.environ | {"PYTHONPATH": path, "KERAS_BACKEND": backend_name or backend},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        log = ""
        for line in process.stderr:
            log += line
            if line == "import begins\n":
                process.send_signal(number)
    assert process.returncode == 128 + number, log
    assert log.splitlines()[-1].startswith("error[E901 interrupted] 0 of 2 epochs are saved"), log
    assert "import ends" not in log
    assert "Traceback" not in log
    assert [each.name for each in (tmp_path / "run").iterdir()] == [".lock"]
    assert "give the same command again" in log  # a bare --resume would forget its options


@pytest.mark.slow
def test_demo_goes_the_whole_way_on_a_folder(
    tiny_folder: Path, tmp_path: Path, backend: str
) -> None:
    """With a folder and weights of its own the demo needs no network; the run is a normal one."""
    result = _call(
        "demo", "--data", tiny_folder, "--out", tmp_path / "demo", "--weights", "none", "--json"
    )

    assert result.exit_code == 0, result.output
    assert _json(result)["run"] == str(tmp_path / "demo" / "run")
    assert (tmp_path / "demo" / "run" / "best.keras").is_file()
    assert _json(result)["bundle"] == str(tmp_path / "demo" / "bundle")
    assert (tmp_path / "demo" / "bundle" / "model.onnx").is_file()
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    rows = json.loads((tmp_path / "demo" / "benchmark.json").read_bytes())["rows"]
    assert {"onnxruntime", f"keras-{backend}"} <= {row["runtime"] for row in rows}


def test_demo_refuses_a_folder_that_holds_something(tmp_path: Path, backend: str) -> None:
    """E504, before anything is fetched; nothing of the user's is written over."""
    mine = tmp_path / "report.html"
    mine.write_text("mine")

    result = _call("demo", "--out", tmp_path, "--weights", "none")

    assert result.exit_code == 2
    assert "error[E504 folder-exists]" in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    assert mine.read_text() == "mine"


def test_no_sub_command_shows_the_help() -> None:
    """Exit 2, as click has it, and no traceback."""
    result = _call()

    assert result.exit_code == 2
    assert "Usage: " in result.output
    assert "train" in result.output


@pytest.mark.parametrize("inside", ["run", "new/run"])
def test_a_run_folder_among_the_images_is_refused(
    tiny_folder: Path, backend: str, inside: str
) -> None:
    """E504 before anything is written: the next scan would take it for a class."""
    before = sorted(tiny_folder.rglob("*"))

    result = _call("train", tiny_folder, "--out", tiny_folder / inside, *QUICK)

    assert result.exit_code == 2
    assert "error[E504 folder-exists]" in result.stderr
    assert "outside of" in result.stderr
    assert sorted(tiny_folder.rglob("*")) == before


def test_the_current_folder_takes_a_run_but_is_not_replaced(
    tiny_folder: Path, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--out .` trains there; with --force a rename would pull it away from under the shell."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ("train", tiny_folder, "--out", ".", *QUICK)

    first, again, replaced = _call(*words), _call(*words), _call(*words, "--force")

    assert first.exit_code == 0, first.output
    assert Path("best.keras").is_file()
    assert "--force" in again.stderr
    assert replaced.exit_code == 2
    assert "the current folder is not replaced" in replaced.stderr


def test_what_an_interrupted_replacement_left_before_its_settings_is_used_again(
    run: Path, tiny_folder: Path
) -> None:
    """As the error says that ended it: the same command once more."""
    new = run.with_name("run.new")
    new.mkdir()
    for name in (".lock", ".replaces"):
        (new / name).touch()
    before = (run / "run.json").read_bytes()

    result = _call("train", tiny_folder, "--out", run, *QUICK, "--force", "--seed", "7")

    assert result.exit_code == 0, result.output
    assert (run / "run.json").read_bytes() != before
    assert not new.exists()


def test_audit_writes_nothing_into_the_folder_of_the_images(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Not even what --out names; a folder is no file."""
    inside = _call("audit", tiny_folder, "--out", tiny_folder / "manifest.json", "--no-index")
    folder = _call("audit", tiny_folder, "--out", tmp_path, "--no-index")

    assert (inside.exit_code, folder.exit_code) == (2, 2)
    assert "outside of DATA" in inside.stderr
    assert "is a directory" in folder.stderr
    assert not (tiny_folder / "manifest.json").exists()


def test_a_folder_in_which_another_process_trains_is_busy(run: Path, tiny_folder: Path) -> None:
    """E701, not the advice to replace it."""
    with store.lock_folder(run):
        result = _call("train", tiny_folder, "--out", run, *QUICK)

    assert result.exit_code == 7
    assert "error[E701 locked]" in result.stderr


def test_a_training_that_learnt_nothing_says_so(
    tiny_folder: Path, tmp_path: Path, backend: str
) -> None:
    """Where always the same answer would be as good there is a warning."""
    out = tmp_path / "run"
    words = ("--learning-rate", "1e-12", "--epochs", "1", "--val-fraction", "0.9")

    result = _call("train", tiny_folder, "--out", out, *QUICK, *words, "--json")

    entries = json.loads((out / "manifest.json").read_bytes())["entries"]
    labels = [each["label"] for each in entries if each["split"] == "val"]
    assert len(labels) >= 20
    share = max(map(labels.count, labels)) / len(labels)
    is_warned = "warning: on the validation images, always answering" in result.stderr
    assert is_warned == (_json(result)["val_accuracy"] <= share)


def test_demo_refuses_an_unknown_data_set(tmp_path: Path, backend: str) -> None:
    """The sample sets are named."""
    result = _call("demo", "--data", "cats", "--out", tmp_path / "demo")

    assert result.exit_code == 2
    assert "patches" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="starts a process without descriptors")
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_streams_that_are_closed_are_no_files_of_the_run(
    tiny_folder: Path, tmp_path: Path, backend: str, closed: str
) -> None:
    """Else the lock or the checkpoint gets their descriptor, and what libraries print."""
    command = f"exec {sys.executable} -m mnv2tl train {tiny_folder} --out {tmp_path / 'run'}"
    words = " ".join((*QUICK, "--epochs", "1", closed))

    done = subprocess.run(["/bin/sh", "-c", f"{command} {words}"], cwd=ROOT, check=False)

    assert done.returncode == 0
    assert json.loads((tmp_path / "run" / "run.json").read_bytes())["finished"]
    assert (tmp_path / "run" / ".lock").read_bytes().count(b"\n") <= 1
