"""Folders that `datasets.save_to_disk` made, read without that library.

Such a folder is a list of Arrow files. Reading them here needs neither the library nor the
memory maps that it makes.
"""

from __future__ import annotations

from pathlib import Path

from gpt2lib.data.sources.arrow_tables import kinds
from gpt2lib.data.sources.split_names import choose_splits
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import inside
from gpt2lib.utils.formats import read_json

STATE = "state.json"
INFO = "dataset_info.json"
PARTS = "dataset_dict.json"


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `datasets.save_to_disk` made the folder."""
    parts = (PARTS,), (STATE, INFO)
    return any(all((folder / name).is_file() for name in names) for names in parts)


def saved_files(folder: Path, split: str | None) -> tuple[list[Path], list[Path] | None, str]:
    """Return the Arrow files of a saved dataset.

    Returns:
        Those to train on, those held out (None if the dataset does not say), and the licence.

    Raises:
        UserError: if something of the folder is missing or damaged.
    """
    try:
        if not (folder / PARTS).is_file():
            if split is not None:
                raise UserError(f"{folder} has no splits, so --data.split {split} cannot be chosen")
            return _arrow_files(folder), None, _licence(folder)
        names = read_json(folder / PARTS)["splits"]
        train, val = choose_splits(names, split, folder.name)
        held = None if val is None else _arrow_files(inside(folder, val))
        return _arrow_files(inside(folder, train)), held, _licence(folder / train)
    except (KeyError, TypeError) as error:
        raise UserError(f"cannot read the dataset in {folder}: it lacks {error}") from error


def _arrow_files(folder: Path) -> list[Path]:
    entries = read_json(folder / STATE)["_data_files"]
    paths = [inside(folder, str(entry["filename"])) for entry in entries]
    for path in paths:
        if not path.is_file():
            raise UserError(f"cannot read the dataset in {folder}: {path.name} is missing")
        kinds(path)  # a damaged file is found before anything is made of it
    return paths


def _licence(folder: Path) -> str:
    return read_json(folder / INFO).get("license") or "see the dataset's card"
