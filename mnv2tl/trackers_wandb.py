"""Track a training in Weights & Biases: in files of the run, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = "mnv2tl"
"""Name of the project, unless WANDB_PROJECT is set."""


class WandbTracker:
    """A run of Weights & Biases.

    Args:
        folder: Of the run; the files go to its folder `wandb`, unless WANDB_DIR is set.
        name: What the run is called.
        settings: Shown as its configuration.
        known: Its id, if it was opened before.
    """

    def __init__(
        self, folder: Path, *, name: str, settings: Mapping[str, Any], known: str | None
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # noqa: PLC0415  optional

        mode = {} if os.environ.get("WANDB_MODE") else {"mode": "offline"}
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=known,
            name=os.environ.get("WANDB_NAME", name),
            dir=os.environ.get("WANDB_DIR", str(folder)),
            resume="allow",
            config=dict(settings),
            # Figures, settings and run.json are tracked; the code and what is printed are not.
            settings=wandb.Settings(
                **mode,
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
        self.id: str = self.run.id
        folder_of_files = Path(self.run.dir).parent
        self.place = f"run {self.id}, {folder_of_files.name} in the folder wandb of the run"
        if self.run.offline:
            self.place += "; nothing is sent until: wandb sync"

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row of the history."""
        self.run.log({key: value for key, value in row.items()}, step=row["epoch"])

    def write_end(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write the figures of the finished run, and keep a copy of its files."""
        self.run.summary.update(dict(figures))
        for path in files:
            copy = Path(self.run.dir, path.name)
            shutil.copyfile(path, copy)
            self.run.save(str(copy), base_path=self.run.dir, policy="end")

    def close(self, status: str) -> None:
        """Say how it ended: finished, stopped or failed."""
        self.run.finish(exit_code=0 if status == "finished" else 1)
