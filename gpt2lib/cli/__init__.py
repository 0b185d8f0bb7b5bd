"""The command line: `gpt2lib COMMAND ...`, also as `python -m gpt2lib COMMAND ...`.

Each command lives in a module that is imported when the command is called, so `gpt2lib --help`
loads nothing heavy. Bad input ends in one line on stderr and exit code 2; with GPT2LIB_DEBUG=1
the traceback is shown as well.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gpt2lib import __version__
from gpt2lib.utils.errors import UserError, nearest, visible
from gpt2lib.utils.process import rank

COMMANDS = {
    "train": "train a model, or go on with a run",
    "finetune": "train a model that is trained already on a text of your own",
    "generate": "stream text from a run, a checkpoint or GPT-2",
    "evaluate": "loss, perplexity and bits per byte on held-out text",
    "export": "write a run as a folder that transformers opens",
    "convert": "a longer context, shared heads or a window for a trained model",
    "tune": "a study over the settings of a run, on Optuna",
    "lengthen": "train a model on with longer and longer texts, in stages",
    "prepare": "turn text into token files, once",
    "estimate": "parameters, FLOPs and memory before any of it is spent",
    "plot": "draw runs into one figure, and print a table of them",
    "doctor": "what is missing on this machine, and how long runs take on it",
    "course": "the exercises of the notebooks, and how many are done",
}
"""Each command, which is a function in the module of its name, and a summary."""

USAGE = """usage: gpt2lib COMMAND [options]
       gpt2lib COMMAND --help
       gpt2lib --version
"""

EXAMPLES = """examples:
  gpt2lib train cpu --out runs/plays
  gpt2lib train cpu --out runs/wide --model.n_embd 192 --optim.lr 1e-3
  gpt2lib generate runs/plays --prompt "ROMEO:" --temperature 0.8
  gpt2lib evaluate runs/plays --json
  gpt2lib finetune notes.txt --from gpt2 --plan
"""

BAD_INPUT, FAILED, INTERRUPTED, PIPE_CLOSED = 2, 1, 130, 141
"""Exit codes. The last two are what a shell reports for SIGINT and SIGPIPE."""


def help_text() -> str:
    """Return what `gpt2lib --help` prints."""
    rows = "\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items())
    return f"{USAGE}\ncommands:\n{rows}\n\n{EXAMPLES}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; None takes those of the process.

    Returns:
        The exit code: 0, or 2 for bad input, 130 after Ctrl-C, 141 if stdout was closed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with _messages_shown():
            return _dispatch(arguments)
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("gpt2lib: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return PIPE_CLOSED
    except OSError as error:  # a full disk, a folder that may not be written
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror or error}")
    except SystemExit as stop:  # --help
        return stop.code if isinstance(stop.code, int) else FAILED


def _dispatch(arguments: list[str]) -> int:
    """Call the command that the first argument names."""
    if not arguments:
        print(help_text(), file=sys.stderr)
        return BAD_INPUT
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if name == "--version":
        print(f"gpt2lib {__version__}")
        return 0
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name!r}{hint}")
    module = importlib.import_module(f"gpt2lib.cli.{name}")
    code: int = getattr(module, name)(rest)
    return code


@contextmanager
def _messages_shown() -> Iterator[None]:
    """Show the library's messages on stderr as plain lines while a command runs.

    Of several processes only the first shows more than errors.
    """
    logger, handler = logging.getLogger("gpt2lib"), logging.StreamHandler()
    handler.setFormatter(_Visible())
    before = logger.level
    logger.setLevel(logging.INFO if rank() == 0 else logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:  # Python code may call a command and go on
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Visible(logging.Formatter):
    """Shows what a stranger's file put into a message, and lets the terminal obey none of it."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _refuse(message: str) -> int:
    """Print a message as one line, after the traceback if that was asked for."""
    if os.environ.get("GPT2LIB_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    who = f"gpt2lib[{rank()}]" if rank() else "gpt2lib"
    print(f"{who}: {visible(' '.join(message.split()))}", file=sys.stderr)
    return BAD_INPUT


def entry_point() -> None:
    """Run `main` as a process: its code becomes the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without some character shows "?"
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has gone
        code = PIPE_CLOSED
    if code == PIPE_CLOSED:  # so that the interpreter's own flush at exit has somewhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
