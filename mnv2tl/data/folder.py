"""What lies in a data folder: its classes and their files, before any file is opened.

    root/cats/1.jpg             one sub-folder per class
    root/train/cats/1.jpg       or a split as found: train/, val/ (or valid/, validation/), test/

Links are not followed, devices and pipes are never opened, and everything else that is no file of
a class is counted, never made a class.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

from mnv2tl.data.collector import pause_collector
from mnv2tl.data.manifest import LeftOut
from mnv2tl.data.split import Split
from mnv2tl.data.stat_index import Status
from mnv2tl.errors import DataError, MachineError, show

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}

OUTSIDE = "files outside the class folders"
NESTED = "nested sub-folders"
HIDDEN = "hidden or system files"
LINKS = "links that are not followed"


class Found(NamedTuple):
    """One regular file of a class. A tuple: there is one per file, and they are made fast."""

    path: str
    """Relative to the root, with forward slashes; of a followed link, that of its target."""
    file: str
    """Absolute."""
    class_name: str
    split: Split | None
    """Where a split is taken as found; None where the rule decides."""
    stat: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one walk through a data folder found."""

    root: Path
    """Absolute, without links."""
    class_names: tuple[str, ...]
    """Sorted by code points."""
    found: tuple[Found, ...]
    """Sorted by path."""
    left_out: tuple[LeftOut, ...]
    """Pipes, devices and files that vanished."""
    ignored: Counter[str]
    """What is no file of a class, by kind."""
    folders: frozenset[Split]
    """The splits that are taken as found."""


class _Node(NamedTuple):
    name: str
    file: str
    kind: Literal["folder", "file", "special"]
    stat: Status | None


@dataclass(slots=True, kw_only=True)
class _Walker:
    root: str
    follow_links: bool
    ignored: Counter[str] = field(default_factory=Counter)

    def nodes(self, folder: str) -> Iterator[_Node]:
        """Yield what counts in a folder, sorted by name; count the rest."""
        for entry in sorted(_scan_folder(folder), key=attrgetter("name")):
            name = entry.name
            if name.startswith(".") or name.casefold() in _SYSTEM_NAMES:
                self.ignored[HIDDEN] += 1
            elif entry.is_file(follow_symlinks=False):
                yield _Node(name, entry.path, "file", _stat(entry))
            elif entry.is_symlink():
                node = self._follow(entry, folder) if self.follow_links else None
                if node is None:
                    self.ignored[LINKS] += 1
                else:
                    yield node
            elif entry.is_dir(follow_symlinks=False):
                yield _Node(name, entry.path, "folder", None)
            else:
                yield _Node(name, entry.path, "special", None)

    def _follow(self, entry: os.DirEntry[str], folder: str) -> _Node | None:
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
        return _Node(name=entry.name, file=target, kind=kind, stat=_status_of(found))

    def class_folders(self, folder: str, leave: str | None) -> dict[str, str]:
        """Return name -> folder of the classes in a folder; `leave` is the test folder."""
        folders = {}
        for node in self.nodes(folder):
            if node.kind != "folder":
                self.ignored[OUTSIDE] += 1
            elif node.file != leave:
                folders[node.name] = node.file
        return folders


@pause_collector()
def list_folder(root: Path, *, test_dir: Path | None = None, follow_links: bool = False) -> Listing:
    """List the classes of a data folder and the files of each.

    A folder `train` with sub-folders makes root a split as found, if `val` or `test` lies beside
    it, or no other folder at all; so `train` may also be the name of a class.

    Args:
        root: The data folder.
        test_dir: A folder with the same classes, taken as the test split.
        follow_links: Follow a link whose target lies inside root.

    Raises:
        DataError: A folder is missing (E300) or unreadable (E307), a class has a name that is not
            UTF-8 (E304) or equals another but for case or Unicode form (E305), or the test folder
            has a class that root lacks (E310).
    """
    home = resolve_folder(root)
    test = None if test_dir is None else os.fspath(resolve_folder(test_dir))
    walker = _Walker(root=os.fspath(home), follow_links=follow_links)
    top = walker.class_folders(walker.root, test)
    parts: list[tuple[Split | None, dict[str, str]]]
    if _is_split(top):
        parts = [
            (SPLIT_FOLDERS[name], walker.class_folders(folder, test))
            for name, folder in top.items()
            if name in SPLIT_FOLDERS
        ]
        walker.ignored["other folders beside train"] += len(top) - len(parts)
    else:
        parts = [(None, top)]
    class_names = sorted({name for _, folders in parts for name in folders})
    _check_names(class_names, home)
    if test is not None:
        folders = walker.class_folders(test, None)
        _check_known(folders, class_names, test)
        parts.append(("test", folders))
    found, left_out = _list_parts(parts, walker)
    return Listing(
        root=home,
        class_names=tuple(class_names),
        found=tuple(sorted(found.values(), key=attrgetter("path"))),
        left_out=tuple(left_out),
        ignored=walker.ignored,
        folders=frozenset(split for split, _ in parts if split is not None),
    )


def resolve_folder(folder: Path) -> Path:
    """Return a folder as an absolute path without links.

    Raises:
        DataError: It does not exist or is not a folder (E300), or cannot be looked at (E307).
    """
    try:
        mode = folder.stat().st_mode
    except PermissionError as error:
        raise DataError("E307", "permission denied", path=folder) from error
    except OSError as error:
        parent = next(
            (each for each in folder.absolute().parents if os.path.isdir(each)), folder.anchor
        )
        message = f"no such folder; the nearest existing parent is {show(parent)}"
        raise DataError("E300", message, path=folder) from error
    if not stat.S_ISDIR(mode):
        raise DataError("E300", "not a folder", path=folder, fix="name a folder of class folders")
    return folder.resolve()


def _list_parts(
    parts: Iterable[tuple[Split | None, dict[str, str]]], walker: _Walker
) -> tuple[dict[tuple[str, str], Found], list[LeftOut]]:
    found: dict[tuple[str, str], Found] = {}
    left_out = []
    for split, folders in parts:
        for class_name, folder in folders.items():
            for _, file, kind, status in walker.nodes(folder):
                path = relative_path(file, walker.root)
                if kind == "folder":
                    walker.ignored[NESTED] += 1
                elif kind == "special":
                    reason = "not a regular file"
                    left_out.append(LeftOut(path=path, code="not-a-regular-file", reason=reason))
                elif status is None:
                    left_out.append(LeftOut(path=path, code="vanished", reason="vanished"))
                else:
                    found[class_name, path] = Found(path, file, class_name, split, status)
    return found, left_out


def relative_path(file: str, root: str) -> str:
    """Return the path of a file from a folder, with forward slashes."""
    inside = file.startswith(root + os.sep)
    path = file[len(root) + 1 :] if inside else os.path.relpath(file, root)
    return path.replace(os.sep, "/")


def _scan_folder(folder: str) -> list[os.DirEntry[str]]:
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


def _stat(entry: os.DirEntry[str]) -> Status | None:
    try:
        return _status_of(entry.stat(follow_symlinks=False))
    except OSError:  # it vanished since the folder was read
        return None


def _status_of(found: os.stat_result) -> Status:
    return Status(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _is_split(top: dict[str, str]) -> bool:
    if "train" not in top:
        return False
    others = top.keys() - {"train"}
    if others and not others & SPLIT_FOLDERS.keys():
        return False
    return any(entry.is_dir(follow_symlinks=False) for entry in _scan_folder(top["train"]))


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _check_names(class_names: list[str], root: Path) -> None:
    same: dict[str, str] = {}
    for name in class_names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            message = f"the class name {show(name)} is not UTF-8"
            raise DataError("E304", message, path=root, fix="rename the folder") from error
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if key in same:
            message = f"the class names {show(same[key])} and {show(name)} are equal but for "
            message += "letter case or Unicode form"
            raise DataError("E305", message, path=root, fix="merge or rename the folders")
        same[key] = name


def _check_known(folders: dict[str, str], class_names: list[str], test: str) -> None:
    unknown = sorted(folders.keys() - set(class_names))
    if unknown:
        message = "no such class in the data folder: " + ", ".join(show(name) for name in unknown)
        raise DataError("E310", message, path=test, fix="give test folders the same names")
