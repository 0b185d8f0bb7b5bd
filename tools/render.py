"""Run notebooks in full mode and commit-ready their outputs.

    python tools/render.py          all notebooks
    python tools/render.py 04       those whose name begins with 04
    python tools/render.py --links  nothing is run: links of show_source follow lines that moved
    python tools/render.py --sources  the same, and listings follow code that changed: for changes
                                      that leave every number of the notebook as it is
    python tools/render.py --speed  nothing is run: this machine's speed test is recorded

A notebook is written only if every cell ran; so are its figures. The measured minutes go into
the header line "Minutes: 40 to read, 3 to run", and with the speed test of this machine into
`gpt2lib/cli/minutes.json`, from which `gpt2lib doctor` predicts those of another one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from common import FIGURES, NOTEBOOKS, REPO, closed_room, copy_for_run, find_notebooks
from figure_list import README, figure_list, figures_of

from gpt2lib.cli.checks import check_load
from gpt2lib.cli.forecast import MINUTES as MINUTES_FILE
from gpt2lib.course.sources import listing_of, resolve

MINUTES = re.compile(r"(Minutes: [^\n]*?)(\S+)( to run)")
ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}\b")
CELL_FILE = re.compile(r"\S*ipykernel_\d+[/\\]\d+\.py")  # how warnings name a cell
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT = ("tags", "jupyter")
"""Metadata of a cell that stay; the second folds the code of a figure in JupyterLab."""
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def execute(notebook: Path, room: Path) -> tuple[Any, float]:
    """Run a copy in a clean kernel; return the notebook with outputs, and the seconds it took.

    Raises:
        RuntimeError: with the last lines of the error, if a cell fails.
    """
    copy = copy_for_run(notebook, room)
    number_cells(content := nbformat.read(copy, as_version=4))  # outputs link to cells
    nbformat.write(content, copy)
    environment = closed_room(room, fast=False)
    environment["OMP_NUM_THREADS"] = "2"  # sums are taken in another order with other numbers
    environment["GPT2LIB_FIGURES"] = str(room / "figures")
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("execute.py")), str(copy)],
        env=environment,
        cwd=copy.parent,
        text=True,
        encoding="utf-8",
        errors="replace",
        capture_output=True,
        check=False,
    )
    seconds = time.monotonic() - start
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip()[-3000:])
    return nbformat.read(copy, as_version=4), seconds


def number_cells(notebook: Any) -> None:
    """Give cells the ids that are committed."""
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:03d}"


def tidy(notebook: Any, replacements: dict[str, str]) -> None:
    """Make outputs the same from run to run: no times, addresses, places or random ids."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    number_cells(notebook)
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type != "code":
            continue
        # A widget, such as a progress bar, is nothing without its kernel.
        kept = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
        cell.outputs = _merge_streams(kept)
        for output in cell.outputs:
            if "text" in output:
                output.text = _clean(output.text, replacements)
            for kind, data in output.get("data", {}).items():
                if isinstance(data, str) and kind.startswith("text/"):
                    output.data[kind] = _clean(data, replacements)


def _merge_streams(outputs: list[Any]) -> list[Any]:
    """Join neighbouring pieces of the same stream: how text is cut into pieces is chance."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _clean(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    # A carriage return overwrites its line; what is left at the end is what was seen.
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return ADDRESS.sub("0x…", CELL_FILE.sub("this cell", text))


def write_minutes(notebook: Any, seconds: float) -> None:
    """Put the measured minutes into the header.

    Raises:
        RuntimeError: if the first cell has no line "Minutes: … to run".
    """
    header = notebook.cells[0]
    if not MINUTES.search(header.source):
        raise RuntimeError("the first cell needs a line such as 'Minutes: 40 to read, 3 to run'")
    minutes = max(1, math.ceil(seconds / 60 - 0.25))
    header.source = MINUTES.sub(rf"\g<1>{minutes}\g<3>", header.source, count=1)


def render(notebook: Path, figures: Path) -> float:
    """Render one notebook in place, and its figures; return the seconds it took."""
    with tempfile.TemporaryDirectory(prefix="gpt2lib-render-") as folder:
        room = Path(folder).resolve()
        result, seconds = execute(notebook, room)
        before = {f.name for f in figures_of(notebook)}
        places = {
            f"{room}{os.sep}": "../",
            f"{REPO}{os.sep}": "../",
            str(room): "..",
            str(REPO): "..",
            f"{tempfile.gettempdir()}{os.sep}": "",
            str(Path.home()): "~",
        }
        tidy(result, places)
        write_minutes(result, seconds)
        beside = notebook.with_suffix(".rendered")
        nbformat.write(result, beside)
        beside.replace(notebook)
        figures.mkdir(exist_ok=True)
        for name in before - {f.name for f in figures_of(notebook)}:
            (figures / f"{name}.png").unlink(missing_ok=True)
        for made in sorted((room / "figures").glob("*.png")):
            shutil.copyfile(made, figures / made.name)
    return seconds


def record_minutes(notebooks: list[Path], file: Path, speed: dict[str, Any] | None) -> None:
    """Write the minutes in the headers of notebooks to a file, and the machine's speed test.

    Args:
        notebooks: all of them; the numbers that their names begin with are the keys.
        file: the file to write.
        speed: what `gpt2lib.cli.forecast.speed_test` returned; None keeps what the file says.
    """
    minutes = {}
    for path in notebooks:
        header = nbformat.read(path, as_version=4).cells[0].source
        if found := MINUTES.search(header):
            minutes[path.name[:2]] = float(found[2])
    if speed is None:
        speed = json.loads(file.read_text(encoding="utf-8"))["speed"]
    text = json.dumps({"speed": speed, "notebooks": minutes}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def measure_speed() -> dict[str, Any] | None:
    """Run the speed test of the CPU in a process like those that run notebooks.

    Returns:
        What it found, or None on a busy machine, where it would say too little.
    """
    load = check_load(2.0)
    if load.status != "ok":
        print(f"the speed test is not recorded: {load.said}", flush=True)
        return None
    code = (
        "import json; from gpt2lib.training.hardware import prepare_process; prepare_process(); "
        "from gpt2lib.cli.forecast import speed_test; print(json.dumps(speed_test('cpu')))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True
    )
    return dict(json.loads(done.stdout))


def refresh_links(notebook: Path, changed: bool = False) -> int:
    """Follow lines that moved; return how many listings did.

    Args:
        notebook: whose outputs of `show_source` are looked at.
        changed: whether the listing of code that changed is made anew, too. The other outputs are
            then older than the code: whoever asks for it knows that they would be the same.
    """
    content = nbformat.read(notebook, as_version=4)
    moved = 0
    for output in (o for cell in content.cells for o in cell.get("outputs", [])):
        record = output.get("metadata", {}).get("gpt2lib", {})
        if "source" in record:
            options = {"only": record["only"], "docstrings": record["docstrings"]}
            now = listing_of(resolve(record["source"]), **options)
            moves = now.markdown != output.data["text/markdown"]
            if changed if now.sha256 != record["sha256"] else moves:
                output.data["text/markdown"] = now.markdown
                record["sha256"] = now.sha256
                moved += 1
    if moved:
        nbformat.write(content, notebook)
    return moved


def main(argv: list[str] | None = None) -> int:
    """Render the chosen notebooks; return 1 if one of them failed, which is then unchanged."""
    parser = argparse.ArgumentParser(description="Render the notebooks' outputs.")
    parser.add_argument("notebook", nargs="?", default="", help="beginning of a name, such as 04")
    parser.add_argument("--links", action="store_true", help="only follow lines that moved")
    parser.add_argument("--sources", action="store_true", help="also list changed code anew")
    parser.add_argument("--speed", action="store_true", help="only record the speed test")
    parser.add_argument("--folder", type=Path, default=NOTEBOOKS, help=argparse.SUPPRESS)
    parser.add_argument("--figures", type=Path, default=FIGURES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    failed = 0
    ours = args.folder == NOTEBOOKS
    speed = measure_speed() if ours and not (args.links or args.sources) else None
    if args.speed:
        record_minutes(find_notebooks(), MINUTES_FILE, speed)
        return 0 if speed else 1
    for notebook in find_notebooks(args.notebook, args.folder):
        if args.links or args.sources:
            print(f"{notebook.name}: {refresh_links(notebook, args.sources)} listings follow")
            continue
        try:
            seconds = render(notebook, args.figures)
            print(f"rendered  {notebook.name}  {seconds:.0f} s", flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"FAILED  {notebook.name} (not changed)\n{error}", flush=True)
    if ours:  # with --links the speed stays as it was
        record_minutes(find_notebooks(), MINUTES_FILE, speed)
    made = [f for path in find_notebooks(folder=args.folder) for f in figures_of(path)]
    if made:
        (args.figures / README).write_text(figure_list(made), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
