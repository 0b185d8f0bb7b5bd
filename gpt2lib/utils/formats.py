"""JSON, JSON a line, and YAML, each read and written in one way.

JSON has no infinity and no NaN, so null stands for them; a YAML key that is given twice is refused.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import write_text

MOST = 1 << 17
"""Values that a YAML text may stand for: an anchor counts each time that it is named."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: if the file is missing or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:  # the latter where it is nested beyond measure
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a JSON object")
    return values


def read_jsonl(path: Path, key: str, strict: bool = False) -> list[dict[str, Any]]:
    """Read a file with a JSON object a line, also while a process is still writing it.

    A line is damaged if it holds no object with a whole number under `key`. It is left out, and
    so is a last line without its end, which is still being written or was torn by a crash.

    Raises:
        UserError: if `strict`, for a damaged line before the last, with its number.
    """
    lines = path.read_bytes().split(b"\n") if path.is_file() else []  # it may end in a character
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError("not an object")
            if not isinstance(values.get(key), int):
                raise ValueError(f"it has no {key}")
        except (ValueError, RecursionError) as error:
            if strict and number < len(lines):
                raise UserError(f"{path}, line {number} is damaged: {error}") from error
            continue
        found.append({name: value for name, value in values.items() if value is not None})
    return found


def write_json(path: Path, values: Any, **style: Any) -> None:
    """Write a JSON file as `write_text` does; `style` goes to `json.dumps`, with an indent of 1."""
    write_text(path, to_json(values, **{"indent": 1, **style}) + "\n")


def to_json(values: Any, **style: Any) -> str:
    """Return values as JSON, which has no infinity and no NaN: null stands for them."""
    return json.dumps(_finite(values), allow_nan=False, **style)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML (or JSON) file of fields.

    Raises:
        UserError: if it is not YAML, has a key twice, or holds something else.
    """
    import yaml

    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold fields such as 'steps: 100'")
    return values


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: if it is not YAML.
        UserError: if it has a key twice, of which YAML would keep the last, if it is nested beyond
            measure, or stands for more values than any file of ours.
    """
    import yaml

    sizes: dict[int, int] = {}  # node → values that it stands for

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
            is_alias = self.check_event(yaml.AliasEvent)
            node: Any = super().compose_node(parent, index)
            if not is_alias:
                within = node.value if isinstance(node, yaml.CollectionNode) else []
                pairs = [entry if isinstance(entry, tuple) else (entry,) for entry in within]
                sizes[id(node)] = 1 + sum(sizes[id(part)] for pair in pairs for part in pair)
            if sizes.get(id(node), MOST) >= MOST:  # within itself an anchor has no size yet
                raise UserError(f"stands for more than {MOST} values, through its anchors")
            return node  # type: ignore[no-any-return]

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node: yaml.MappingNode = super().compose_mapping_node(anchor)
            lines: dict[str, int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # refused later, where it is hashed
                line = key.start_mark.line + 1
                if key.value in lines:
                    where = f"in line {lines[key.value]} and in line {line}"
                    raise UserError(f"has {key.value!r} twice, {where}; leave one of them out")
                lines[key.value] = line
            return node

    try:
        return yaml.load(text, Loader)
    except UserError:  # a ValueError too
        raise
    except RecursionError as error:
        raise UserError("is nested too deeply; a file of ours has three levels") from error
    except ValueError as error:  # a date that there is not, a number of 5,000 digits
        raise UserError(f"holds a value that cannot be read: {error}") from error
