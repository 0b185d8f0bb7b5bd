"""Open JupyterLab on a private copy of the course.

The notebooks are copied to my-notebooks/, which git ignores, without their outputs: answers do not
lie below the stubs. A notebook whose cells were changed is never overwritten: a newer version
from upstream is put beside it as NAME.new.ipynb. To open or to run one does not change its cells.
Arguments that are not known here go to JupyterLab, such as --no-browser.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import NOTEBOOKS, REPO

MINE = REPO / "my-notebooks"
RECORD = ".copied.json"
"""In my-notebooks/: digest of what was copied last, by file name."""
SETTINGS = Path(__file__).parent / "jupyter"
"""Switches JupyterLab's question about news off, for `make lab` alone."""


def digest(path: Path) -> str:
    """Return the sha256 of the cells' sources; of the whole file if it is no notebook."""
    content = path.read_bytes()
    try:
        cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(content)["cells"]]
    except (ValueError, KeyError, TypeError):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def copy_bare(source: Path, target: Path) -> None:
    """Copy a notebook without outputs and without the numbers of its runs."""
    notebook: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(target)


def copy_notebooks(source: Path, target: Path) -> list[str]:
    """Bring `target` up to date without touching what was changed there; return what to say."""
    target.mkdir(exist_ok=True)
    record_file = target / RECORD
    try:
        record = {str(k): str(v) for k, v in json.loads(record_file.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        record = {}  # then every notebook that differs counts as changed
    said = []
    for upstream in sorted(source.glob("*.ipynb")):
        mine, newest = target / upstream.name, digest(upstream)
        offered = f"{upstream.stem}.new.ipynb"
        have = digest(mine) if mine.exists() else None
        if have is None or have in (newest, record.get(upstream.name)):
            if have != newest:
                copy_bare(upstream, mine)
            if have and have != newest:
                said.append(
                    f"{upstream.name} is replaced by its new version; you had not changed it"
                )
            record[upstream.name] = newest
        elif newest not in (record.get(upstream.name), record.get(offered)):
            beside = _name_beside(target, offered, record.get(offered))
            copy_bare(upstream, beside)
            record[offered] = newest
            said.append(f"{upstream.name} has a new version; yours is kept, see {beside.name}")
    record_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return said


def _name_beside(target: Path, name: str, last: str | None) -> Path:
    """Return NAME.new.ipynb, or NAME.new-2.ipynb … where that was changed by the learner too."""
    beside, number = target / name, 2
    while beside.exists() and digest(beside) != last:
        beside = target / name.replace(".new.", f".new-{number}.")
        number += 1
    return beside


def command_line(others: list[str]) -> list[str]:
    """Return the command that opens JupyterLab at the first notebook."""
    first = min(path.name for path in MINE.glob("*.ipynb"))
    # The root is the repository, so that links from a notebook to the library's lines work.
    options = [
        f"--ServerApp.root_dir={REPO}",
        f"--LabApp.default_url=/lab/tree/{MINE.name}/{first}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # a container; JupyterLab refuses otherwise
        options.append("--allow-root")
    return [sys.executable, "-m", "jupyterlab", *options, *others]


def main(argv: list[str] | None = None) -> int:
    """Copy, register the kernel, and start JupyterLab."""
    parser = argparse.ArgumentParser(description="Open JupyterLab on a private copy.")
    parser.add_argument("--dry-run", action="store_true", help="prepare; print the command only")
    args, others = parser.parse_known_args(argv)
    for line in copy_notebooks(NOTEBOOKS, MINE):
        print(line)
    kernel = ["install", "--sys-prefix", "--name", "python3", "--display-name"]
    subprocess.run(
        [sys.executable, "-m", "ipykernel", *kernel, "Python 3 (gpt2lib)"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    command = command_line(others)
    if args.dry_run:
        print(" ".join(command))
        return 0
    environment = dict(os.environ)
    kernels = str(Path(sys.prefix) / "share" / "jupyter")
    for name, folder in (("JUPYTER_PATH", kernels), ("JUPYTER_CONFIG_PATH", str(SETTINGS))):
        environment[name] = os.pathsep.join(filter(None, [folder, os.environ.get(name)]))
    os.chdir(REPO)
    if os.name == "posix":  # take this process's place, so that signals reach JupyterLab
        sys.stdout.flush()
        os.execve(command[0], command, environment)
    return subprocess.call(command, env=environment)


if __name__ == "__main__":
    sys.exit(main())
