"""A process of another interpreter that stays open, so that two backends are timed in turn.

A question and its answer are one line of JSON each; arrays go through files.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, Self, cast

import click

from benchmarks.parts import record
from benchmarks.parts.timing import make_environment

Values = dict[str, Any]


class Worker:
    """A running `python -m MODULE` that calls `serve`; leaving the block ends it.

    Args:
        python: The interpreter.
        module: The module's name.
        environment: Variables to set.
    """

    def __init__(self, python: str, module: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [python, "-m", module],
            cwd=record.ROOT,
            env=make_environment(**environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Popen gives them whenever PIPE is asked for.
        self._questions = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)

    def ask(self, **question: Any) -> Values:
        """Send a question and return the answer.

        Raises:
            click.ClickException: The process ended.
        """
        try:
            self._questions.write(json.dumps(question) + "\n")
            self._questions.flush()
        except BrokenPipeError as error:
            raise click.ClickException("the other process ended") from error
        line = self._answers.readline()
        if not line:
            raise click.ClickException("the other process ended")
        answer: Values = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        with contextlib.suppress(BrokenPipeError):
            self._questions.close()


def serve(answer: Callable[..., Values]) -> None:
    """Answer questions until there are no more; what anything prints goes to stderr.

    Args:
        answer: Called with a question's values by name.
    """
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        for line in sys.stdin:
            out.write(json.dumps(answer(**json.loads(line))) + "\n")
            out.flush()
