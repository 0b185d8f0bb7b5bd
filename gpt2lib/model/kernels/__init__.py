"""The same numbers, faster. Read last: each stands behind one call."""
