"""Solutions of notebook 00."""

import math


def my_bits_per_byte(nats, n_bytes):
    """Return bits per byte, a float.

    nats: a float, the loss summed over all tokens of a text. n_bytes: an int, the text's length.
    """
    return nats / math.log(2) / n_bytes
