"""Notebook 10: Which checkpoint to go on from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from gpt2lib.course.exercise import Exercise, Function, Misconception, Seen, case, lazy

checkpoint: Any = lazy("gpt2lib.runs.checkpoint")
Entry = dict[str, Any]


def _newest_on_disk(newest: Function) -> Function:
    """Lay the checkpoints into a run's folder, seal them, and let the library choose."""
    from gpt2lib.utils.files import MANIFEST, atomic_folder

    def choose(folders: list[Entry]) -> str | None:
        with tempfile.TemporaryDirectory() as place:
            run = Path(place)
            for folder in folders:
                target = run / "checkpoints" / folder["name"]
                with atomic_folder(target) as inside:
                    (inside / "weights").write_bytes(b"numbers")
                if not folder["sound"]:
                    (target / MANIFEST).unlink()
            for folder in folders:
                target = run / "checkpoints" / folder["name"]
                os.utime(target, (folder["modified"], folder["modified"]))
            with mock.patch.object(checkpoint.logger, "disabled", True):
                found = newest(run)
        return None if found is None else str(found.name)

    return choose


def _folder(step: str, sound: bool, modified: int) -> Entry:
    return {"name": f"step-{step}", "sound": sound, "modified": modified}


def _number(folder: Entry) -> int:
    return int(folder["name"].removeprefix("step-"))


def _last(folders: list[Entry], key: Function) -> str | None:
    """Return the name of the last sound folder in some order."""
    sound = [folder for folder in folders if folder["sound"]]
    return max(sound, key=key)["name"] if sound else None


def _gives_up(folders: list[Entry]) -> str | None:
    last = max(folders, key=_number)
    return last["name"] if last["sound"] else None


def _any_damage(folders: list[Entry]) -> str | None:
    return _last(folders, _number) if all(f["sound"] for f in folders) else None


def _seen_damaged(seen: Seen) -> str:
    return f"{seen.got} is damaged: go back to the newest that verifies, {seen.expected}"


EXERCISE = Exercise(
    id="newest-checkpoint",
    notebook="10",
    title="Which checkpoint to go on from",
    signature="my_newest(folders)",
    reference="gpt2lib.runs.checkpoint:newest",
    adapt=_newest_on_disk,
    cases=lambda: [
        case([_folder("900", True, 30), _folder("1000", True, 40), _folder("1100", False, 50)]),
        case([_folder("00000020", True, 90), _folder("00000040", True, 10)]),  # copied back later
        case([_folder("00000040", True, 2), _folder("00000020", False, 1)]),
        case([_folder("00000020", False, 1), _folder("00000040", False, 2)]),
        case([_folder("00000060", True, 4), _folder("00000020", True, 5)]),  # in no order
    ],
    hints=[
        "The number in the name says which is newest. As text, '900' comes after '1000'.",
        "Leave out what does not verify, then take the highest number.",
        'int(folder["name"].removeprefix("step-")) is the number; without a sound one, None.',
    ],
    misconceptions=[
        Misconception(
            "sorts-as-text",
            "you compare the names as text, and 'step-900' comes after 'step-1000': compare the "
            "numbers",
            wrong=lambda folders: _last(folders, lambda f: f["name"]),
        ),
        Misconception(
            "highest-even-if-damaged",
            _seen_damaged,
            wrong=lambda folders: max(folders, key=_number)["name"],
        ),
        Misconception(
            "last-written",
            "the time of a file changes when it is copied or restored from a backup: the number in "
            "the name is the step",
            wrong=lambda folders: _last(folders, lambda f: f["modified"]),
        ),
        Misconception(
            "last-of-the-list",
            "you take the last sound one of the list; a folder is listed in any order, so compare "
            "the numbers in the names",
            wrong=lambda folders: next((f["name"] for f in folders[::-1] if f["sound"]), None),
        ),
        Misconception(
            "gives-up",
            "the newest is damaged, and you give up: an older one is sound, and the run loses some "
            "steps only",
            wrong=_gives_up,
        ),
        Misconception(
            "one-bad-spoils-all",
            "one damaged checkpoint does not spoil the others: choose among the sound ones",
            wrong=_any_damage,
        ),
        Misconception(
            "oldest",
            "that is the oldest sound one: all steps since would be trained again",
            wrong=lambda folders: _last(folders, lambda f: -_number(f)),
        ),
    ],
)
