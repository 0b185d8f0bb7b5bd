"""Everything a run needs to go on exactly where it was, as one checkpoint folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig, OptimConfig
from gpt2lib.config.schema import flat
from gpt2lib.data.loader import MicroBatch, micro_batch_size
from gpt2lib.model.gpt import GPT
from gpt2lib.model.weights import load_optimizer, load_weights, model_tensors, optimizer_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.runs.checkpoint import STATE
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder, read_json, write_json
from gpt2lib.utils.sharded import gather, is_sharded, release

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gpt2lib.config import TrainConfig
    from gpt2lib.data import Prepared

logger = logging.getLogger(__name__)

_RANDOM: dict[str, Any] = {"cpu": torch, "cuda": torch.cuda, "mps": torch.mps}
"""Where the random state of a kind of device is read and set."""

OPTIMIZER, RANDOM = "optimizer.safetensors", "random.safetensors"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: updates so far, those skipped among them.
        spent: seconds in updates, in evaluations and in saving.
        health: what `Health.to_dict` returned.
        val_loss: held-out loss at this very step, if it was evaluated.
        val_tokens: on how many tokens.
    """

    step: int = 0
    spent: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("update", "evaluate", "save"), 0.0)
    )
    health: dict[str, Any] = field(default_factory=dict)
    val_loss: float | None = None
    val_tokens: int | None = None


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

    def save(self, run: Path, progress: Progress) -> None:
        """Write a checkpoint, then delete the oldest ones. Every process must call it.

        Raises:
            UserError: in every process, if the disk refuses; earlier checkpoints are untouched.
        """
        from accelerate.utils import broadcast_object_list, gather_object

        random_states = dict(gather_object(list(self._random_states().items())))
        is_main = self.accelerator.is_main_process
        release(self.model)
        weights = gather(model_tensors(self.model), is_main)
        moments = gather(optimizer_tensors(self.model, self.optimizer), is_main)
        failure = None
        if is_main:
            tensors = {checkpoint.MODEL: weights, OPTIMIZER: moments, RANDOM: random_states}
            try:
                self._write(run, progress, tensors)
            except UserError as error:
                failure = error
        # The others wait here for the outcome: without it they would go on, and hang.
        (message,) = broadcast_object_list([None if failure is None else str(failure)])
        if message is not None:
            raise failure or UserError(message)

    def _write(self, run: Path, progress: Progress, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Write the checkpoint in this process alone, then delete the oldest ones.

        Raises:
            UserError: for weights that are no numbers, which must not take a good one's place.
        """
        sick = [name for name, t in tensors[checkpoint.MODEL].items() if not t.isfinite().all()]
        if sick:
            raise UserError(
                f"the weights are not finite at step {progress.step} ({len(sick)} tensors, the "
                f"first is {sick[0]}), so no checkpoint is written and the earlier ones stay; "
                "start again from one with --init_from and a lower optim.lr or optim.weight_decay"
            )
        try:
            with atomic_folder(run / "checkpoints" / f"step-{progress.step:08d}") as folder:
                for name, named in tensors.items():
                    checkpoint.write_tensors(folder / name, named)
                checkpoint.write_model_config(folder, self.model.config)
                self.data.tokenizer.save(folder / "tokenizer")
                about = {**asdict(progress), **self._fingerprints(), "made_by": self._made_by()}
                about["settings"] = self._settings()
                if self.accelerator.scaler is not None:
                    about["scaler"] = self.accelerator.scaler.state_dict()
                write_json(folder / STATE, about)
            checkpoint.prune(run, self.config.keep, self.config.keep_best)
        except OSError as error:
            raise UserError(
                f"cannot delete old checkpoints in {run}: {error.strerror or error}"
            ) from error

    def whole_model(self) -> GPT | None:
        """Return the model for the main process to draw from, and None to the others.

        Every process must call it: weights that are spread over processes are gathered.
        """
        is_main = self.accelerator.is_main_process
        release(self.model)
        if not any(map(is_sharded, self.model.parameters())):
            return self.model if is_main else None
        weights = gather(model_tensors(self.model), is_main)
        if not is_main:
            return None
        with torch.random.fork_rng(devices=[]):  # a new model draws weights, and they are replaced
            copy = GPT(self.model.config)
        load_weights(copy, weights, "the model that trains")
        return copy.to(self.accelerator.device)

    def save_batch(self, run: Path, step: int, micro_batches: Sequence[MicroBatch]) -> Path:
        """Write what this process read for an update, to be looked at; return the file.

        Raises:
            UserError: if the disk refuses.
        """
        path = run / "sick" / f"step-{step:08d}-{self.accelerator.process_index}.safetensors"
        whole = {
            name: torch.cat([getattr(part, name) for part in micro_batches])  # (share, T)
            for name in ("idx", "targets")
        }
        try:
            path.parent.mkdir(exist_ok=True)
            checkpoint.write_tensors(path, whole)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        return path

    def load(self, folder: Path) -> Progress:
        """Put everything back; return how far the run is.

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
        changed = [
            f"model.{name} {theirs[name]} → {shape[name]}"
            for name in shape
            if shape[name] != theirs[name]
        ]
        if changed:
            raise UserError(
                f"a resumed run keeps its model, but {folder} has another: {', '.join(changed)}"
            )
        settings, then = self._settings(), about.get("settings", {})
        if then:  # fields that are younger than the checkpoint had today's default
            then = flat({"optim": OptimConfig().to_dict()}) | then
        changed = [
            f"{name} {value} → {settings.get(name)}"
            for name, value in then.items()
            if value != settings.get(name)
        ]
        if changed:
            raise UserError(
                f"a resumed run keeps its settings, but {folder} has others: {', '.join(changed)}; "
                f"--init_from {folder} starts a new run from its weights"
            )
        weights = checkpoint.read_tensors(folder / checkpoint.MODEL)
        load_weights(self.model, weights, folder)
        moments = checkpoint.read_tensors(folder / OPTIMIZER)
        load_optimizer(self.model, self.optimizer, moments)
        if self.accelerator.scaler is not None and "scaler" in about:
            self.accelerator.scaler.load_state_dict(about["scaler"])
        random_states = checkpoint.read_tensors(folder / RANDOM)
        for name in self._random_states().keys() & random_states.keys():
            _RANDOM[name.partition(".")[0]].set_rng_state(random_states[name])
        if self.accelerator.is_main_process:
            self._say_what_differs(folder, about["made_by"])
        return Progress(**{name: about[name] for name in asdict(Progress())})

    def _say_what_differs(self, folder: Path, then: dict[str, Any]) -> None:
        """Log whether the numbers go on bitwise from here."""
        changed = [
            f"{name} {then.get(name)} → {now}"
            for name, now in self._made_by().items()
            if then.get(name) != now
        ]
        if not changed:
            logger.info("resumed from %s", folder)
            return
        dropped = " and dropout draws other numbers" if self.model.config.dropout else ""
        logger.warning(
            "resumed from %s with %s: the order of the data and the batch of %d sequences stay, "
            "but sums are rounded otherwise%s: equal within float tolerance, not bitwise",
            folder,
            ", ".join(changed),
            self.config.batch_size,
            dropped,
        )

    def _made_by(self) -> dict[str, Any]:
        """Return what decides in which order numbers are added up, and so their last bits."""
        processes = self.accelerator.num_processes
        return {
            "processes": processes,
            "micro_batch": micro_batch_size(self.config, processes),
            "device": self.accelerator.device.type,
            "compile": self.config.compile,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }

    def _settings(self) -> dict[str, Any]:
        """Return what decides the numbers of a run, for a checkpoint that has left its run."""
        values = flat(self.config.to_dict())
        kept = ("steps", "batch_size", "seed", "data.mask_documents")
        return {n: v for n, v in values.items() if n in kept or n.startswith("optim.")}

    def _fingerprints(self) -> dict[str, str]:
        header = self.data.train.header
        return {"tokenizer": self.data.tokenizer.fingerprint, "source": header.source}

    def _random_states(self) -> dict[str, Tensor]:
        """Return this process's random states, named by its rank."""
        rank = self.accelerator.process_index
        used = {"cpu", self.accelerator.device.type}
        return {f"{kind}.{rank}": _RANDOM[kind].get_rng_state() for kind in sorted(used)}
