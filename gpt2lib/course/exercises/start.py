"""Exercises of notebook 00."""

import math

from gpt2lib.course.exercise import Exercise, Misconception, case

EXERCISES = [
    Exercise(
        id="bits-per-byte",
        notebook="00",
        title="From a summed loss in nats to bits per byte",
        signature="my_bits_per_byte(nats, n_bytes)",
        reference="gpt2lib.training.evaluation:bits_per_byte",
        cases=lambda: [case(100.0, 50), case(832.5, 400), case(7.0, 1)],
        hints=[
            "The loss is a natural logarithm; a bit is a logarithm to base 2.",
            "One nat is 1 / ln 2, about 1.44 bits.",
            "Divide the nats by ln 2 for bits, then by the number of bytes.",
        ],
        misconceptions=[
            Misconception(
                "nats-per-byte",
                lambda seen: (
                    f"{seen.got:.4g} is nats per byte: a nat is 1 / ln 2 bits, so divide by "
                    "math.log(2) as well"
                ),
                wrong=lambda nats, n_bytes: nats / n_bytes,
            ),
            Misconception(
                "multiplied-by-ln2",
                "you multiplied by ln 2; a bit is smaller than a nat, so the same loss is more "
                "bits than nats: divide",
                wrong=lambda nats, n_bytes: nats * math.log(2) / n_bytes,
            ),
            Misconception(
                "bytes-per-bit",
                "the ratio is upside down: bits go above, bytes below",
                wrong=lambda nats, n_bytes: n_bytes / (nats / math.log(2)),
            ),
            Misconception(
                "total-bits",
                "this is all the bits of the text; divide by its number of bytes",
                wrong=lambda nats, n_bytes: nats / math.log(2),
            ),
            Misconception(
                "log10",
                "math.log10 is the logarithm to base 10; ln 2 is math.log(2)",
                wrong=lambda nats, n_bytes: nats / math.log10(2) / n_bytes,
            ),
        ],
    ),
]
