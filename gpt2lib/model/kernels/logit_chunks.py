"""How many logits exist at a time: the loss makes them in chunks, and the estimate counts those.

Shapes: N places, V vocabulary.
"""

CHUNK = 2**25
"""Most logits that exist at once: 667 rows of GPT-2's vocabulary.

Fewer cost time, because the gradient of the head is added up once a chunk."""
IN_CACHE = 2**20
"""Logits that are turned into probabilities at a time on a CPU, so that they stay in its cache."""


def rows_of_chunk(n_rows: int, vocab_size: int) -> int:
    """Return how many of N rows of V logits are made at a time; chunks are about equal."""
    n_chunks = max(1, -(-n_rows * vocab_size // CHUNK))
    return max(1, -(-n_rows // n_chunks))


def rows_in_cache(n_rows: int, vocab_size: int, device: str) -> int:
    """Return how many of a chunk's rows become probabilities at a time; on a GPU, all of them."""
    return max(1, IN_CACHE // vocab_size) if device == "cpu" else n_rows
