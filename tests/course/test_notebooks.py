"""What every notebook of the course has, read from its cells: nothing is run."""

import ast
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
WITHOUT = {"09", "13", "16"}
"""Notebooks without guesses: what surprises in them takes minutes to compute."""
GUESSED = [path for path in NOTEBOOKS if path.name[:2] not in WITHOUT]
each = pytest.mark.parametrize("path", GUESSED, ids=lambda path: path.stem)


def cells_of(path):
    return nbformat.read(path, as_version=4).cells


def calls(source, name):
    """Return the calls of a function in a cell."""
    if name not in source:
        return []
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call for call in found if getattr(call.func, "id", "") == name]


def guesses_of(path):
    """Return the place of the cell of each guess, by its id."""
    made = {}
    for place, cell in enumerate(cells_of(path)):
        for call in calls(cell.source, "predict") if cell.cell_type == "code" else []:
            [id, value] = call.args
            assert isinstance(value, ast.Constant) and value.value is ..., "untouched"
            assert len(ast.parse(cell.source).body) == 1, "a guess is a cell of its own"
            assert id.value not in made
            made[id.value] = place
    return made


@each
def test_guesses_are_made_before_their_results(path):
    cells, made, shown = cells_of(path), guesses_of(path), {}
    for place, cell in enumerate(cells):
        for call in calls(cell.source, "reveal") if cell.cell_type == "code" else []:
            [id, value] = call.args[:2]
            assert any(isinstance(node, ast.Name) for node in ast.walk(value)) or id.value == (
                "tokens-turtle-bytes"
            ), "a result is computed, never written down"
            assert id.value not in shown
            shown[id.value] = place
    assert 4 <= len(made) <= 7, "about five a notebook"
    assert made.keys() == shown.keys()
    for id, place in made.items():
        assert shown[id] > place, id
        question = cells[place - 1]
        assert question.cell_type == "markdown" and "**Predict.**" in question.source, id
        assert question.source.rstrip().endswith(("?", ".", ")")), id


@each
def test_the_code_of_a_figure_is_folded(path):
    for cell in cells_of(path):
        if cell.cell_type == "code" and cell.source.startswith("fig"):
            folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            assert folded == ("plots.show(" in cell.source)


def test_no_two_guesses_share_an_id():
    every = [id for path in NOTEBOOKS for id in guesses_of(path)]
    assert len(every) == len(set(every)) >= 60
