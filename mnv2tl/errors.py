"""Every error that a user can meet, with its code, its exit code and its one line.

    Mnv2tlError
    ├── ExistsError     exit 2  the output folder holds something already
    ├── DataError       exit 3  the pictures or their folders cannot be used
    ├── ArtifactError   exit 4  a model, checkpoint or cache file is refused
    ├── MachineError    exit 5  disk, memory, permission or a missing package
    ├── ResultError     exit 6  the result is not good enough to keep
    ├── BusyError       exit 7  another process holds the folder
    └── InterruptError  exit 130 or 143  stopped by a signal, state saved

A wrong argument of a function is a `ValueError`; the command line turns it into exit 2.
"""

from __future__ import annotations

import os
from typing import ClassVar

NAMES = {
    "E300": "no-folder",
    "E301": "empty-class",
    "E302": "one-class",
    "E303": "tiny-class",
    "E304": "class-name",
    "E305": "equal-class-names",
    "E306": "same-image-two-classes",
    "E307": "permission-denied",
    "E308": "too-many-bad-images",
    "E309": "bad-image",
    "E310": "unknown-class",
    "E401": "dataset-differs",
    "E402": "classes-differ",
    "E403": "no-valid-state",
    "E404": "config-differs",
    "E405": "class-count",
    "E406": "bad-manifest",
    "E410": "unsupported-model",
    "E411": "no-metadata",
    "E412": "bad-model",
    "E413": "hash-differs",
    "E414": "weights-missing",
    "E415": "weights-do-not-fit",
    "E416": "download-failed",
    "E501": "no-space",
    "E502": "input-output",
    "E503": "read-only",
    "E504": "folder-exists",
    "E505": "out-of-memory",
    "E508": "package-missing",
    "E509": "worker-failed",
    "E601": "parity",
    "E602": "not-finite",
    "E603": "self-check",
    "E701": "locked",
    "E901": "interrupted",
}
"""Code -> name; every code that the project prints stands here once."""


def show(path: str | os.PathLike[str]) -> str:
    r"""Return a path in quotes with everything outside printable ASCII escaped.

    >>> show("caf\udce9.jpg")
    '"caf\\udce9.jpg"'
    """
    return '"' + ascii(os.fspath(path))[1:-1].replace('"', '\\"') + '"'


def install_extra(name: str) -> str:
    """Return how to install what an extra of this project brings.

    >>> install_extra("jax")
    "install the extra jax, in a clone: pip install '.[jax]'"
    """
    return f"install the extra {name}, in a clone: pip install '.[{name}]'"


class Mnv2tlError(Exception):
    """An expected failure: one line for the user, and the exit code of the process.

    Args:
        code: A key of `NAMES`.
        message: What is wrong: what came and what is allowed, without a full stop.
        path: The file or folder that it is about; shown first, escaped.
        fix: What the user can do, in the imperative.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        fix: str | None = None,
    ) -> None:
        self.code = code
        self.name = NAMES[code]
        self.message = message
        self.path = None if path is None else os.fspath(path)
        self.fix = fix
        super().__init__(self.line())

    def line(self) -> str:
        """Return the one line that the command line prints."""
        where = "" if self.path is None else f"{show(self.path)}: "
        fix = "" if self.fix is None else f". Fix: {self.fix}"
        return f"error[{self.code} {self.name}] {where}{self.message}{fix}"

    def to_json(self) -> dict[str, str | None]:
        """Return the keys that `--json` prints for a failure."""
        return {
            "code": self.code,
            "name": self.name,
            "path": self.path,
            "message": self.message,
            "fix": self.fix,
        }


class ExistsError(Mnv2tlError):
    """The output folder holds something already."""

    exit_code = 2


class DataError(Mnv2tlError):
    """The pictures or their folders cannot be used."""

    exit_code = 3


class ArtifactError(Mnv2tlError):
    """A model, checkpoint or cache file is refused."""

    exit_code = 4


class MachineError(Mnv2tlError):
    """The machine lacks space, memory, a permission or a package."""

    exit_code = 5


class ResultError(Mnv2tlError):
    """The result is not good enough to keep."""

    exit_code = 6


class BusyError(Mnv2tlError):
    """Another process holds the folder."""

    exit_code = 7


class InterruptError(Mnv2tlError):
    """A signal stopped the work; what was committed is kept.

    Args:
        signal_number: 2 for Ctrl-C (exit 130), 15 for a termination (exit 143).
        message: What is kept.
        fix: The command that goes on from there.
    """

    def __init__(self, signal_number: int, message: str, *, fix: str | None = None) -> None:
        super().__init__("E901", message, fix=fix)
        self.signal_number = signal_number
