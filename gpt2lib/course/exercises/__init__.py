"""The exercises, one module a notebook; each defines `EXERCISES`, a list."""
