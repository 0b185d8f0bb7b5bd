"""What is in a folder, and what is there in place of a path that is not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from gpt2lib.utils.errors import nearest

_log = logging.getLogger(__name__)


def files_below(folder: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """Iterate over the wanted files of a folder and its subfolders; say what is left out.

    As in a glob, what is hidden is not meant: editors keep copies of the text there.
    """
    left: list[str] = []

    def unreadable(error: OSError) -> None:
        left.append(f"{error.filename} ({error.strerror})")

    for name, folders, names in os.walk(folder, onerror=unreadable):
        here = Path(name)
        folders[:] = [n for n in folders if not n.startswith(".")]
        left += [f"{here / n} (a link)" for n in folders if (here / n).is_symlink()]
        yield from readable([p for n in names if n[0] != "." and wanted(p := here / n)], left)
    say_not_read(folder, left)


def say_not_read(source: Path | str, left: Sequence[str]) -> None:
    """Log what of a source is left out, if anything is."""
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        said = "%s: not read: %s%s; give a folder of its own, or a glob, to read it"
        _log.warning(said, source, ", ".join(sorted(left)[:3]), more)


def readable(paths: Iterable[Path], left: list[str]) -> Iterator[Path]:
    """Iterate over those that are files; note the others, which a name alone made look like one."""
    for path in paths:
        if path.is_file():
            yield path
        elif not path.is_dir():
            what = "a broken link" if path.is_symlink() else "a pipe or a device"
            left.append(f"{path} ({what})")


def missing(source: str, path: Path) -> str:
    """Say which part of a path is missing, and what is there instead."""
    if path.is_symlink():
        return f"{source} is a link to {path.readlink()}, which does not exist"
    if path.exists():
        return f"{source} is no file and no folder, but a pipe or a device; give a file"
    parent, name = path.parent, path.name
    while not parent.is_dir():
        parent, name = parent.parent, parent.name
    hint = nearest(name, sorted(p.name for p in parent.iterdir()))
    missing = "" if parent == path.parent else f" ({parent / name} does not exist)"
    here = "" if path.is_absolute() or hint else f"; it was looked for in {Path.cwd()}"
    return f"there is no file, folder or corpus {source!r}{missing}{hint}{here}"
