"""Studies: many runs over a space of settings, kept in a storage that survives any kill."""
