"""Where progress is kept and found, and what it leads to."""

import json
from pathlib import Path

import pytest

from gpt2lib.cli import main
from gpt2lib.course import contents, progress, progress_file, registry, scores
from gpt2lib.course.contents import HEADING, NOTEBOOKS, exercise_cells
from gpt2lib.course.exercise import Exercise
from gpt2lib.course.progress_file import FILE
from gpt2lib.utils.errors import UserError

REPO = Path(__file__).parents[2]


def kept(folder, *right, **guesses):
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "version": 1,
        "exercises": {id: {"status": "right", "attempts": 1} for id in right},
        "guesses": guesses,
    }
    (folder / FILE).write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, and a reader who stands somewhere else."""
    monkeypatch.setenv("GPT2LIB_PROGRESS", "")
    monkeypatch.setattr(progress_file, "PACKAGE", tmp_path / "project" / "gpt2lib")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    return tmp_path / "project"


@pytest.mark.parametrize("folder", ["my-notebooks", "notebooks", ""])
@pytest.mark.parametrize("here", ["", "my-notebooks", "notebooks", "../else"])
def test_the_command_finds_what_the_notebooks_keep(folder, here, project, monkeypatch, capsys):
    kept(project / folder, "entropy", "cross-entropy")
    (project / here).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / here)
    assert main(["course", "progress"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 of 76 exercises done. (read from ")
    assert "03  What is a good loss?       █████░░░░░ 2 of 4" in said


def test_the_copy_of_make_lab_comes_first(project, monkeypatch, capsys):
    kept(project / "notebooks", "entropy")
    kept(project / "my-notebooks", "entropy", "cross-entropy")
    monkeypatch.chdir(project)
    progress()
    assert "2 of 76 exercises done. (read from my-notebooks/" in capsys.readouterr().out


def test_a_file_by_option_or_variable(project, tmp_path, monkeypatch, capsys):
    kept(project / "my-notebooks", "entropy", "cross-entropy")
    kept(tmp_path / "class", "rope")
    other = str(tmp_path / "class" / FILE)
    assert main(["course", "progress", "--file", other]) == 0
    assert capsys.readouterr().out.startswith("1 of 76")
    monkeypatch.setenv("GPT2LIB_PROGRESS", other)
    assert main(["course", "progress"]) == 0
    assert capsys.readouterr().out.startswith("1 of 76")
    monkeypatch.setenv("GPT2LIB_PROGRESS", "off")
    progress()
    assert capsys.readouterr().out.startswith("0 of 76")
    with pytest.raises(UserError, match="is not there"):
        progress(tmp_path / "nothing.json")


def test_nothing_kept_is_said(project, capsys):
    progress()
    assert f"0 of 76 exercises done. (no {FILE} is here)" in capsys.readouterr().out


def test_an_old_file_without_guesses_is_read(project):
    kept(project / "my-notebooks", "entropy")
    path = project / "my-notebooks" / FILE
    content = json.loads(path.read_text())
    del content["guesses"]
    path.write_text(json.dumps(content))
    assert progress_file.load(path).exercises == {"entropy": {"status": "right", "attempts": 1}}


class Shell:
    execution_count = 1


def test_in_a_notebook_it_is_beside_it(project, monkeypatch):
    monkeypatch.setattr(progress_file, "shell", Shell)
    assert progress_file.file() == Path(FILE)
    kept(project / "my-notebooks", "entropy")
    assert progress_file.file_to_read() is None, "another copy's progress is not this one's"


def test_progress_links_to_the_next_exercise(project, monkeypatch, capsys):
    shown = {}
    monkeypatch.setattr(scores, "show", lambda text, html: shown.update(html=html))
    kept(project / "my-notebooks", "average-the-past")
    name = "04_attention.ipynb"
    (project / "my-notebooks" / name).write_bytes((REPO / "notebooks" / name).read_bytes())
    progress()
    cells = json.loads((REPO / "notebooks" / name).read_text(encoding="utf-8"))["cells"]
    target = next(c for c in cells if "### Exercise: the causal mask" in "".join(c["source"]))
    assert f'<a href="{name}#cell-id={target["id"]}">causal-mask</a>' in shown["html"]
    assert "<td>bits-per-byte</td>" in shown["html"], "no link where the notebook is not"


def test_every_exercise_has_a_heading_of_one_form():
    """`progress()` leads to the cell with it."""
    exercises = registry.all_exercises()
    for number in NOTEBOOKS:
        here = {id for id, e in exercises.items() if e.notebook == number}
        notebook = contents.notebook_file(number, REPO / "notebooks")
        if not here:
            continue
        cells = {c["id"]: c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"]}
        found = exercise_cells(notebook)
        assert set(found) == here, notebook.name
        without = [id for id, c in found.items() if not HEADING.search("".join(cells[c]["source"]))]
        assert without == [], f"{notebook.name}: no '### Exercise: ...' above the check of these"
        headings = [h for c in cells.values() if c["cell_type"] == "markdown"
                    for h in HEADING.findall("".join(c["source"]))]  # fmt: skip
        assert len(headings) == len(here), f"{notebook.name}: {headings}"


def test_a_damaged_notebook_has_no_links(tmp_path):
    for text in ("{", "[]", '{"cells": [{"cell_type": "code"}]}'):
        (tmp_path / "04_a.ipynb").write_text(text)
        assert exercise_cells(tmp_path / "04_a.ipynb") == {}


def test_parameters_are_read_from_the_signature():
    def names(signature):
        return Exercise("a", "99", "", signature, "m:f", list, ["-"]).parameters

    assert names("my_f(x, n_head)") == ["x", "n_head"]
    assert names("my_f(x: int, *, n=3, **more)") == ["x", "n", "more"]
    assert names("my_f()") == []
