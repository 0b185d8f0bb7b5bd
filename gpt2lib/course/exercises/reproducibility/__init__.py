"""Exercises of notebook 10."""

from gpt2lib.course.exercises.reproducibility import (
    atomic_write,
    damaged_file,
    newest_checkpoint,
    share_of_the_batch,
    state_to_save,
    ulps_apart,
)

EXERCISES = [
    ulps_apart.EXERCISE,
    state_to_save.EXERCISE,
    share_of_the_batch.EXERCISE,
    atomic_write.EXERCISE,
    damaged_file.EXERCISE,
    newest_checkpoint.EXERCISE,
]
