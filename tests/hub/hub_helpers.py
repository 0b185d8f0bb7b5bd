"""What the tests of the hub share: files changed by hand, and refusals in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt2lib.runs import checkpoint
from gpt2lib.utils.errors import UserError


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), encoding="utf-8")


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / checkpoint.MODEL
    changed = change({name: t.clone() for name, t in load_file(path).items()})
    save_file({name: t.clone().contiguous() for name, t in changed.items()}, path, {"format": "pt"})


def refused(match: str, call: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(UserError, match=match) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
