"""A walk through the entries of folders: which are files, which are folders, and what counts."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal, NamedTuple

from mnv2tl.data.index_part import pack_status
from mnv2tl.errors import DataError, MachineError

_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}

OUTSIDE = "files outside the class folders"
HIDDEN = "hidden or system files"
LINKS = "links that are not followed"


class Node(NamedTuple):
    """What counts in a folder and is no regular file that lies there."""

    name: str
    file: str
    """Absolute; of a followed link, that of its target."""
    kind: Literal["folder", "file", "special"]
    stat: bytes | None
    """Packed; None if the file vanished."""


@dataclass(slots=True, kw_only=True)
class Walker:
    """Goes through folders of one data folder."""

    root: str
    """Absolute, without links."""
    follow_links: bool
    """Follow a link whose target lies inside root."""
    ignored: Counter[str] = field(default_factory=Counter)
    """What counts nowhere, by kind."""

    def files(self, folder: str) -> tuple[list[str], list[bytes], list[Node]]:
        """Return names and statuses of the regular files in a folder, and what else counts."""
        names, stats, others = [], [], []
        for entry in sorted(scan_folder(folder), key=attrgetter("name")):
            name = entry.name
            if entry.is_file(follow_symlinks=False) and not is_hidden(name):
                try:
                    stats.append(pack_status(entry.stat(follow_symlinks=False)))
                    names.append(name)
                except OSError:  # it vanished since the folder was read
                    others.append(Node(name, entry.path, "file", None))
            elif node := self._node(entry, folder):
                others.append(node)
        return names, stats, others

    def _node(self, entry: os.DirEntry[str], folder: str) -> Node | None:
        """Return what counts and is no regular file; count the rest."""
        if is_hidden(entry.name):
            self.ignored[HIDDEN] += 1
        elif entry.is_symlink():
            node = self._follow(entry, folder) if self.follow_links else None
            if node is None:
                self.ignored[LINKS] += 1
            return node
        elif entry.is_dir(follow_symlinks=False):
            return Node(entry.name, entry.path, "folder", None)
        else:
            return Node(entry.name, entry.path, "special", None)
        return None

    def _follow(self, entry: os.DirEntry[str], folder: str) -> Node | None:
        target = os.path.realpath(entry.path)
        if not _is_inside(target, self.root) or _is_inside(folder, target):
            return None  # out of the data folder, or a loop
        try:
            found = os.lstat(target)
        except OSError:
            return None
        kind: Literal["folder", "file", "special"] = (
            "folder"
            if stat.S_ISDIR(found.st_mode)
            else "file"
            if stat.S_ISREG(found.st_mode)
            else "special"
        )
        return Node(name=entry.name, file=target, kind=kind, stat=pack_status(found))

    def class_folders(self, folder: str, leave: str | None) -> dict[str, str]:
        """Return name -> folder of the classes in a folder; `leave` is the test folder."""
        folders = {}
        names, _, others = self.files(folder)
        if names:
            self.ignored[OUTSIDE] += len(names)
        for node in others:
            if node.kind != "folder":
                self.ignored[OUTSIDE] += 1
            elif node.file != leave:
                folders[node.name] = node.file
        return folders


def scan_folder(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder.

    Raises:
        DataError: It cannot be looked at (E307) or vanished (E300).
        MachineError: The disk fails (E502).
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError as error:
        raise DataError("E307", "permission denied", path=folder) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError("E300", "the folder vanished", path=folder) from error
    except OSError as error:
        message = f"input or output failed: {error.strerror}"
        raise MachineError("E502", message, path=folder) from error


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is passed over."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
