"""Notebook 10: Find the file that was altered."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case

Files = dict[str, str]
Manifest = dict[str, dict[str, Any]]


def _entry(content: str) -> dict[str, Any]:
    data = content.encode()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _first_damaged(verify: Function) -> Function:
    """Lay the files into a folder and let the library verify it."""

    def damaged(files: Files, manifest: Manifest) -> str | None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name, content in files.items():
                (folder / name).write_bytes(content.encode())
            sealed = json.dumps({"format": 1, "files": manifest})
            (folder / "manifest.json").write_text(sealed, encoding="utf-8")
            try:
                verify(folder)
            except Exception as error:
                said = str(error).replace(place, "").replace("manifest.json", "")
                return next(name for name in manifest if name in said)
        return None

    return damaged


def _manifests() -> list[Case]:
    files = {"config.json": "{}", "model": "weights", "state.json": "step 7"}
    manifest = {name: _entry(content) for name, content in files.items()}
    missing = {name: content for name, content in files.items() if name != "state.json"}
    return [
        case(files, manifest),
        case({**files, "model": "wejghts"}, manifest),
        case({**files, "state.json": "step"}, manifest),
        case(missing, manifest),
        case({"a note": "mine", **files}, manifest),
        case({**files, "model": "Weights", "config.json": ""}, manifest),
        case({"note": "naïve"}, {"note": _entry("naïve")}),  # 6 bytes, 5 characters
    ]


def _takes(sum_of: Callable[[bytes], str | bytes]) -> Callable[[Function], bool]:
    """Test whether an answer finds files sound where the manifest holds another kind of sum."""

    def takes(my_damaged: Function) -> bool:
        files = {"model": "weights"}
        entry = {"size": 7, "sha256": sum_of(b"weights")}
        return my_damaged(files, {"model": entry}) is None and bool(
            my_damaged(files, {"model": _entry("weights")})
        )

    return takes


def _by_characters(files: Files, manifest: Manifest) -> str | None:
    for name, entry in manifest.items():
        content = files.get(name)
        if content is None or len(content) != entry["size"] or _bad(content, entry):
            return name
    return None


def _bad(content: str, entry: dict[str, Any]) -> bool:
    return _entry(content) != entry


EXERCISE = Exercise(
    id="damaged-file",
    notebook="10",
    title="Find the file that was altered",
    signature="my_damaged(files, manifest)",
    reference="gpt2lib.utils.files:verify",
    adapt=_first_damaged,
    cases=_manifests,
    hints=[
        "Go through the manifest, not through the files: a file that is gone is not among the "
        "files.",
        "hashlib.sha256(content.encode()).hexdigest() is the sum as text.",
        "Return the name of the first that is missing or differs; after the loop, None.",
    ],
    misconceptions=[
        Misconception(
            "size-only",
            "you compare sizes only: a flipped byte leaves the size as it was",
            wrong=lambda files, manifest: next(
                (
                    n
                    for n, entry in manifest.items()
                    if n not in files or len(files[n].encode()) != entry["size"]
                ),
                None,
            ),
        ),
        Misconception(
            "skips-the-missing",
            "a file that the manifest names and that is gone is damage, too",
            wrong=lambda files, manifest: next(
                (n for n, e in manifest.items() if n in files and _bad(files[n], e)), None
            ),
        ),
        Misconception(
            "goes-through-the-files",
            "you go through the files: what is missing is then never noticed, and a file that was "
            "added counts as damage. Go through the manifest",
            wrong=lambda files, manifest: next(
                (n for n, c in files.items() if n not in manifest or _bad(c, manifest[n])), None
            ),
        ),
        Misconception(
            "digest-as-bytes",
            "you find damage in files that are whole: `.digest()` is bytes and the manifest holds "
            "text. `.hexdigest()` is the same sum as text",
            test=_takes(lambda data: hashlib.sha256(data).digest()),
        ),
        Misconception(
            "another-sum",
            "you find damage in files that are whole: the manifest holds sums of sha256, and yours "
            "are of md5",
            test=_takes(lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest()),
        ),
        Misconception(
            "sound-files-damaged",
            "you find damage in files that are whole; sizes are numbers of bytes, and sums are "
            "hashlib.sha256(content.encode()).hexdigest()",
            wrong=lambda files, manifest: next(iter(manifest)),
        ),
        Misconception(
            "characters-for-bytes",
            "'naïve' has 5 characters and 6 bytes, and the manifest counts bytes: compare "
            "len(content.encode())",
            wrong=_by_characters,
        ),
        Misconception(
            "only-the-first",
            "you return after the first file, sound or not: None may be returned only after all",
            wrong=lambda files, manifest: next(
                (n for n in list(manifest)[:1] if n not in files or _bad(files[n], manifest[n])),
                None,
            ),
        ),
    ],
)
