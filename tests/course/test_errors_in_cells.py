"""A `UserError` in a cell is one line; other errors and GPT2LIB_DEBUG show everything."""

import os
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import v4

from gpt2lib.course.session import one_line_errors

START = "from gpt2lib.course.session import one_line_errors; one_line_errors()"
REFUSED = "from gpt2lib import GPTConfig; GPTConfig(n_embd=100, n_head=3)"
LINE = "UserError: n_embd 100 is not divisible by n_head 3; 99 would be"


def in_ipython(*cells, **environment):
    code = "from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance()\n"
    code += "\n".join(f"s.run_cell({cell!r})" for cell in cells)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_a_refusal_is_one_line():
    said = in_ipython(START, REFUSED, "print('on')", GPT2LIB_DEBUG="")
    assert said.splitlines() == [LINE, "on"]


def test_debug_shows_the_traceback():
    assert len(in_ipython(START, REFUSED, GPT2LIB_DEBUG="1").splitlines()) > 8
    said = in_ipython(START, REFUSED, "import os; os.environ['GPT2LIB_DEBUG'] = '1'", REFUSED)
    assert said.startswith(LINE)
    assert len(said.splitlines()) > 8, "the variable counts when the error comes"


def test_other_errors_stay_whole():
    said = in_ipython(START, "1 / 0")
    assert "ZeroDivisionError" in said
    assert len(said.splitlines()) > 3


def test_outside_of_ipython_nothing_is_changed():
    before = sys.excepthook
    one_line_errors()
    assert sys.excepthook is before


@pytest.mark.slow
def test_in_a_kernel_the_cell_has_failed_and_says_one_line(tmp_path):
    notebook = v4.new_notebook(cells=[v4.new_code_cell(START), v4.new_code_cell(REFUSED)])
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": "."}})
    with pytest.raises(CellExecutionError):
        client.execute()
    (output,) = notebook.cells[1].outputs
    assert (output.output_type, output.ename, output.traceback) == ("error", "UserError", [LINE])
    nbformat.validate(notebook)
