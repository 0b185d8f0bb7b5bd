"""The model that comes with the course, for where there is no network."""

from __future__ import annotations

import logging
from pathlib import Path

from gpt2lib.hub import resolve
from gpt2lib.utils.errors import UserError

logger = logging.getLogger(__name__)

MODELS = Path(__file__).parent / "models"
PLAYS = MODELS / "plays"
"""A GPT-2 of half a million parameters, trained on the plays by
`python benchmarks/studies/course_model.py`."""


def model_folder(wanted: str = "gpt2") -> Path:
    """Return the folder of the model wanted, or that of the small one if it cannot be had.

    Args:
        wanted: what `load_pretrained` takes; "gpt2" is downloaded once, 0.5 GB.
    """
    try:
        return resolve(wanted)
    except UserError as error:
        logger.warning("the course goes on with its own small model: %s", error)
        return PLAYS
