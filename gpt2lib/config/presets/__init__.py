"""Presets and YAML files: whole runs by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2lib.config.schema import with_changes
from gpt2lib.config.training import TrainConfig
from gpt2lib.utils.errors import UserError, nearest

PRESETS = Path(__file__).parent
"""Where the YAML presets lie; `gpt2lib train NAME` takes one by its name."""


def preset_names() -> list[str]:
    """Return the names of the presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_path(name_or_path: str) -> Path:
    """Return the YAML file of a preset's name, or the path itself if it is a file.

    Raises:
        UserError: if there is neither.
    """
    from gpt2lib.utils.files import expand  # a model by itself needs nothing of files

    for path in (expand(PRESETS / f"{name_or_path}.yaml"), expand(name_or_path)):
        if path.is_file():
            return path
    raise UserError(
        f"no preset or YAML file {name_or_path!r}; presets: {', '.join(preset_names())}"
        f"{nearest(name_or_path, preset_names())}"
    )


def load_config(name_or_path: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a preset by name, or a YAML (or JSON) file, as a `TrainConfig`.

    Args:
        name_or_path: the preset or the file.
        changes: fields that replace those of the file, by names such as `optim.lr`.

    Raises:
        UserError: if there is none, it is not YAML, or a field is wrong.
    """
    from gpt2lib.utils.formats import read_yaml

    values = read_yaml(preset_path(name_or_path))
    return TrainConfig.from_dict(with_changes(values, changes or {}))
