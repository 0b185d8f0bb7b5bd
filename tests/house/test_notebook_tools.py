"""The tools around the notebooks: running, rendering, hygiene, and the learner's own copies."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


HEADER = "# 00 · Tiny\n\nMinutes: 2 to read, 77 to run on two CPU cores."
CELLS = [
    "from gpt2lib.course import expect_error, plots, progress, show_source, check\n"
    "from gpt2lib.utils.errors import UserError\n"
    "import os, sys, warnings",
    "def my_bits_per_byte(nats, n_bytes):\n    ...",
    "my_bits_per_byte = check('bits-per-byte', my_bits_per_byte).use",
    "check('bits-per-byte', lambda nats, n_bytes: nats / n_bytes)",
    "plots.style()\nplots.show(plots.heatmap([[1.0, 0.5]]), 'tiny', 'Two squares: the left is 1.')",
    "show_source(UserError)",
    "print(object(), os.getcwd(), sep='\\n')\nprint('a\\rb')\nprint(os.path.expanduser('~'))",
    "with expect_error(OSError, match='blocked'):\n"
    "    import socket\n    socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "progress()",
]


def make_notebook(path, cells=CELLS, header=HEADER):
    notebook = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "x"}})
    notebook.cells = [v4.new_markdown_cell(header), *map(v4.new_code_cell, cells)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A tiny notebook, rendered once."""
    root = tmp_path_factory.mktemp("course")
    make_notebook(root / "notebooks" / "00_tiny.ipynb")
    done = render(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def render(root):
    places = ["--folder", str(root / "notebooks"), "--figures", str(root / "figures")]
    command = [sys.executable, str(TOOLS / "render.py"), *places]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def outputs(path):
    return [c.outputs for c in nbformat.read(path, 4).cells if c.cell_type == "code"]


def test_rendered_notebook(rendered):
    path = rendered / "notebooks" / "00_tiny.ipynb"
    notebook = nbformat.read(path, 4)
    minutes = re.search(r"Minutes: 2 to read, (\d+) to run", notebook.cells[0].source)
    assert int(minutes[1]) < 77, "the minutes are measured; few, though a machine may be busy"
    assert [c.execution_count for c in notebook.cells[1:]] == list(range(1, 10))
    assert [c.id for c in notebook.cells[:2]] == ["cell-000", "cell-001"]
    text = path.read_text(encoding="utf-8")
    for trace in (str(rendered), "gpt2lib-render", "execution_state", "0x7f", str(Path.home())):
        assert trace not in text


def test_rendered_outputs(rendered):
    verdict, wrong, figure, source, printed, blocked, progress = outputs(
        rendered / "notebooks" / "00_tiny.ipynb"
    )[2:]
    assert "not attempted yet" in verdict[0].data["text/plain"]
    assert len(wrong) == 1, "a verdict on the last line of a cell is displayed once"
    assert "nats per byte" in wrong[0].data["text/html"]
    assert figure[0].metadata["image/png"]["alt"] == "Two squares: the left is 1."
    assert "image/png" in figure[0].data
    assert "Two squares: the left is 1." in figure[1].data["text/html"]
    assert "```python\nclass UserError" in source[0].data["text/markdown"]
    assert printed[0].text == "<object object at 0x…>\n../notebooks\nb\n~\n"
    assert "blocked" in blocked[0].text
    assert "0 of " in progress[0].data["text/plain"]


def test_rendered_figures_are_listed(rendered):
    figures = rendered / "figures"
    assert sorted(p.name for p in figures.iterdir()) == ["README.md", "tiny.png"]
    row = (
        "| [tiny.png](tiny.png) | [00_tiny.ipynb](../notebooks/00_tiny.ipynb) | 5 "
        "| Two squares: the left is 1. |"
    )
    assert row in (figures / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_rendering_again_changes_nothing(rendered):
    def content():
        files = [p for p in rendered.rglob("*") if p.is_file()]
        return {p: re.sub(rb"\d+ to run", b"N to run", p.read_bytes()) for p in files}

    before = content()
    assert render(rendered).returncode == 0
    assert content() == before


@pytest.mark.slow
def test_a_failing_notebook_is_not_written(tmp_path):
    path = make_notebook(tmp_path / "notebooks" / "00_bad.ipynb", ["1 + 1", "1 / 0"])
    before = path.read_bytes()
    done = render(tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout
    assert path.read_bytes() == before
    assert not (tmp_path / "figures").exists()


@pytest.mark.slow
def test_run_notebooks(tools, tmp_path, capsys):
    runner = tools("run_notebooks")
    folder = tmp_path / "notebooks"
    good = [
        CELLS[0],
        "import os, pathlib\nassert os.environ['GPT2LIB_FAST'] == '1'",
        "pathlib.Path('left').touch()",
        CELLS[7],
    ]
    path = make_notebook(folder / "00_good.ipynb", good)
    before = path.read_bytes()
    assert runner.main(["--fast", "--folder", str(folder)]) == 0
    assert "1 of 1 notebooks passed" in capsys.readouterr().out
    assert [p.name for p in folder.iterdir()] == ["00_good.ipynb"]
    assert path.read_bytes() == before
    make_notebook(folder / "01_bad.ipynb", ["assert 1 == 2, 'unequal'"])
    assert runner.main(["--fast", "--folder", str(folder), "01"]) == 1
    said = capsys.readouterr().out
    assert "FAILED  01_bad.ipynb" in said
    assert "unequal" in said
    with pytest.raises(SystemExit, match="no notebook begins with '07'"):
        runner.main(["--full", "--folder", str(folder), "07"])


def test_network_block_allows_this_machine_only():
    code = (
        "import socket, urllib.request\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\n"
        "socket.getaddrinfo('localhost', 80)\n"
        "for attempt in (\n"
        "    lambda: socket.create_connection(('192.0.2.1', 80), timeout=1),\n"
        "    lambda: socket.getaddrinfo('example.org', 80),\n"
        "    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9)),\n"
        "    lambda: urllib.request.urlopen('http://example.org', timeout=1),\n"
        "):\n"
        "    try:\n"
        "        attempt()\n"
        "    except OSError as error:\n"
        "        print('blocked' in str(error))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(TOOLS / "no_network")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"] * 4, done.stderr


def spoil(rendered, tmp_path, change):
    """Copy the rendered notebook, change its JSON, and return what hygiene says of it."""
    content = json.loads((rendered / "notebooks" / "00_tiny.ipynb").read_text(encoding="utf-8"))
    change(content["cells"], content)
    path = tmp_path / "00_tiny.ipynb"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


FAULTS = {
    "an absolute path": lambda c, n: c[1]["outputs"].append(stream("saved to /home/ada/x.pt\n")),
    "an absolute path: \\": lambda c, n: c[1]["outputs"].append(stream("\\ C:\\Users\\ada\n")),
    "cell 3: an absolute path": lambda c, n: c[3].update(source="open('/tmp/x')"),
    "a traceback": lambda c, n: c[1]["outputs"].append(
        stream("Traceback (most recent call last)\n")
    ),
    "an error: ValueError: bad": lambda c, n: c[1]["outputs"].append(
        {"output_type": "error", "ename": "ValueError", "evalue": "bad", "traceback": []}
    ),
    "a widget": lambda c, n: c[1]["outputs"].append(
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"application/vnd.jupyter.widget-view+json": {}},
        }
    ),
    "execution counts": lambda c, n: c[2].update(execution_count=9),
    "execution counts are": lambda c, n: c[2].update(execution_count=None),
    "no outputs": lambda c, n: [x.update(outputs=[]) for x in c[1:]],
    "did you mean 'bits-per-byte'": lambda c, n: c[2].update(source='hint("bits-per-bite")'),
    "differs from the library": lambda c, n: c[6]["outputs"][0]["data"].update(
        {"text/markdown": [t.replace("Input", "Inputs") for t in markdown(c)]}
    ),
    "differs": lambda c, n: c[6]["outputs"][0]["metadata"]["gpt2lib"].update(sha256="0"),
    "the library no longer has it": lambda c, n: c[6]["outputs"][0]["metadata"]["gpt2lib"].update(
        source="gpt2lib.utils.errors:Gone"
    ),
    "the lines have moved": lambda c, n: c[6]["outputs"][0]["data"].update(
        {"text/markdown": [t.replace("#L", "#L9") for t in markdown(c)]}
    ),
    "at most 800,000": lambda c, n: c[1]["outputs"].append(stream("x" * 800_001)),
    "the kernel is 'venv'": lambda c, n: n["metadata"]["kernelspec"].update(name="venv"),
    "not a valid notebook": lambda c, n: n.update(cells=[{"cell_type": "?"}]),
}


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def markdown(cells):
    return cells[6]["outputs"][0]["data"]["text/markdown"]


@pytest.mark.parametrize("fault", FAULTS)
def test_hygiene_catches(fault, rendered, tmp_path, tools):
    path = spoil(rendered, tmp_path, FAULTS[fault])
    said = list(tools("hygiene").problems_of(path))
    assert any(fault in line for line in said), said
    assert all("\n" not in line for line in said)
    assert len(said) == 1


def test_hygiene_accepts_what_was_rendered(rendered, tools, capsys):
    places = ["--notebooks", str(rendered / "notebooks"), "--figures", str(rendered / "figures")]
    assert tools("hygiene").main(places) == 0
    assert capsys.readouterr().out == "1 notebooks are clean\n"


def test_hygiene_of_figures(rendered, tmp_path, tools):
    hygiene = tools("hygiene")
    notebooks = [rendered / "notebooks" / "00_tiny.ipynb"]
    (tmp_path / "stray.png").touch()
    said = "\n".join(hygiene.problems_of_figures(notebooks, tmp_path))
    assert "figures/stray.png: no notebook makes it" in said
    assert "figures/tiny.png is missing" in said
    assert "README.md is not up to date" in said
    said = list(hygiene.problems_of_figures(notebooks * 2, rendered / "figures"))
    assert any("'tiny' is made by two cells" in line for line in said)


def test_links_follow_lines_that_moved(rendered, tmp_path, tools):
    path = spoil(rendered, tmp_path, FAULTS["the lines have moved"])
    assert tools("render").refresh_links(path) == 1
    assert list(tools("hygiene").problems_of(path)) == []
    stale = spoil(rendered, tmp_path, FAULTS["differs"])
    assert tools("render").refresh_links(stale) == 0
    assert tools("render").refresh_links(stale, changed=True) == 1
    assert list(tools("hygiene").problems_of(stale)) == []


def small_notebook(path, *sources, outputs=True):
    """Write a notebook of some code cells, executed as committed ones are."""
    notebook = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "x"}})
    notebook.cells = [v4.new_markdown_cell("# 00 · Größe"), *map(v4.new_code_cell, sources)]
    for number, cell in enumerate(notebook.cells[1:] if outputs else [], 1):
        cell.execution_count = number
        cell.outputs = [v4.new_output("stream", text=f"the answer of {cell.source}")]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


def sources(path):
    return [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]


@pytest.fixture
def course(tmp_path):
    upstream, mine = tmp_path / "notebooks", tmp_path / "my-notebooks"
    small_notebook(upstream / "00_a.ipynb", "one")
    return upstream, mine


def names(folder):
    return sorted(p.name for p in folder.glob("*.ipynb"))


def test_lab_copies_have_no_answers_below_the_stubs(tools, course):
    lab, (upstream, mine) = tools("lab"), course
    lab.copy_notebooks(upstream, mine)
    copy, original = (nbformat.read(f / "00_a.ipynb", 4) for f in (mine, upstream))
    nbformat.validate(copy)
    assert [(c.outputs, c.execution_count) for c in copy.cells[1:]] == [([], None)]
    assert "the answer" not in (mine / "00_a.ipynb").read_text(encoding="utf-8")
    assert [c.id for c in copy.cells] == [c.id for c in original.cells], "links lead to cells"
    assert [c.source for c in copy.cells] == [c.source for c in original.cells]
    assert original.cells[1].outputs, "the committed one is not touched"


def test_lab_copies_and_follows_upstream(tools, course):
    lab, (upstream, mine) = tools("lab"), course
    assert lab.copy_notebooks(upstream, mine) == []
    small_notebook(upstream / "00_a.ipynb", "two")
    small_notebook(upstream / "01_b.ipynb", "b")
    said = lab.copy_notebooks(upstream, mine)
    assert said == ["00_a.ipynb is replaced by its new version; you had not changed it"]
    assert sources(mine / "00_a.ipynb") == ["two"]
    assert names(mine) == ["00_a.ipynb", "01_b.ipynb"]


def test_lab_does_not_take_a_run_for_a_change(tools, course):
    """JupyterLab writes outputs, counts, the kernel and its own metadata into what is opened."""
    lab, (upstream, mine) = tools("lab"), course
    lab.copy_notebooks(upstream, mine)
    opened = nbformat.read(mine / "00_a.ipynb", 4)
    opened.metadata["kernelspec"]["display_name"] = "Python 3 (gpt2lib)"
    opened.metadata["language_info"] = {"name": "python", "version": "3.13"}
    opened.cells[1].outputs = [v4.new_output("stream", text="my output")]
    opened.cells[1].metadata["execution"] = {"iopub.status.busy": "now"}
    nbformat.write(opened, mine / "00_a.ipynb")
    before = (mine / "00_a.ipynb").read_bytes()
    small_notebook(upstream / "00_a.ipynb", "one")  # rendered again, with other outputs
    assert lab.copy_notebooks(upstream, mine) == []
    assert (mine / "00_a.ipynb").read_bytes() == before, "the same cells: the outputs stay"
    small_notebook(upstream / "00_a.ipynb", "two")
    lab.copy_notebooks(upstream, mine)
    assert sources(mine / "00_a.ipynb") == ["two"]
    assert names(mine) == ["00_a.ipynb"]


def test_lab_never_overwrites_what_the_learner_changed(tools, course):
    lab, (upstream, mine) = tools("lab"), course
    lab.copy_notebooks(upstream, mine)
    small_notebook(mine / "00_a.ipynb", "my answer")
    assert lab.copy_notebooks(upstream, mine) == [], "upstream did not change"
    small_notebook(upstream / "00_a.ipynb", "two")
    said = lab.copy_notebooks(upstream, mine)
    assert said == ["00_a.ipynb has a new version; yours is kept, see 00_a.new.ipynb"]
    assert sources(mine / "00_a.ipynb") == ["my answer"]
    assert sources(mine / "00_a.new.ipynb") == ["two"]
    assert "the answer" not in (mine / "00_a.new.ipynb").read_text(encoding="utf-8")
    assert lab.copy_notebooks(upstream, mine) == [], "said once"
    small_notebook(mine / "00_a.new.ipynb", "worked in the new one")
    small_notebook(upstream / "00_a.ipynb", "three")
    assert "00_a.new-2.ipynb" in lab.copy_notebooks(upstream, mine)[0]
    assert sources(mine / "00_a.new.ipynb") == ["worked in the new one"]
    assert sources(mine / "00_a.new-2.ipynb") == ["three"]


def test_lab_without_its_record_takes_every_difference_for_the_learners(tools, course):
    lab, (upstream, mine) = tools("lab"), course
    lab.copy_notebooks(upstream, mine)
    (mine / ".copied.json").write_text("{damaged")
    small_notebook(mine / "00_a.ipynb", "my answer")
    lab.copy_notebooks(upstream, mine)
    assert sources(mine / "00_a.ipynb") == ["my answer"]


def test_lab_keeps_a_notebook_that_is_damaged(tools, course):
    lab, (upstream, mine) = tools("lab"), course
    lab.copy_notebooks(upstream, mine)
    (mine / "00_a.ipynb").write_text('{"cells": [half')
    small_notebook(upstream / "00_a.ipynb", "two")
    assert "see 00_a.new.ipynb" in lab.copy_notebooks(upstream, mine)[0]
    assert (mine / "00_a.ipynb").read_text() == '{"cells": [half'


def test_lab_dry_run_says_the_command(tools, course, monkeypatch, capsys):
    lab, (upstream, mine) = tools("lab"), course
    monkeypatch.setattr(lab, "NOTEBOOKS", upstream)
    monkeypatch.setattr(lab, "MINE", mine)
    monkeypatch.setattr(lab.os, "geteuid", lambda: 1000, raising=False)
    calls = []
    monkeypatch.setattr(lab.subprocess, "run", lambda command, **_: calls.append(command))
    assert lab.main(["--dry-run", "--no-browser", "--port", "9999"]) == 0
    command = capsys.readouterr().out
    assert "-m jupyterlab" in command
    assert "default_url=/lab/tree/my-notebooks/00_a.ipynb --no-browser --port 9999" in command
    assert "--allow-root" not in command
    assert calls[0][:2] == [sys.executable, "-m"]
    assert "--sys-prefix" in calls[0]
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0, raising=False)
    lab.main(["--dry-run"])
    assert capsys.readouterr().out.rstrip().endswith("--allow-root")


class Started(Exception):
    """Raised in place of JupyterLab."""


def test_lab_starts_jupyterlab_without_its_question_about_news(
    tools, course, monkeypatch, tmp_path
):
    lab, (upstream, mine) = tools("lab"), course
    started = {}

    def start(command, *_, env):
        started.update(env)
        raise Started

    with monkeypatch.context() as patched:
        patched.setattr(lab, "NOTEBOOKS", upstream)
        patched.setattr(lab, "MINE", mine)
        patched.setattr(lab.subprocess, "run", lambda *_, **__: None)
        patched.setattr(lab.subprocess, "call", start)
        patched.setattr(lab.os, "execve", lambda program, command, env: start(command, env=env))
        patched.setenv("JUPYTER_CONFIG_PATH", str(tmp_path / "mine"))
        with pytest.raises(Started):
            lab.main([])
    assert str(tmp_path / "mine") in started["JUPYTER_CONFIG_PATH"], "the reader's own stay"
    code = (
        "from jupyterlab_server.config import get_static_page_config as read;"
        "print(read(level='all')['disabledExtensions'])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=started, capture_output=True, text=True, check=True)
    assert "'@jupyterlab/apputils-extension:announcements': True" in done.stdout


@pytest.fixture
def make(tmp_path):
    """`make TARGET ...` that says what it would do."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")

    def run(*words):
        command = ["make", "--no-print-directory", "-f", str(TOOLS.parent / "Makefile"), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    return run


def test_make_alone_lists_the_targets(make):
    assert make() == make("help")
    lines = make().splitlines()
    targets = {line.split()[1] for line in lines if line.startswith("make ")}
    text = (TOOLS.parent / "Makefile").read_text(encoding="utf-8")
    phony = next(line for line in text.splitlines() if line.startswith(".PHONY: help")).split()[1:]
    assert targets == set(phony), "a target without a comment, or the other way round"


def test_make_hands_arguments_to_lab(make):
    said = make("-n", "lab", "ARGS=--no-browser --port 9999")
    assert "tools/lab.py --no-browser --port 9999" in said


def test_make_clean_spares_answers_and_runs(make, tmp_path):
    for name in ("runs", "data", "my-notebooks", ".venv", ".venv-bench", "gpt2lib.egg-info"):
        (tmp_path / name).mkdir()
    make("clean")
    left = {p.name for p in tmp_path.iterdir() if p.is_dir()}
    assert left == {"runs", "data", "my-notebooks"}


def test_make_setup_says_what_and_how_long(make):
    said = make("-n", "setup")
    assert "two minutes" in said
    assert "GB" in said
    assert " -q " not in said, "pip shows its progress"


def test_tidy_joins_pieces_of_a_stream_and_drops_widgets(tools):
    """How a stream is cut into outputs is chance; a carriage return overwrites its line."""
    cell = v4.new_code_cell("x")
    pieces = [("stdout", "a 0x7f00deadbeef"), ("stdout", "\n10%\r20%\n"), ("stderr", "/tmp/r/x")]
    cell.outputs = [v4.new_output("stream", name=name, text=text) for name, text in pieces]
    cell.outputs.insert(1, v4.new_output("display_data", data={tools("render").WIDGET: {}}))
    tools("render").tidy(v4.new_notebook(cells=[cell]), {"/tmp/r/": "../"})
    found = [(o.name, o.text) for o in cell.outputs]
    assert found == [("stdout", "a 0x…\n20%\n"), ("stderr", "../x")]
