"""Run the blocks of a Markdown file that are tagged `ci`, as a reader would type them.

    python tools/readme_blocks.py README.md

A block begins with ```bash ci or ```python ci. They run in order, from the repository's root,
and stop at the first that fails. Training is the seconds-long `smoke` preset: `make` gets
PRESET=smoke, and the blocks read `runs/smoke` where the text says `runs/cpu`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(bash|python) ci\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """Return language and content of every block tagged `ci`."""
    return [(m[1], m[2]) for m in BLOCK.finditer(text)]


def run(language: str, content: str) -> int:
    """Run one block and return its exit code."""
    content = content.replace("runs/cpu", "runs/smoke")
    binaries = ROOT / ".venv" / "bin"
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else ["python", "-c"]
    program = shutil.which(shell[0], path=path) or shell[0]
    environment = {**os.environ, "PATH": path, "PRESET": "smoke"}
    return subprocess.run([program, *shell[1:], content], cwd=ROOT, env=environment).returncode


def main() -> int:
    """Run the blocks of the files that the arguments name."""
    for name in sys.argv[1:]:
        found = blocks(Path(name).read_text(encoding="utf-8"))
        if not found:
            print(f"{name} has no block tagged ci", file=sys.stderr)
            return 1
        for number, (language, content) in enumerate(found, 1):
            first = content.strip().splitlines()[0]
            print(f"── {name}, block {number} of {len(found)}: {first}", flush=True)
            started = time.monotonic()
            code = run(language, content)
            if code:
                print(f"{name}: block {number} ended with exit code {code}", file=sys.stderr)
                return 1
            print(f"── {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
