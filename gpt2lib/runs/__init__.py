"""A run's folder: names and states, checkpoints, log, trackers, plots, and how it goes on."""
