"""What every room may use: errors, files that survive a crash, memory, sharded weights."""
