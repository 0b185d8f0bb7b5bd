"""Every known misconception is told by its own diagnosis, and right answers are accepted."""

import pytest
from wrong_answers import load_all

from gpt2lib.course.checking import judge
from gpt2lib.course.registry import all_exercises, find

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
