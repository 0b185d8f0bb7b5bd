"""YAML, read in one way: plain values, and a key that is given twice is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt2lib.utils.errors import UserError


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
        UserError: if it has a key twice, of which YAML would keep the last.
    """
    import yaml

    class Loader(yaml.SafeLoader):
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

    return yaml.load(text, Loader)
