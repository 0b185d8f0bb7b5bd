"""Notebook 10: A file that is old or new, never half."""

from __future__ import annotations

from unittest import mock

from gpt2lib.course.exercise import Exercise, Function, Misconception, case
from gpt2lib.course.toy_disk import OTHER_DISK, ToyDisk, ToyPath

OLD, NEW, NAME = "the old state", "the new state", "run/state.json"


def _on_toy_disk(write_text: Function) -> Function:
    """Let the library's own function write to a toy disk."""

    def write(disk: ToyDisk, name: str, content: str) -> None:
        with mock.patch("gpt2lib.utils.files.flush", lambda path: path.flush()):
            write_text(ToyPath(disk, name), content)

    return write


def _watched(my_write: Function) -> ToyDisk:
    """Return a disk with an old file after the learner has written to it."""
    disk = ToyDisk({NAME: OLD})
    my_write(disk, NAME, NEW)
    return disk


def _deletes_first(my_write: Function) -> str | None:
    disk = _watched(my_write)
    if ("delete", NAME) in disk.operations and None in disk.after_a_crash(NAME):
        return (
            "a crash after the delete leaves no file at all: a rename replaces the old file in one "
            "move, so nothing needs deleting"
        )
    return None


def _elsewhere(my_write: Function) -> bool:
    names = {word for operation in _watched(my_write).operations for word in operation[1:]}
    return any(name.startswith(OTHER_DISK) for name in names)


def _swapped(my_write: Function) -> str | None:
    disk = _watched(my_write)
    if any(operation[:2] == ("write", NEW) for operation in disk.operations):
        return (
            f"you wrote a file that is named {NEW!r}: write takes the name first, then the content"
        )
    renamed = [operation for operation in disk.operations if operation[0] == "rename"]
    if NAME not in disk and any(operation[1] == NAME for operation in renamed):
        return (
            f"there is no {NAME} any more: rename took its name away. rename(old, new) takes the "
            "name that a file has first, then the one it gets"
        )
    return None


def _moves_away(my_write: Function) -> str | None:
    disk = _watched(my_write)
    moved = [o[2] for o in disk.operations if o[0] == "rename" and o[1] == NAME]
    if moved and None in disk.after_a_crash(NAME):
        return (
            f"you move the old file to {moved[0]} first; a crash right after that leaves no file "
            f"{NAME}. A rename onto {NAME} replaces the old file in one move"
        )
    return None


def _no_flush(my_write: Function) -> bool:
    return "flush" not in [o[0] for o in _watched(my_write).operations] and _torn(my_write)


def _what_is_left(my_write: Function) -> str | None:
    left = _watched(my_write).after_a_crash(NAME) - {OLD, NEW}
    if not left:
        return None
    found = "no file at all" if left == {None} else f"{sorted(x for x in left if x is not None)}"
    return (
        f"after a crash {NAME} may be neither the old nor the new state: {found}. Write another "
        "file, flush it, then rename it"
    )


def _torn(my_write: Function) -> bool:
    return not _watched(my_write).after_a_crash(NAME) <= {OLD, NEW}


def _in_place(my_write: Function) -> str | None:
    if ("write", NAME) not in _watched(my_write).operations:
        return None
    return (
        "you write into the file itself: after a crash it may hold "
        f"{NEW[: len(NEW) // 2]!r}, or nothing. Write another file and rename it"
    )


def _flushes_too_late(my_write: Function) -> bool:
    done = [operation[0] for operation in _watched(my_write).operations]
    late = "flush" in done[done.index("rename") :]
    return late and "flush" not in done[: done.index("rename")] and _torn(my_write)


def _flushes_the_old(my_write: Function) -> bool:
    done = _watched(my_write).operations
    kinds = [operation[0] for operation in done]
    return ("flush", NAME) in done[: kinds.index("rename")] and _torn(my_write)


EXERCISE = Exercise(
    id="atomic-write",
    notebook="10",
    title="A file that is old or new, never half",
    signature="my_write(disk, name, content)",
    reference="gpt2lib.utils.files:write_text",
    adapt=_on_toy_disk,
    inplace=True,
    cases=lambda: [
        case(ToyDisk({NAME: OLD}), NAME, NEW),
        case(ToyDisk({NAME: OLD, "run/other": "x"}), NAME, ""),
    ],
    hints=[
        "The old file must stay untouched until the new one is complete, so the new one begins "
        "under another name, in the same folder.",
        "A rename may reach the disk before the content does. What makes the content certain?",
        "write(temporary), flush(temporary), rename(temporary, name), in this order.",
    ],
    misconceptions=[
        Misconception("deletes-the-old-first", test=_deletes_first),
        Misconception(
            "temporary-elsewhere",
            "/tmp is another disk: a rename from there is a copy, written into the file itself, "
            "and a crash can cut it in half. Put the temporary file beside the real one",
            test=_elsewhere,
        ),
        Misconception("arguments-swapped", test=_swapped),
        Misconception("moves-the-old-away", test=_moves_away),
        Misconception("writes-in-place", test=_in_place),
        Misconception(
            "flushes-the-old-file",
            "you flush the old file, before the rename; the one whose content is not on the disk "
            "yet is the temporary one",
            test=_flushes_the_old,
        ),
        Misconception(
            "flushes-after-the-rename",
            "between your rename and your flush a crash leaves the new name with half a content: "
            "flush first, then rename",
            test=_flushes_too_late,
        ),
        Misconception(
            "never-flushes",
            "the rename may reach the disk before the content, and then the new name stands on an "
            "empty file: flush the temporary file before you rename it",
            test=_no_flush,
        ),
        Misconception("neither-old-nor-new", test=_what_is_left),
        Misconception(
            "leaves-the-temporary",
            "another file is left on the disk beside the one that was to be written",
            test=lambda my_write: set(_watched(my_write)) != {NAME},
        ),
    ],
)
