"""Exercises of notebook 16."""

from gpt2lib.course.exercises.training import (
    accumulated_loss,
    eval_windows,
    learning_rate,
)

EXERCISES = [
    learning_rate.EXERCISE,
    accumulated_loss.EXERCISE,
    eval_windows.EXERCISE,
]
