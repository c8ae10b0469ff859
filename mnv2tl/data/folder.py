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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from mnv2tl.data.index_part import STATUS_BYTES, Part
from mnv2tl.data.manifest import LeftOut
from mnv2tl.data.packed import Texts
from mnv2tl.data.records import Columns
from mnv2tl.data.split import Split
from mnv2tl.data.walker import Node, Walker, is_hidden, scan_folder
from mnv2tl.errors import DataError, show
from mnv2tl.memory import pause_collector

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
NESTED = "nested sub-folders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Regular files of one class in one folder; a tuple per file would take thrice the memory."""

    folder: str
    """Absolute; of followed links, that of their targets."""
    prefix: str
    """With a name it makes the path from the root, with forward slashes."""
    class_name: str
    split: Split | None
    """Where a split is taken as found; None where the rule decides."""
    names: Texts
    """Sorted."""
    stats: bytes
    """A packed status of each; see `index_part`."""

    def path(self, row: int) -> str:
        """Return the path of a file from the root."""
        return self.prefix + self.names[row]

    def status(self, row: int) -> bytes:
        """Return the packed status of a file."""
        return self.stats[row * STATUS_BYTES : (row + 1) * STATUS_BYTES]

    def file(self, row: int) -> str:
        """Return the absolute path of a file."""
        return os.path.join(self.folder, self.names[row])

    def make_part(self, rows: Sequence[int], columns: Columns) -> Part:
        """Return some of the files for the index.

        Args:
            rows: Their numbers.
            columns: What was read of all.
        """
        return Part(names=self.names, stats=self.stats, columns=columns).take(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one walk through a data folder found."""

    root: Path
    """Absolute, without links."""
    class_names: tuple[str, ...]
    """Sorted by code points."""
    groups: tuple[Group, ...]
    """The files, sorted by prefix."""
    left_out: tuple[LeftOut, ...]
    """Pipes, devices and files that vanished."""
    ignored: Counter[str]
    """What is no file of a class, by kind."""
    folders: frozenset[Split]
    """The splits that are taken as found."""


class _Place(NamedTuple):
    class_name: str
    split: Split | None
    folder: str


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
    walker = Walker(root=os.fspath(home), follow_links=follow_links)
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
    groups, left_out = _list_parts(parts, walker)
    return Listing(
        root=home,
        class_names=tuple(class_names),
        groups=tuple(sorted(groups, key=attrgetter("prefix"))),
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
        fix = "name a folder of class folders"
        raise DataError("E300", message, path=folder, fix=fix) from error
    if not stat.S_ISDIR(mode):
        raise DataError("E300", "not a folder", path=folder, fix="name a folder of class folders")
    return folder.resolve()


def would_list(root: Path, folder: Path) -> bool:
    """Tell whether a scan of a data folder would take another folder, once it is made, for a class.

    Args:
        root: The data folder; it need not exist.
        folder: Any folder; it need not exist.
    """
    place, folder = (Path(os.path.realpath(each)) for each in (root, folder))
    if not folder.is_relative_to(place):
        return False
    inside = folder.relative_to(place).parts
    if any(is_hidden(name) for name in inside):
        return False
    top = _list_top(place)
    if inside and _is_split(top):
        if inside[0] not in SPLIT_FOLDERS:
            return len(top) == 1  # train/ alone is a split, beside any folder it is a class
        place, inside = place / inside[0], inside[1:]
    # What lies deeper, in a class that is there, is only counted.
    return len(inside) < 2 or not (place / inside[0]).is_dir()


def _list_top(root: Path) -> dict[str, str]:
    """Return name -> path of the folders in a folder that a scan looks at; none if it is none."""
    if not root.is_dir():
        return {}
    found = [each for each in scan_folder(os.fspath(root)) if each.is_dir(follow_symlinks=False)]
    return {each.name: each.path for each in found if not is_hidden(each.name)}


def _list_parts(
    parts: Iterable[tuple[Split | None, dict[str, str]]], walker: Walker
) -> tuple[list[Group], list[LeftOut]]:
    groups: dict[tuple[str, str], Group] = {}
    linked: dict[tuple[str, str], tuple[_Place, str, bytes]] = {}
    left_out: list[LeftOut] = []
    for split, folders in parts:
        for class_name, folder in folders.items():
            names, stats, others = walker.files(folder)
            place = _Place(class_name, split, folder)
            if walker.follow_links:
                for name, status in zip(names, stats, strict=True):
                    linked[class_name, os.path.join(folder, name)] = place, name, status
            else:
                groups[class_name, folder] = _make_group(walker.root, place, names, stats)
            for node in others:
                if node.kind == "file" and node.stat is not None:
                    target, name = os.path.split(node.file)
                    linked[class_name, node.file] = (
                        _Place(class_name, split, target),
                        name,
                        node.stat,
                    )
                else:
                    left_out.extend(_leave_out(node, walker))
    return [*groups.values(), *_group_links(linked.values(), walker.root)], left_out


def _leave_out(node: Node, walker: Walker) -> Iterator[LeftOut]:
    path = relative_path(node.file, walker.root)
    if node.kind == "folder":
        walker.ignored[NESTED] += 1
    elif node.kind == "special":
        reason = "not a regular file"
        yield LeftOut(path=path, code="not-a-regular-file", reason=reason)
    else:
        yield LeftOut(path=path, code="vanished", reason="vanished")


def _group_links(found: Iterable[tuple[_Place, str, bytes]], root: str) -> Iterator[Group]:
    """Yield the files of one class in one folder, wherever the links to them lie."""
    places: dict[_Place, dict[str, bytes]] = {}
    for place, name, status in found:
        places.setdefault(place, {})[name] = status
    for place, files in places.items():
        names = sorted(files)
        yield _make_group(root, place, names, [files[name] for name in names])


def _make_group(root: str, place: _Place, names: list[str], stats: list[bytes]) -> Group:
    return Group(
        folder=place.folder,
        prefix=relative_path(os.path.join(place.folder, "x"), root)[:-1],
        class_name=place.class_name,
        split=place.split,
        names=Texts(names),
        stats=b"".join(stats),
    )


def relative_path(file: str, root: str) -> str:
    """Return the path of a file from a folder, with forward slashes."""
    inside = file.startswith(root + os.sep)
    path = file[len(root) + 1 :] if inside else os.path.relpath(file, root)
    return path.replace(os.sep, "/")


def _is_split(top: dict[str, str]) -> bool:
    if "train" not in top:
        return False
    others = top.keys() - {"train"}
    if others and not others & SPLIT_FOLDERS.keys():
        return False
    return any(entry.is_dir(follow_symlinks=False) for entry in scan_folder(top["train"]))


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
