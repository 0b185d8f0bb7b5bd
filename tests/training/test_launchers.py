"""Every documented way to launch, run with two CPU processes, and the configurations of launch/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands import accelerate_cli
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType

from gpt2lib.cli import main
from gpt2lib.config import TrainConfig
from gpt2lib.training import distributed as processes
from gpt2lib.training import setup
from gpt2lib.utils.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "launch"
STEPS = 3
SETTINGS = {
    "data.vocab_size": 280,
    "steps": STEPS,
    "eval_every": STEPS,
    "save_every": STEPS,
    "sample_tokens": 0,
    "model.dropout": 0,
    "device": "cpu",
}
ACCELERATE = [sys.executable, "-m", "accelerate.commands.accelerate_cli"]
CPU_2 = str(CONFIGURATIONS / "cpu-2.yaml")
LAUNCHERS = {
    "torchrun": [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--nproc_per_node", "2", "-m", "gpt2lib"),
    ],
    "config_file": [*ACCELERATE, "launch", "--config_file", CPU_2, "-m", "gpt2lib"],
    "multi_gpu": [
        *(*ACCELERATE, "launch", "--multi_gpu", "--num_processes", "2"),
        *("--main_process_port", "0", "-m", "gpt2lib"),
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A text, its prepared files, and the run of one process."""
    folder = tmp_path_factory.mktemp("launchers")
    text = "The quick brown fox jumps over the lazy dog, and the dog does not mind it.\n" * 40
    (folder / "text.txt").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2LIB_CACHE", str(folder / "cache"))
        patch.setenv("HF_HOME", str(folder / "hf"))  # where accelerate looks for a configuration
        patch.setenv("OMP_NUM_THREADS", "1")
        assert main(arguments(folder, "one")) == 0
        yield folder


def arguments(folder: Path, out: str, **more: Any) -> list[str]:
    """Return what follows `gpt2lib` for a run of a few seconds."""
    fields = {**SETTINGS, "data.source": folder / "text.txt", **more}
    named = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    return ["train", "smoke", "--out", str(folder / out), *named]


def launch(command: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environ}
    return subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=300)


def losses(run: Path) -> torch.Tensor:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    return torch.tensor([m[name] for m in metrics for name in ("loss", "val_loss") if name in m])


def check(folder: Path, out: str, n_processes: int = 2) -> None:
    """Two processes trained, and computed what one does."""
    result = json.loads((folder / out / "result.json").read_text(encoding="utf-8"))
    assert result["processes"] == n_processes
    got, wanted = losses(folder / out), losses(folder / "one")
    assert len(wanted) == STEPS + 2
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


# ── launched ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", LAUNCHERS)
def test_two_processes_by(name: str, folder: Path) -> None:
    environ = {"ACCELERATE_USE_CPU": "true"} if name == "multi_gpu" else {}
    done = launch([*LAUNCHERS[name], *arguments(folder, name)], **environ)
    assert done.returncode == 0, done.stderr
    check(folder, name)
    assert done.stdout.count("is complete:") == 1  # only one of them prints


NOTEBOOK = """
import json, os, sys
from pathlib import Path
from accelerate import notebook_launcher
from gpt2lib import load_config, train
from gpt2lib.utils.errors import UserError

folder, settings, port = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def refusal(config, name):
    try:
        train(config, folder / name)
    except UserError as error:
        return str(error)
    return ""

def many(config):
    rank = int(os.environ["RANK"])
    messages = [
        refusal(config.replace(batch_size=5), "odd"),
        refusal(config.replace(seed=rank), "torn"),
    ]
    (folder / f"refused-{rank}.json").write_text(json.dumps(messages))
    train(config, folder / "notebook")

notebook_launcher(many, (load_config(settings),), num_processes=2, use_port=port)
"""


def test_two_processes_by_notebook_launcher_and_what_they_refuse(folder: Path) -> None:
    """In one launch: processes that disagree, a batch that does not divide, and a run."""
    settings = folder / "settings.yaml"
    requested = yaml.safe_load((folder / "one" / "requested.yaml").read_text(encoding="utf-8"))
    settings.write_text(yaml.safe_dump(requested), encoding="utf-8")
    port = str(free_port())
    command = [sys.executable, "-c", NOTEBOOK, str(folder), str(settings), port]
    done = launch(command)
    assert done.returncode == 0, done.stderr
    check(folder, "notebook")
    both = [json.loads((folder / f"refused-{rank}.json").read_text()) for rank in (0, 1)]
    assert both[0] == both[1]  # so the one that prints knows it too
    odd, torn = both[0]
    assert odd == "batch_size 5 does not divide by 2 processes"
    assert torn.startswith("processes 0 and 1 would not train the same run (seed 0 and 1);")


@pytest.mark.slow
def test_two_machines_are_two_launches_that_meet(folder: Path) -> None:
    """launch/multi-node.yaml, with both machines here and a CPU process on each."""
    port = str(free_port())
    command = [*ACCELERATE, "launch", "--config_file", str(CONFIGURATIONS / "multi-node.yaml")]
    command += ["--num_processes", "2", "--main_process_ip", "127.0.0.1"]
    command += ["--main_process_port", port]
    rest = ["-m", "gpt2lib", *arguments(folder, "machines")]
    machines = [subprocess.Popen([*command, "--machine_rank", str(rank), *rest]) for rank in (0, 1)]
    assert [machine.wait(300) for machine in machines] == [0, 0]
    check(folder, "machines")


def free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


# ── launches that go wrong silently ─────────────────────────────────────────────────────────


@pytest.mark.slow
def test_cpu_with_many_processes_starts_one_and_is_refused(folder: Path) -> None:
    command = [*ACCELERATE, "launch", "--cpu", "--num_processes", "2", "-m", "gpt2lib"]
    done = launch([*command, *arguments(folder, "lone")])
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("gpt2lib: ")]
    assert len(said) == 1 and "--multi_gpu --num_processes N" in said[0]
    assert not (folder / "lone" / "result.json").exists()


@pytest.mark.parametrize(
    ("command", "refused"),
    [
        (["--cpu", "--num_processes", "2"], True),
        (["--config_file", "MULTI_CPU"], True),  # what `accelerate config` writes for "multi-CPU"
        (["--cpu", "--num_processes", "1"], False),
        (["--cpu"], False),
    ],
)
def test_what_accelerates_launcher_for_one_process_sets(
    command: list[str], refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is Accelerate's own, so a version that sets another is noticed here."""
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    for name in ("MASTER_PORT", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    multi_cpu = tmp_path / "multi-cpu.yaml"
    multi_cpu.write_text("distributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\n")
    words = [str(multi_cpu) if word == "MULTI_CPU" else word for word in command]
    parsed = launch_command_parser().parse_args([*words, "train.py"])
    args, _, _ = _validate_launch_command(parsed)
    assert not args.multi_gpu  # so one process is started
    _, environ = prepare_simple_launcher_cmd_env(args)
    if refused:
        with pytest.raises(UserError, match="accelerate launch started one"):
            processes.refuse_a_lone_process(environ)
    processes.refuse_a_lone_process({**environ, "WORLD_SIZE": "2"})
    if not refused:
        processes.refuse_a_lone_process(environ)


def test_an_address_alone_is_no_launch() -> None:
    processes.refuse_a_lone_process({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    processes.refuse_a_lone_process({})


def test_processes_that_disagree_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig()

    def gathered(mine: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [mine[0], mine[0], {**mine[0], "optim.lr": 0.5, "checkpoint": "None"}]

    monkeypatch.setattr(processes, "gather_object", gathered)
    with pytest.raises(UserError) as error:
        processes.check_agreement(config, checkpoint="step-00000010")
    message = str(error.value)
    assert message.startswith("processes 0 and 2 would not train the same run (")
    assert "checkpoint step-00000010 and None" in message and "optim.lr 0.0006 and 0.5" in message
    assert "source" not in message and "\n" not in message
    monkeypatch.setattr(processes, "gather_object", lambda mine: mine * 3)
    processes.check_agreement(config, checkpoint="None")


def test_accelerate_use_cpu_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert setup.wanted_device("auto") == "cpu"
    assert setup.wanted_device("cuda") == "cuda"  # what the run says goes first
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    assert setup.wanted_device("auto") == "auto"


# ── configurations ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "kind", "machines", "n_processes"),
    [
        ("cpu-2", DistributedType.MULTI_GPU, 1, 2),
        ("gpus", DistributedType.MULTI_GPU, 1, 8),
        ("multi-node", DistributedType.MULTI_GPU, 2, 16),
        ("fsdp2", DistributedType.FSDP, 1, 8),
    ],
)
def test_accelerate_reads_our_configurations(
    name: str, kind: DistributedType, machines: int, n_processes: int
) -> None:
    """By its own loader, which refuses unknown keys, and by its launcher's own checks."""
    file = str(CONFIGURATIONS / f"{name}.yaml")
    loaded = load_config_from_file(file)
    assert isinstance(loaded, ClusterConfig)
    assert loaded.distributed_type == kind
    assert (loaded.num_machines, loaded.num_processes) == (machines, n_processes)
    assert loaded.use_cpu == (name == "cpu-2")
    parsed = launch_command_parser().parse_args(["--config_file", file, "train.py"])
    args, _, _ = _validate_launch_command(parsed)
    # One of these two makes it start one process for each, whatever the machine has.
    assert args.multi_gpu == (kind == DistributedType.MULTI_GPU)
    assert args.use_fsdp == (kind == DistributedType.FSDP)
    assert (args.num_processes, args.mixed_precision) == (n_processes, "no")


def test_the_fsdp_configuration_becomes_the_plugin_that_is_supported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the file, through the environment that `accelerate launch` sets, to our own checks."""
    from unittest import mock

    from accelerate.utils import FullyShardedDataParallelPlugin, patch_environment
    from accelerate.utils.launch import prepare_multi_gpu_env

    from gpt2lib.config import GPTConfig
    from gpt2lib.model.gpt import GPT

    file = str(CONFIGURATIONS / "fsdp2.yaml")
    parsed = launch_command_parser().parse_args(["--config_file", file, "train.py"])
    args, _, _ = _validate_launch_command(parsed)
    environ = prepare_multi_gpu_env(args)
    assert environ["ACCELERATE_USE_FSDP"] == "true" and environ["FSDP_VERSION"] == "2"
    with patch_environment(**environ):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap == ["Block"]
    accelerator = mock.Mock(mixed_precision="no")
    accelerator.state.fsdp_plugin = plugin
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, vocab_size=8, block_size=8))
    processes.configure_fsdp(accelerator, model)
    assert plugin.transformer_cls_names_to_wrap == ["Block"]


def test_every_configuration_is_described() -> None:
    said = (CONFIGURATIONS / "README.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in CONFIGURATIONS.glob("*.yaml"))
    assert len(files) == 4
    assert [file for file in files if f"| [`{file}`]({file}) |" not in said] == []


def test_accelerate_has_config_and_no_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def accelerate(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["accelerate", *words])
        accelerate_cli.main()

    with pytest.raises(SystemExit):
        accelerate("init")
    assert "invalid choice: 'init'" in capsys.readouterr().err
    file = tmp_path / "default.yaml"
    accelerate("config", "default", "--config_file", str(file))
    loaded = load_config_from_file(str(file))
    assert loaded.compute_environment.value == "LOCAL_MACHINE"
    if not torch.cuda.is_available():
        assert (loaded.num_processes, loaded.use_cpu) == (1, True)
    before = file.read_text(encoding="utf-8")
    accelerate("config", "default", "--config_file", str(file), "--mixed_precision", "bf16")
    assert file.read_text(encoding="utf-8") == before  # one that is there stays
