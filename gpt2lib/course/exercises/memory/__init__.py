"""Exercises of notebook 09."""

from gpt2lib.course.exercises.memory import (
    backward_by_recomputing,
    flops_with_checkpointing,
    largest_micro_batch,
    loss_in_chunks,
    round_to_bf16,
    training_state_bytes,
)

EXERCISES = [
    training_state_bytes.EXERCISE,
    backward_by_recomputing.EXERCISE,
    flops_with_checkpointing.EXERCISE,
    round_to_bf16.EXERCISE,
    largest_micro_batch.EXERCISE,
    loss_in_chunks.EXERCISE,
]
