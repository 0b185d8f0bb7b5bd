"""Every known misconception is told by its own diagnosis, and right answers are accepted."""

import ast
import inspect
import re
from pathlib import Path

import nbformat
import pytest
from wrong_answers import load_all

from gpt2lib.course.checking import judge
from gpt2lib.course.registry import all_exercises, answer, find

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ANSWERS = load_all()
EXERCISES = list(all_exercises().values())
VARIANTS = [(e, m) for e in EXERCISES for m in e.misconceptions if m.wrong]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.exercise}-{a.function.__name__}")
def test_learner_answers(answer):
    result = judge(find(answer.exercise), answer.function)
    assert (result.status, result.misconception) == (answer.status, answer.misconception), result
    assert answer.says in result.diagnosis
    if answer.status == "wrong":
        assert len(result.diagnosis.split()) >= 5


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_the_reference_is_right(exercise):
    result = judge(exercise, exercise.function())
    assert result.status == "right", result


@pytest.mark.parametrize(("exercise", "known"), VARIANTS, ids=lambda x: getattr(x, "id", None))
def test_variants_of_the_definition_are_told_apart(exercise, known):
    result = judge(exercise, known.wrong)
    assert (result.status, result.misconception) == ("wrong", known.name), result


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_exercises_are_complete(exercise):
    here = [a for a in ANSWERS if a.exercise == exercise.id]
    covered = {a.misconception for a in here if a.misconception}
    names = {m.name for m in exercise.misconceptions}
    assert names <= covered, f"no learner-like answer for {sorted(names - covered)}"
    assert len(covered) >= 3, "at least three classic wrong answers"
    assert exercise.hints
    assert exercise.signature.startswith("my_")
    name = exercise.signature.partition("(")[0]
    assert exercise.notebook.isdigit() and len(exercise.notebook) == 2 and name.isidentifier()


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_the_solution_is_right_and_has_the_signature(exercise):
    solution = answer(exercise)
    result = judge(exercise, solution)
    assert (result.status, result.diagnosis) == ("right", "")
    assert list(inspect.signature(solution).parameters) == exercise.parameters


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_the_stub_is_the_solution_without_its_body(exercise):
    [path] = NOTEBOOKS.glob(f"{exercise.notebook}_*.ipynb")
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    [stub] = [source for source in cells if f"def {exercise.signature}:" in source]
    [function] = ast.parse(stub).body
    solution = answer(exercise)
    assert ast.get_docstring(function) == inspect.getdoc(solution)
    assert isinstance(function.body[-1].value, ast.Constant), "the stub is not filled in"
    said = ast.get_docstring(function)
    assert said.startswith(("Return", "Give", "Make", "Put", "Run")), "what it returns comes first"
    for name in exercise.parameters:
        assert re.search(rf"\b{name}\b", said) or "All four arguments" in said, name
