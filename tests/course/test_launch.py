"""A run as a process of its own: started once, followed, stopped, resumed, found again."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from gpt2lib.course.background import Background
from gpt2lib.course.launch import LiveRun, attach, command, launch
from gpt2lib.course.live import Samples, progress_line
from gpt2lib.utils.errors import UserError

TINY = {"steps": 4, "eval_every": 2, "save_every": 2, "eval_batches": 1, "sample_tokens": 4}


def wait_for(condition, seconds=60.0):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.02)


def background(folder, code):
    process = Background(folder / "run.process.json", folder / "run.log")
    process.start(["-c", code])
    return process


@pytest.fixture
def folder(tmp_path):
    """A folder for runs; what is still running in it is stopped at the end."""
    yield tmp_path
    for record in tmp_path.glob("*.process.json"):
        process = Background(record, tmp_path / "log")._find()
        if process is not None:
            process.kill()
            process.wait(10)


def write_run(out, steps=10, done=4, result=None):
    out.mkdir()
    (out / "requested.yaml").write_text(f"steps: {steps}\n", encoding="utf-8")
    lines = [{"step": 0, "val_loss": 6.0, "val_bits_per_byte": 4.0}]
    for step in range(1, done + 1):
        lines.append(
            {"step": step, "loss": 6.0 - step, "tokens_per_second": 1000.0, "seconds": 10.0 * step}
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / "metrics.jsonl").write_text(text, encoding="utf-8")
    if result:
        (out / "result.json").write_text(json.dumps(result), encoding="utf-8")


def test_command_is_what_one_would_type():
    text = command("cpu", "runs/my run", processes=1, steps=5, optim={"lr": 1e-3}, compile=True)
    assert text == (
        "gpt2lib train cpu --out 'runs/my run' --steps 5 --optim.lr 0.001 --compile true"
    )


def test_command_for_many_processes_goes_through_accelerate():
    text = command("gpu", "runs/gpu", processes=8)
    assert text == (
        "accelerate launch --multi_gpu --num_processes 8 -m gpt2lib train gpu --out runs/gpu"
    )


def test_what_is_shown_is_what_is_started(folder, monkeypatch):
    started = []
    monkeypatch.setattr(Background, "start", lambda self, arguments: started.append(arguments))
    launch("cpu", folder / "a", processes=1, optim={"lr": 0.1})
    launch("cpu", folder / "b", processes=2)
    shown = shlex.split(command("cpu", folder / "a", processes=1, optim={"lr": 0.1}))
    assert started[0] == ["-m", *shown]
    shown = shlex.split(command("cpu", folder / "b", processes=2))
    assert started[1] == ["-m", "accelerate.commands.launch", *shown[2:]]


def test_the_arguments_are_understood_by_the_command_line(folder):
    from gpt2lib.cli.train import parse
    from gpt2lib.course.launch import _arguments

    overrides = {"model": {"n_layer": 3}, "optim.lr": 0.5, "init_from": None, "compile": True}
    overrides |= {"sample_prompt": "A b:\n"}
    options, config = parse(_arguments("smoke", folder / "x", overrides)[1:])
    assert options.folder == folder / "x"
    assert (config.model.n_layer, config.optim.lr) == (3, 0.5)
    assert (config.init_from, config.compile) == (None, True)
    assert config.sample_prompt == "A b:\n"
    overrides = {"data": {"mixture": {"plays": 1, "my notes.txt": 0.5}}, "sample_prompt": "--- one"}
    _, config = parse(_arguments("smoke", folder / "x", overrides)[1:])
    assert config.data.mixture == {"plays": 1.0, "my notes.txt": 0.5}
    assert config.sample_prompt == "--- one"


def test_a_second_start_takes_hold_of_the_first(folder):
    one = background(folder, "import time; time.sleep(60)")
    pid = json.loads(one.record.read_text())["pid"]
    two = background(folder, "import time; time.sleep(60)")
    assert json.loads(two.record.read_text())["pid"] == pid
    assert two.running and two._child is None
    with pytest.raises(UserError, match="running with other arguments"):
        background(folder, "pass")


def test_many_starts_at_once_start_one_process(folder):
    code = (
        "import sys; from pathlib import Path; from gpt2lib.course.background import Background;"
        "f = Path(sys.argv[1]); b = Background(f / 'run.process.json', f / 'run.log');"
        "b.start(['-c', 'import time; print(1, flush=True); time.sleep(60)'])"
    )
    starters = [subprocess.Popen([sys.executable, "-c", code, str(folder)]) for _ in range(4)]
    assert [s.wait(60) for s in starters] == [0, 0, 0, 0]
    time.sleep(0.3)
    assert (folder / "run.log").read_text() == "1\n"


def test_the_process_is_in_a_session_of_its_own_and_outlives_who_started_it(folder):
    code = (
        "import sys; from pathlib import Path; from gpt2lib.course.background import Background;"
        "f = Path(sys.argv[1]); b = Background(f / 'run.process.json', f / 'run.log');"
        "b.start(['-c', 'import time; time.sleep(60)'])"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=60)
    found = Background(folder / "run.process.json", folder / "run.log")
    assert found.running
    pid = json.loads(found.record.read_text())["pid"]
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_pid_that_another_process_got_is_not_the_run(folder):
    process = background(folder, "pass")
    wait_for(lambda: not process.running)
    record = json.loads(process.record.read_text())
    process.record.write_text(json.dumps(record | {"pid": os.getpid()}), encoding="utf-8")
    assert not process.running
    process.interrupt(timeout=1)  # and this one is not interrupted


def test_interrupt_is_what_ctrl_c_is_and_waits(folder):
    code = (
        "import time\nprint('up', flush=True)\ntry:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.3)\n    print('gpt2lib: saved')\n"
    )
    process = background(folder, code)
    wait_for(lambda: "up" in process.log.read_text())
    process.interrupt(timeout=20)
    assert not process.running
    assert process.last_words() == "gpt2lib: saved"


def test_a_process_that_does_not_stop_is_named(folder):
    code = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    process = background(folder, code)
    wait_for(lambda: "up" in process.log.read_text())
    pid = json.loads(process.record.read_text())["pid"]
    with pytest.raises(UserError, match=f"process {pid} was asked to stop 0.2 s ago"):
        process.interrupt(timeout=0.2)


def test_why_it_ended_is_one_line_of_its_own_log(folder):
    first = background(folder, "print('gpt2lib: an old trouble')")
    wait_for(lambda: not first.running)
    process = background(folder, "print('10%\\r20%'); raise KeyError('wte')")
    wait_for(lambda: not process.running)
    assert process.last_words() == "KeyError: 'wte'"
    assert process.last_words(refused=True) is None
    assert "gpt2lib: an old trouble" in process.log.read_text()


def test_a_server_that_ignores_ctrl_c_starts_processes_that_do_not(folder):
    """As a shell's `jupyter lab &` does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = background(folder, "import time; print('up', flush=True); time.sleep(60)")
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        wait_for(lambda: "up" in process.log.read_text())
        process.interrupt(timeout=20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not process.running


def test_stopping_while_it_still_starts_is_no_traceback(folder):
    process = background(folder, "import time; print('up', flush=True); time.sleep(60)")
    wait_for(lambda: "up" in process.log.read_text())
    process.interrupt(timeout=20)
    assert "Traceback" in process.log.read_text()
    assert process.last_words() == "it was stopped before it had begun"


def test_a_complete_run_is_not_started_again(folder, monkeypatch):
    monkeypatch.setattr(Background, "start", lambda *_: pytest.fail("started"))
    write_run(folder / "run", result={"steps": 4})
    arguments = ["-m", *shlex.split(command("smoke", folder / "run", processes=1))]
    record = {"pid": 1, "started": 0.0, "log_from": 0, "arguments": arguments}
    (folder / "run.process.json").write_text(json.dumps(record), encoding="utf-8")
    assert launch("smoke", folder / "run", processes=1).result == {"steps": 4}
    with pytest.raises(pytest.fail.Exception):  # with other settings the trainer says no
        launch("smoke", folder / "run", processes=1, seed=7)


def test_attach_needs_a_run(folder):
    with pytest.raises(UserError, match="no run was launched in"):
        attach(folder / "nothing")


def test_resume_needs_the_arguments(folder):
    write_run(folder / "run")
    with pytest.raises(UserError, match="launch it with its preset"):
        attach(folder / "run").resume()


def test_progress_counts_the_time_left(folder, monkeypatch):
    write_run(folder / "run", steps=10, done=4)
    run = LiveRun(folder / "run")
    assert progress_line(run) == "run: step 4 of 10; not running"
    monkeypatch.setattr(LiveRun, "running", True)
    # 6 steps are left at 10 seconds each
    assert progress_line(run) == (
        "run: step 4 of 10, loss 2.000, held out 6.000, 1,000 tokens/s, 1:00 left"
    )


def test_progress_tells_the_result(folder):
    result = {"steps": 10, "train_seconds": 90.0, "loss": 2.5, "bits_per_byte": 2.25}
    write_run(folder / "run", done=10, result=result)
    assert progress_line(LiveRun(folder / "run")) == (
        "run: complete, 10 steps in 1.5 minutes; held out 2.500 nats per token, 2.250 bits per byte"
    )


def test_samples_are_a_table_by_step(folder):
    lines = [{"step": s, "text": f"<b>{s}</b>"} for s in (0, 100, 200)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 300, "te'
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")
    samples = Samples.read(folder)
    assert [step for step, _ in samples] == [0, 100, 200]
    assert [step for step, _ in Samples.read(folder, [0, 150, 999])] == [0, 100, 200]
    assert [step for step, _ in Samples.read(folder, [150])] == [100]
    assert "&lt;b&gt;100" in samples._repr_html_() and "<b>100" not in samples._repr_html_()
    assert repr(samples).splitlines()[:2] == ["── step 0 ──", "<b>0</b>"]


def test_follow_says_the_error_in_one_line(folder, capsys):
    run = LiveRun(folder / "run")
    run.process.start(["-c", "print('gpt2lib: batch_size 9 does not divide'); 1 / 0"])
    run.follow(refresh=0.05)
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown == "run: step 0 of ?; ended: gpt2lib: batch_size 9 does not divide"
    assert not run.running and run.result is None


def test_follow_draws_a_run_whose_name_has_a_point(folder, capsys):
    run = LiveRun(folder / "lr0.003_b")
    run.out.mkdir()
    lines = [{"step": s, "loss": 5.0 - s} for s in (1, 2)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.out / "metrics.jsonl").write_text(text, encoding="utf-8")
    run.follow()
    assert (
        "Figure training-lr0-003-b: Training loss of the run lr0.003_b" in capsys.readouterr().out
    )


def test_watching_can_be_interrupted_and_the_run_goes_on(folder, capsys, monkeypatch):
    run = LiveRun(folder / "run")
    run.process.start(["-c", "import time; time.sleep(60)"])

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    run.follow()
    assert run.running
    assert "Not watched any more" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_run_is_stopped_found_again_resumed_and_complete(folder, capsys):
    size = {"model": {"n_layer": 1, "n_embd": 16}, "device": "cpu", "precision": "fp32"}
    settings = {**size, **TINY, "steps": 4000, "eval_every": 2000, "save_every": 2000}
    run = launch("smoke", folder / "run", processes=1, **settings)
    run.follow(refresh=0.05, until=3)
    assert run.running and run.result is None
    run.stop()
    assert run.error.startswith("gpt2lib: stopped at step")
    stopped_at = run.step
    assert 3 <= stopped_at < 4000
    again = attach(folder / "run").resume()
    again.follow(refresh=0.2)
    assert again.result["steps"] == 4000 and again.error is None
    assert [step for step, _ in again.samples()] == [0, 2000, 4000]
    first = capsys.readouterr().out
    assert "Figure training-run: Training loss of the run run by step" in first
    assert again.resume().running is False
    other = launch("smoke", folder / "run", processes=1, **{**settings, "seed": 7})
    other.follow(refresh=0.2)
    assert "holds a run with other settings (seed 1337 → 7)" in other.error
