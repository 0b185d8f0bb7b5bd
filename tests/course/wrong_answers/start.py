"""Answers to the exercises of notebook 00."""

import math

from wrong_answers import fails, right, wrong


@wrong("bits-per-byte", "nats-per-byte", says="2 is nats per byte")
def forgets_the_base(nats, n_bytes):
    loss = nats
    return loss / n_bytes


@wrong("bits-per-byte", "multiplied-by-ln2", says="divide")
def multiplies(nats, n_bytes):
    bits = nats * math.log(2)
    return bits / n_bytes


@wrong("bits-per-byte", "bytes-per-bit")
def upside_down(nats, n_bytes):
    bits = nats * math.log2(math.e)
    return n_bytes / bits


@wrong("bits-per-byte", "total-bits")
def never_divides(nats, n_bytes):
    return nats * math.log2(math.e)


@wrong("bits-per-byte", "log10")
def wrong_logarithm(nats, n_bytes):
    return nats / n_bytes / math.log10(2)


@wrong("bits-per-byte", None, says="expected 2.88539")
def nobody_foresaw(nats, n_bytes):
    return nats / math.log(2) / (n_bytes + 1)


@fails("bits-per-byte", says="NameError: name 'log' is not defined, in line 3 of forgets_an_import")
def forgets_an_import(nats, n_bytes):
    return nats / log(2) / n_bytes  # noqa: F821


@right("bits-per-byte")
def through_log2_e(nats, n_bytes):
    return math.log2(math.e) * nats / n_bytes
