"""The two trainers, as their users get them: the library's, and transformers' `Trainer`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from channel import Channel
from torch import Tensor

Data = list[tuple[Tensor, Tensor]]


def ours(spec: dict[str, Any], data: Data, folder: Path, channel: Channel) -> None:
    """Serve with the `Trainer` that `gpt2lib train` runs; only what it reads is replaced.

    It chooses its precision, writes its metrics and looks for NaN and infinity, as it always does.
    """
    from gpt2lib.config import DataConfig, GPTConfig, TrainConfig
    from gpt2lib.runs.folder import open_run
    from gpt2lib.training.loop import Trainer

    V = spec["shape"]["vocab_size"]
    text = "".join(chr(0x20000 + i) for i in range(V))  # V different characters
    source = folder / "text.txt"
    copies = 2 + 20 * spec["shape"]["block_size"] // V
    source.write_text(text * copies, encoding="utf-8")
    config = TrainConfig(
        model=GPTConfig(**spec["shape"]),
        data=DataConfig(source=str(source), tokenizer="char", cache=str(folder / "cache")),
        steps=10**6,
        batch_size=spec["batch"],
        device=spec["device"],
        precision=spec.get("precision", "auto"),
        compile=spec["compile"],
        gradient_checkpointing=bool(spec.get("checkpointing")),
        sample_tokens=0,
    )
    with open_run(folder / "run", config) as run:
        run.begin(config)
        trainer = Trainer(config, run)
        trainer.loader = Given(spec["batch"], data)  # type: ignore[assignment]
        losses, write = [0.0], trainer.log.update

        def write_and_keep(*numbers: Any, loss: float, **more: float) -> None:
            losses[0] = loss
            write(*numbers, loss=loss, **more)

        def update() -> float:
            trainer.update()
            return losses[0]

        trainer.log.update = write_and_keep  # type: ignore[method-assign]
        parameters, bf16 = trainer.raw_model.num_parameters(), trainer.config.precision == "bf16"
        channel.say(ready=True, parameters=parameters, bf16=bf16, device=spec["device"])
        channel.serve(update)


class Given:
    """Reads the benchmark's batches instead of the text's."""

    def __init__(self, size: int, data: Data) -> None:
        self.size, self.data = size, data

    def micro_batches(self, step: int) -> list[Any]:
        from gpt2lib.data.loader import MicroBatch

        return [MicroBatch(*self.data[step % len(self.data)], None)]


def transformers_trainer(spec: dict[str, Any], data: Data, folder: Path, channel: Channel) -> None:
    """Let `Trainer.train` make the updates; between two of them the channel is asked for more.

    A sample is the time from the end of one update to the end of the next, so it holds the
    loader, the callbacks and whatever else `Trainer` does.
    """
    from models import gpt2_of_transformers
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Asked(TrainerCallback):
        def __init__(self) -> None:
            self.samples: list[tuple[float, float | None]] = []

        def wait(self, control: Any) -> None:
            self.wanted = channel.wait()
            control.should_training_stop = not self.wanted
            self.started = channel.now()

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.wait(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            now = channel.now()
            self.samples.append((now - self.started, None))
            self.started = now
            if len(self.samples) == self.wanted:
                channel.answer(self.samples)
                self.samples = []
                self.wait(control)

    rows = [{"input_ids": row, "labels": row} for idx, _ in data for row in idx.cpu()]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=spec["batch"],
        max_steps=10**6,
        bf16=spec["bf16"],
        torch_compile=spec["compile"],
        use_cpu=spec["device"] == "cpu",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    model = gpt2_of_transformers(spec)
    channel.say(ready=True, parameters=model.num_parameters(), bf16=spec["bf16"])
    Trainer(model, arguments, train_dataset=rows, callbacks=[Asked()]).train()


def batches(spec: dict[str, Any], count: int = 8) -> Data:
    """Return the same random tokens in every worker: pairs of idx and targets, both (B, T)."""
    import torch

    random = torch.Generator().manual_seed(0)
    T, V = spec["shape"]["block_size"], spec["shape"]["vocab_size"]
    rows = (
        torch.randint(V, (spec["batch"], T + 1), generator=random).to(spec["device"])
        for _ in itertools.repeat(None, count)
    )
    return [(row[:, :-1].contiguous(), row[:, 1:].contiguous()) for row in rows]
