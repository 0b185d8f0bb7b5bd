"""Exercises of notebook 07."""

from gpt2lib.course.exercises.init_tying import (
    asleep_at_first,
    expected_initial_loss,
    init_parameter,
    residual_init_std,
    save_tied,
    tie_weights,
)

EXERCISES = [
    expected_initial_loss.EXERCISE,
    residual_init_std.EXERCISE,
    init_parameter.EXERCISE,
    asleep_at_first.EXERCISE,
    tie_weights.EXERCISE,
    save_tied.EXERCISE,
]
