"""The command `mnv2tl`: a group whose sub-commands are imported only when they are called.

This file owns what every command shares: how an expected error becomes one line and an exit code,
how `--json` prints a result, and the options of progress and log lines.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

import mnv2tl
from mnv2tl import __version__, progress
from mnv2tl.errors import InterruptError, MachineError, Mnv2tlError, install_extra
from mnv2tl.memory import explain_shortage

COMMANDS = {
    "audit": ("mnv2tl.commands.audit:audit", "Check a folder of images and show how it is split."),
    "benchmark": (
        "mnv2tl_export.benchmark_command:benchmark",
        "Time the files of a bundle, and Keras, in turn.",
    ),
    "cache": ("mnv2tl.commands.cache:cache", "Look at the feature cache, or clear it."),
    "compare": ("mnv2tl.commands.compare:compare", "Hold runs against each other, and test them."),
    "demo": ("mnv2tl_export.demo_command:demo", "Go the whole way on sample pictures."),
    "doctor": ("mnv2tl.commands.doctor:doctor", "Say what works here, and what is missing."),
    "evaluate": ("mnv2tl_export.evaluate_command:evaluate", "Measure a run or an ONNX file."),
    "export": ("mnv2tl_export.cli:export", "Turn a run into files that are deployed."),
    "predict": ("mnv2tl_export.cli:predict", "Classify pictures with an exported ONNX file."),
    "report": ("mnv2tl.commands.report:report", "Write what a run learnt as one HTML file."),
    "samples": ("mnv2tl.commands.samples:samples", "List sample data sets, or fetch one."),
    "selftest": ("mnv2tl_export.cli:selftest", "Show that an exported file works here."),
    "train": ("mnv2tl.commands.train:train", "Train on a folder of images."),
    "weights": ("mnv2tl.commands.weights:weights", "List, fetch or verify base weights."),
}
"""Sub-command -> where it lives, and its line in `mnv2tl --help`."""

EXTRAS = {
    **dict.fromkeys(("h5py", "keras", "matplotlib", "onnx", "platformdirs"), "jax"),
    "onnxruntime": "deploy",
    **dict.fromkeys(("tensorflow", "tf2onnx"), "savedmodel"),
    "skimage": "demo",
    **dict.fromkeys(("jinja2", "markupsafe"), "report"),
}
"""Optional package -> the extra that brings it."""


_FREE_MEMORY = "close other programs, or take a smaller --image-px, --alpha or --max-pixels"
_JSON = "mnv2tl.json"
_JSON_LOG = "mnv2tl.json_log"

Command = TypeVar("Command", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group that imports a sub-command when it is called, and prints expected errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all sub-commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the sub-command of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of sub-commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether result and log are asked for as JSON, then parse as click does."""
        ctx.meta[_JSON] = "--json" in args
        pairs = itertools.pairwise(args)
        ctx.meta[_JSON_LOG] = "--log-format=json" in args or ("--log-format", "json") in pairs
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command; an expected error ends as one line and its exit code."""
        with progress.log_as_json() if ctx.meta[_JSON_LOG] else contextlib.nullcontext():
            try:
                with _name_extra(), explain_shortage("the work", fix=_FREE_MEMORY):
                    return super().invoke(ctx)
            except Mnv2tlError as error:
                if ctx.params["debug"]:
                    raise
                progress.tell_error(error.line(), **error.to_json())
                if ctx.meta[_JSON]:
                    print_json(error.to_json())
                ctx.exit(exit_code_of(error))
            except click.UsageError as error:
                if not ctx.meta[_JSON_LOG]:
                    raise
                progress.tell_error(error.format_message(), code="usage")
                ctx.exit(error.exit_code)
            except KeyboardInterrupt:
                ctx.exit(128 + signal.SIGINT)
            except BrokenPipeError:
                # Whoever read the output has enough; nothing more is flushed at the end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                ctx.exit(0)


@contextlib.contextmanager
def _name_extra() -> Iterator[None]:
    """Turn the import of an optional package that is not installed into an expected error."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        fix = install_extra(EXTRAS[error.name])
        raise MachineError("E508", f"{error.name} is not installed", fix=fix) from error


def log_options(command: Command) -> Command:
    """Add `--quiet` and `--log-format`, which every command has that may take seconds."""
    # The group reads the format itself: it prints the errors.
    log_format = click.option(
        "--log-format",
        type=click.Choice(progress.LOG_FORMATS),
        default=progress.LOG_FORMATS[0],
        show_default=True,
        expose_value=False,
        help="json: each line on stderr is one JSON object, for machines.",
    )
    quiet = click.option(
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=lambda ctx, param, value: progress.set_quiet(value),
        help="Show no progress.",
    )
    return quiet(log_format(command))


def exit_code_of(error: Mnv2tlError) -> int:
    """Return the exit code of the process for an error.

    >>> exit_code_of(InterruptError(15, "nothing was written"))
    143
    """
    if isinstance(error, InterruptError):
        return 128 + error.signal_number
    return error.exit_code


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object as one line of stdout; ASCII, so that any terminal takes it."""
    click.echo(json.dumps(value, allow_nan=False))


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a `ValueError` about a setting into click's usage error, exit 2."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    raise InterruptError(signal_number, "stopped by a signal; what was saved before is kept")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mnv2tl")
@click.option("--debug", is_flag=True, help="Show the traceback of an expected error too.")
def main(debug: bool) -> None:
    """Fine-tune MobileNetV2 on a folder of images, one sub-folder per class.

    Exit codes: 0 done, 1 a bug of mnv2tl, 2 wrong usage, 3 data, 4 a file is refused, 5 machine,
    6 the result is refused, 7 busy, 130 or 143 interrupted.
    """
    signal.signal(signal.SIGTERM, _terminate)


def run() -> None:
    """Run the command in a process of its own; it does not wait for an import nobody needs."""
    mnv2tl.is_command = True
    _open_missing_streams()
    try:
        main(prog_name="mnv2tl")
    except BaseException as error:
        backend = sys.modules.get("mnv2tl.backend")
        if backend is not None and backend.is_importing():
            _leave(error)
        raise


def _open_missing_streams() -> None:
    """Put the null device where there is no stdin, stdout or stderr.

    Else the first files that are opened get their descriptors, and what is printed there; in
    processes that are started here too.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _leave(error: BaseException) -> NoReturn:
    """End the process at once: a thread that imports could not be stopped."""
    from mnv2tl.start_up_notes import pass_on

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    code = 1
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
    elif isinstance(error.code, int):
        code = error.code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    pass_on()
    os._exit(code)
