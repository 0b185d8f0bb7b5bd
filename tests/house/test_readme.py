"""The README: its links lead somewhere, its map is complete, its blocks are found."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from readme_blocks import blocks  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "figures/README.md"])
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    local = [t for t in targets if not t.startswith("http")]
    assert [t for t in local if not (page.parent / t).exists()] == []


def test_every_notebook_is_on_the_map_with_its_minutes() -> None:
    import nbformat

    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        header = nbformat.read(path, as_version=4).cells[0].source
        minutes = re.search(r"Minutes: (\d+) to read, (\S+) to run", header)
        assert minutes, f"{path.name} does not say its minutes"
        row = next(line for line in README.splitlines() if f"notebooks/{path.name}" in line)
        assert row.endswith(f"| {minutes[1]} | {minutes[2]} |"), path.name


def test_every_preset_is_named() -> None:
    presets = [p.stem for p in (ROOT / "gpt2lib" / "config" / "presets").glob("*.yaml")]
    assert [name for name in presets if f"`{name}`" not in README] == []


def test_blocks_are_found_by_their_tag() -> None:
    text = "```bash ci\nmake train\n```\n\n```bash\nnot this\n```\n\n```python ci\nx = 1\n```\n"
    assert blocks(text) == [("bash", "make train\n"), ("python", "x = 1\n")]
    assert {language for language, _ in blocks(README)} == {"bash", "python"}
