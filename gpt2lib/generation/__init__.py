"""Text from a model: one token after the other, how it is chosen, and weights of fewer bytes."""
