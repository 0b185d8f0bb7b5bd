"""Every known misconception is told by its own diagnosis, and right answers are accepted."""

import inspect

import pytest
from wrong_answers import load_all

from gpt2lib.course.checking import judge
from gpt2lib.course.registry import all_exercises, find

ANSWERS = load_all()
EXERCISES = list(all_exercises().values())
SOLVED = [e for e in EXERCISES if e.solution is not None]
UNSOLVED = """
    bits-per-byte count-pairs merge-pair encode-word tokens-to-text inputs-and-targets feistel
    cycle-walking samples-of-a-process document-ids mixture-draw cross-entropy entropy
    bigram-probabilities table-loss average-the-past causal-mask attention-weights split-heads
    self-attention turn-a-pair rope-frequencies rope interpolated-rope ntk-base layer-norm mlp
    block count-parameters expected-initial-loss residual-init-std init-parameter
    asleep-at-first tie-weights save-tied clip-by-norm adamw-step weight-left decay-groups
    accumulated-gradient orthogonal-step newton-schulz training-state-bytes
    backward-by-recomputing flops-with-checkpointing round-to-bf16 largest-micro-batch
    loss-in-chunks ulps-apart state-to-save share-of-the-batch atomic-write damaged-file
    newest-checkpoint temperature-probabilities top-k top-p repetition-penalty cached-step
    cache-bytes int8-rows shared-heads pool-heads window-mask global-mask receptive-field
    window-blocks learning-rate accumulated-loss eval-windows
"""
"""Exercises without a solution in their own signature yet; nothing is ever added here."""
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


def test_solutions_are_given():
    assert {e.id for e in EXERCISES} - {e.id for e in SOLVED} == set(UNSOLVED.split())


@pytest.mark.parametrize("exercise", SOLVED, ids=lambda e: e.id)
def test_the_solution_is_right_and_has_the_signature(exercise):
    solution = exercise.solution
    result = judge(exercise, solution)
    assert (result.status, result.diagnosis) == ("right", "")
    assert solution.__name__ == exercise.signature.partition("(")[0]
    assert list(inspect.signature(solution).parameters) == exercise.parameters
