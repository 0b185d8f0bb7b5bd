"""Everything a run needs to go on exactly where it was, as one checkpoint folder."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from gpt2lib.config import MethodConfig, OptimConfig
from gpt2lib.config.schema import flat
from gpt2lib.data.loader import MicroBatch
from gpt2lib.hub.adapters import (
    BASE,
    adapter_config,
    adapter_tensors,
    fingerprint,
    own_names,
)
from gpt2lib.model.gpt import GPT
from gpt2lib.model.lora import lora_layers
from gpt2lib.model.weights import load_optimizer, load_weights, model_tensors, optimizer_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.runs.checkpoint import ADAPTER, ADAPTER_CONFIG, MODEL, STATE
from gpt2lib.training.guard import Guard
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder, writing
from gpt2lib.utils.formats import read_json, write_json
from gpt2lib.utils.process import gather, release

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
        guard: updates skipped, and losses that stood out.
        val_loss: held-out loss at this very step, if it was evaluated.
        val_tokens: on how many tokens.
    """

    step: int = 0
    spent: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("update", "evaluate", "save"), 0.0)
    )
    guard: Guard = field(default_factory=Guard)
    val_loss: float | None = None
    val_tokens: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values as a checkpoint's `state.json` holds them; its word is "health"."""
        values = asdict(self)
        return {("health" if name == "guard" else name): v for name, v in values.items()}

    @classmethod
    def from_dict(cls, about: dict[str, Any]) -> Progress:
        """Return what `to_dict` gave, from among other entries of `state.json`."""
        val = about["val_loss"], about["val_tokens"]
        return cls(about["step"], about["spent"], Guard(**about["health"]), *val)


@dataclass
class TrainingState:
    """Weights, optimiser, random numbers and position of a run: saved and put back.

    What is not here needs no saving: the order of the data and the learning rate are functions
    of the step.
    """

    model: GPT
    optimizer: torch.optim.Optimizer
    data: Prepared
    accelerator: Accelerator
    config: TrainConfig

    @functools.cached_property
    def base(self) -> dict[str, str] | None:
        """The model that LoRA's matrices are trained beside: what names it, and a hash of it."""
        layers, weights = list(lora_layers(self.model)), model_tensors(self.model)
        if not layers:
            return None
        source = str(self.config.init_from)
        return {"source": source, "fingerprint": fingerprint(weights, layers)}

    @property
    def weights_file(self) -> str:
        """The file of a checkpoint that holds what was learned."""
        return MODEL if self.base is None else ADAPTER

    def save(self, run: Path, progress: Progress) -> None:
        """Write a checkpoint, then delete the oldest ones. Every process must call it.

        Raises:
            UserError: in every process, if the disk refuses; earlier checkpoints are untouched.
        """
        from accelerate.utils import broadcast_object_list, gather_object

        random_states = dict(gather_object(list(self._random_states().items())))
        is_main = self.accelerator.is_main_process
        release(self.model)
        lora = self.base is not None
        weights = gather((adapter_tensors if lora else model_tensors)(self.model), is_main)
        moments = gather(optimizer_tensors(self.model, self.optimizer), is_main)
        failure = None
        if is_main:
            tensors = {self.weights_file: weights, OPTIMIZER: moments, RANDOM: random_states}
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
            UserError: for weights that are not finite, which must not take a good one's place.
        """
        weights = tensors[self.weights_file]
        bad = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if bad:
            raise UserError(
                f"the weights are not finite at step {progress.step} ({len(bad)} tensors, the "
                f"first is {bad[0]}), so no checkpoint is written and the earlier ones stay; "
                "start again from one with --init_from and a lower optim.lr or optim.weight_decay"
            )
        with atomic_folder(run / "checkpoints" / f"step-{progress.step:08d}") as folder:
            for name, named in tensors.items():
                checkpoint.write_tensors(folder / name, named)
            self._write_model_config(folder)
            self.data.tokenizer.save(folder / "tokenizer")
            about = {**progress.to_dict(), **self._fingerprints(), "made_by": self._made_by()}
            about["settings"] = self._settings()
            if self.accelerator.scaler is not None:
                about["scaler"] = self.accelerator.scaler.state_dict()
            write_json(folder / STATE, about)
        try:
            checkpoint.prune(run, self.config.keep, self.config.keep_best)
        except OSError as error:
            raise UserError(
                f"cannot delete old checkpoints in {run}: {error.strerror or error}"
            ) from error

    def _write_model_config(self, folder: Path) -> None:
        """Write the shape of the model, and what LoRA's matrices were trained beside."""
        base, config = self.base, self.config
        more: dict[str, Any] = {} if base is None else {BASE: base}
        checkpoint.write_model_config(folder, self.model.config, **more)
        if base is not None:
            write_json(folder / ADAPTER_CONFIG, adapter_config(config.method, base["source"]))

    def give_up(
        self, run: Path, step: int, why: str, micro_batches: Sequence[MicroBatch], guard: Guard
    ) -> NoReturn:
        """Stop a run that skips one update after the other; what the last one read is kept.

        Raises:
            UserError: that says it, or that the disk refuses.
        """
        name = f"step-{step:08d}-{self.accelerator.process_index}.safetensors"
        path = run / "non_finite" / name
        whole = {
            name: torch.cat([getattr(part, name) for part in micro_batches])  # (share, T)
            for name in ("idx", "targets")
        }
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            checkpoint.write_tensors(path, whole)
        raise guard.too_many(step, why, path, self.config)

    def load(self, folder: Path) -> Progress:
        """Put everything back; return how far the run is.

        Raises:
            UserError: if text or tokenizer are not those of the checkpoint, or a file is damaged.
        """
        about = read_json(folder / STATE)
        self._refuse_another_run(folder, about)
        weights = checkpoint.read_tensors(folder / self.weights_file)
        if self.base is not None:  # the frozen weights are those of the base, and there already
            weights = {**model_tensors(self.model), **own_names(weights)}
        load_weights(self.model, weights, folder)
        load_optimizer(self.model, self.optimizer, checkpoint.read_tensors(folder / OPTIMIZER))
        if self.accelerator.scaler is not None and "scaler" in about:
            self.accelerator.scaler.load_state_dict(about["scaler"])
        random_states = checkpoint.read_tensors(folder / RANDOM)
        for name in self._random_states().keys() & random_states.keys():
            _RANDOM[name.partition(".")[0]].set_rng_state(random_states[name])
        if self.accelerator.is_main_process:
            self._say_what_differs(folder, about["made_by"])
        return Progress.from_dict(about)

    def _refuse_another_run(self, folder: Path, about: dict[str, Any]) -> None:
        """Refuse a checkpoint of another text, another model, or other settings."""
        if self.data.info.get("text") == about["source"] != self.data.train.header.source:
            raise UserError(
                f"{folder} was trained when data.val_fraction was a share of the documents, and it "
                "is one of the bytes now; what was prepared then is not in the cache any more, so "
                f"other text is held out: --init_from {folder} starts a new run from its weights"
            )
        for what, now in self._fingerprints().items():
            if about[what] != now:
                raise UserError(
                    f"the {what} is not the one of {folder}: its fingerprint is {now[:12]}, the "
                    f"checkpoint's {about[what][:12]}; use the same text and tokenizer"
                )
        theirs = checkpoint.read_model_config(folder)
        if changed := _changes(theirs.to_dict(), self.model.config.to_dict(), "model."):
            raise UserError(f"a resumed run keeps its model, but {folder} has another: {changed}")
        then = about.get("settings", {})
        if then:  # fields that are younger than the checkpoint had today's default
            then = flat({"optim": OptimConfig().to_dict()}) | then
        if changed := _changes(then, self._settings()):
            raise UserError(
                f"a resumed run keeps its settings, but {folder} has others: {changed}; "
                f"--init_from {folder} starts a new run from its weights"
            )

    def _say_what_differs(self, folder: Path, then: dict[str, Any]) -> None:
        """Log whether the numbers go on bitwise from here."""
        now = self._made_by()
        changed = _changes({name: then.get(name) for name in now}, now)
        if not changed:
            logger.info("resumed from %s", folder)
            return
        dropped = " and dropout draws other numbers" if self.model.config.dropout else ""
        logger.warning(
            "resumed from %s with %s: the order of the data and the batch of %d sequences stay, "
            "but sums are rounded otherwise%s: equal within float tolerance, not bitwise",
            *(folder, changed, self.config.batch_size, dropped),
        )

    def _made_by(self) -> dict[str, Any]:
        """Return what decides in which order numbers are added up, and so their last bits."""
        processes = self.accelerator.num_processes
        return {
            "processes": processes,
            "micro_batch": self.config.micro_batch or self.config.batch_size // processes,
            "device": self.accelerator.device.type,
            "compile": self.config.compile,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }

    def _settings(self) -> dict[str, Any]:
        """Return what decides the numbers of a run, for a checkpoint that has left its run."""
        values = flat(self.config.to_dict())
        kept = ("steps", "batch_size", "seed", "data.mask_documents")
        groups = ("optim.",) if self.config.method == MethodConfig() else ("optim.", "method.")
        return {n: v for n, v in values.items() if n in kept or n.startswith(groups)}

    def _fingerprints(self) -> dict[str, str]:
        header = self.data.train.header
        found = {"tokenizer": self.data.tokenizer.fingerprint, "source": header.source}
        return found if self.base is None else {**found, "base": self.base["fingerprint"]}

    def _random_states(self) -> dict[str, Tensor]:
        """Return this process's random states, named by its rank."""
        rank = self.accelerator.process_index
        used = {"cpu", self.accelerator.device.type}
        return {f"{kind}.{rank}": _RANDOM[kind].get_rng_state() for kind in sorted(used)}


def _changes(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    """Name what is not as it was, with both values."""
    changed = [(name, then[name], now.get(name)) for name in then if then[name] != now.get(name)]
    return ", ".join(f"{prefix}{name} {before} → {after}" for name, before, after in changed)
