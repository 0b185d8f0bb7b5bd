"""Everything a run needs to go on exactly where it was, as one checkpoint folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lib import checkpoint
from gpt2lib.config import GPTConfig
from gpt2lib.errors import UserError
from gpt2lib.storage import atomic_folder, read_json, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gpt2lib.config import TrainConfig
    from gpt2lib.data import Prepared
    from gpt2lib.model import GPT

logger = logging.getLogger(__name__)

_RANDOM: dict[str, Any] = {"cpu": torch, "cuda": torch.cuda, "mps": torch.mps}
"""Where the random state of a kind of device is read and set."""

OPTIMIZER, RANDOM, STATE = "optimizer.safetensors", "random.safetensors", "state.json"


class TrainingState:
    """Weights, optimiser, random numbers and position of a run: saved and put back.

    What is not here needs no saving: the order of the data and the learning rate are functions
    of the step.
    """

    def __init__(
        self,
        model: GPT,
        optimizer: torch.optim.Optimizer,
        data: Prepared,
        accelerator: Accelerator,
        config: TrainConfig,
    ) -> None:
        self.model, self.optimizer, self.data = model, optimizer, data
        self.accelerator, self.config = accelerator, config

    def save(self, run: Path, step: int, seconds: float) -> None:
        """Write a checkpoint, then delete the oldest ones. Every process must call it.

        Raises:
            UserError: if the disk refuses; earlier checkpoints are untouched.
        """
        from accelerate.utils import gather_object

        random_states = dict(gather_object(list(self._random_states().items())))
        if self.accelerator.is_main_process:
            with atomic_folder(run / "checkpoints" / f"step-{step:08d}") as folder:
                weights = checkpoint.model_tensors(self.model)
                checkpoint.write_tensors(folder / checkpoint.MODEL, weights)
                moments = checkpoint.optimizer_tensors(self.model, self.optimizer)
                checkpoint.write_tensors(folder / OPTIMIZER, moments)
                checkpoint.write_tensors(folder / RANDOM, random_states)
                checkpoint.write_model_config(folder, self.model.config)
                self.data.tokenizer.save(folder / "tokenizer")
                about: dict[str, Any] = {"step": step, "seconds": seconds, **self._fingerprints()}
                if self.accelerator.scaler is not None:
                    about["scaler"] = self.accelerator.scaler.state_dict()
                write_json(folder / STATE, about)
            checkpoint.prune(run, self.config.keep)
        self.accelerator.wait_for_everyone()

    def load(self, folder: Path) -> tuple[int, float]:
        """Put everything back; return the step and the seconds spent so far.

        Raises:
            UserError: if text or tokenizer are not those of the checkpoint, or a file is damaged.
        """
        about = read_json(folder / STATE)
        for what, now in self._fingerprints().items():
            if about[what] != now:
                raise UserError(
                    f"the {what} is not the one of {folder}: its fingerprint is {now[:12]}, the "
                    f"checkpoint's {about[what][:12]}; use the same text and tokenizer"
                )
        shape = self.model.config.to_dict()
        theirs = GPTConfig.from_dict(read_json(folder / "config.json")["model"]).to_dict()
        for name in shape:
            if shape[name] != theirs[name]:
                raise UserError(
                    f"model.{name} is {shape[name]}, but {theirs[name]} in {folder}; "
                    f"a resumed run keeps its model"
                )
        weights = checkpoint.read_tensors(folder / checkpoint.MODEL)
        checkpoint.load_weights(self.model, weights, folder)
        moments = checkpoint.read_tensors(folder / OPTIMIZER)
        checkpoint.load_optimizer(self.model, self.optimizer, moments)
        if self.accelerator.scaler is not None and "scaler" in about:
            self.accelerator.scaler.load_state_dict(about["scaler"])
        random_states = checkpoint.read_tensors(folder / RANDOM)
        for name in self._random_states():
            if name not in random_states:
                logger.warning("%s was saved by fewer processes; %s starts anew", folder, name)
            else:
                _RANDOM[name.partition(".")[0]].set_rng_state(random_states[name])
        logger.info("resumed from %s", folder)
        return int(about["step"]), float(about["seconds"])

    def _fingerprints(self) -> dict[str, str]:
        header = self.data.train.header
        return {"tokenizer": self.data.tokenizer.fingerprint, "source": header.source}

    def _random_states(self) -> dict[str, Tensor]:
        """Return this process's random states, named by its rank."""
        rank = self.accelerator.process_index
        used = {"cpu", self.accelerator.device.type}
        return {f"{kind}.{rank}": _RANDOM[kind].get_rng_state() for kind in sorted(used)}
