"""From a configuration to a trained model: set-up, loop, optimiser, state, evaluation."""
