"""Open JupyterLab on a private copy of the course.

The notebooks are copied to my-notebooks/, which git ignores. A copy that was changed is never
overwritten: a newer version from upstream is put beside it as NAME.new.ipynb. Arguments that are
not known here go to JupyterLab, such as --no-browser.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from common import NOTEBOOKS, REPO

MINE = REPO / "my-notebooks"
RECORD = ".copied.json"
"""In my-notebooks/: sha256 of what was copied last, by file name."""


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copy_notebooks(source: Path, target: Path) -> list[str]:
    """Bring `target` up to date without touching what was changed there; return what to say."""
    target.mkdir(exist_ok=True)
    record_file = target / RECORD
    try:
        record = {str(k): str(v) for k, v in json.loads(record_file.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        record = {}  # then every file that differs counts as changed
    said = []
    for upstream in sorted(source.glob("*.ipynb")):
        mine, newest = target / upstream.name, digest(upstream)
        offered = f"{upstream.stem}.new.ipynb"
        if not mine.exists() or digest(mine) == record.get(upstream.name):
            if not mine.exists() or digest(mine) != newest:
                shutil.copyfile(upstream, mine)
            record[upstream.name] = newest
        elif newest not in (digest(mine), record.get(upstream.name), record.get(offered)):
            beside = _place_beside(target, offered, record.get(offered))
            shutil.copyfile(upstream, beside)
            record[offered] = newest
            said.append(f"{upstream.name} has a new version; yours is kept, see {beside.name}")
    record_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return said


def _place_beside(target: Path, name: str, last: str | None) -> Path:
    """Return NAME.new.ipynb, or NAME.new-2.ipynb … where that was changed by the learner too."""
    place, number = target / name, 2
    while place.exists() and digest(place) != last:
        place = target / name.replace(".new.", f".new-{number}.")
        number += 1
    return place


def main(argv: list[str] | None = None) -> int:
    """Copy, register the kernel, and start JupyterLab."""
    parser = argparse.ArgumentParser(description="Open JupyterLab on a private copy.")
    parser.add_argument("--dry-run", action="store_true", help="prepare; print the command only")
    args, others = parser.parse_known_args(argv)
    for line in copy_notebooks(NOTEBOOKS, MINE):
        print(line)
    kernel = [
        "install",
        "--sys-prefix",
        "--name",
        "python3",
        "--display-name",
        "Python 3 (gpt2lib)",
    ]
    subprocess.run(
        [sys.executable, "-m", "ipykernel", *kernel], check=True, stdout=subprocess.DEVNULL
    )
    first = sorted(path.name for path in MINE.glob("*.ipynb"))[:1]
    # The root is the repository, so that links from a notebook to the library's lines work.
    place = [f"--ServerApp.root_dir={REPO}", *(f"my-notebooks/{name}" for name in first)]
    command = [sys.executable, "-m", "jupyterlab", *place, *others]
    if args.dry_run:
        print(" ".join(command))
        return 0
    kernels = str(Path(sys.prefix) / "share" / "jupyter")
    found = os.pathsep.join(filter(None, [kernels, os.environ.get("JUPYTER_PATH")]))
    try:
        return subprocess.call(command, cwd=REPO, env={**os.environ, "JUPYTER_PATH": found})
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
