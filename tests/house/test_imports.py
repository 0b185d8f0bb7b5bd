"""Which room may import which, what an import costs, and that packaging files agree."""

from __future__ import annotations

import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "matplotlib", "numpy")


# ── the order of the rooms ──────────────────────────────────────────────────────────────────────


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `lint-imports` there, in a process of its own: it disables the loggers it finds."""
    code = "import sys; from importlinter.cli import lint_imports; "
    return subprocess.run(
        [sys.executable, "-c", code + "sys.exit(lint_imports(no_cache=True))"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


def test_no_room_imports_from_a_room_above_it() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_every_module_has_its_place_in_the_order() -> None:
    (contract,) = (c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["id"] == "rooms")
    named = [name.strip() for layer in contract["layers"] for name in re.split("[|:]", layer)]
    there = {p.stem for p in (ROOT / "gpt2lib").glob("*.py")} | {
        p.parent.name for p in (ROOT / "gpt2lib").glob("*/__init__.py")
    }
    assert sorted(named) == sorted(there - {"__init__", "__main__"})
    assert contract["exhaustive"] is True


def test_no_room_goes_around_the_order_through_the_package() -> None:
    """`from gpt2lib import train` in a low room would be invisible to the contract."""
    graph = grimp.build_graph("gpt2lib", cache_dir=None)
    around = graph.find_modules_that_directly_import("gpt2lib")
    assert {m for m in around if not m.startswith(("gpt2lib.cli", "gpt2lib.course"))} == set()


def test_no_files_import_one_another_in_a_circle() -> None:
    """Lazy imports count: a circle that Python does not notice is one for the reader."""
    graph = grimp.build_graph("gpt2lib", cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, with the circle


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        (
            "model/gpt.py",
            "import gpt2lib.training.loop\n",
            "gpt2lib.model.gpt -> gpt2lib.training.loop",
        ),
        ("escaped.py", "", "escaped"),
        (
            "runs/checkpoint.py",
            "import gpt2lib.runs.log\n",
            "gpt2lib.runs.checkpoint -> gpt2lib.runs.log",
        ),
        ("training/escaped.py", "", "training.escaped"),
    ],
)
def test_the_contract_finds_an_escape(tmp_path: Path, file: str, line: str, says: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    only_code = shutil.ignore_patterns("__pycache__", "*.yaml", "*.csv")
    shutil.copytree(ROOT / "gpt2lib", tmp_path / "gpt2lib", ignore=only_code)
    with (tmp_path / "gpt2lib" / file).open("a", encoding="utf-8") as module:
        module.write(line)
    done = lint(tmp_path)
    assert done.returncode == 1
    assert says in done.stdout.replace("\n", " ")


# ── the cost of an import ───────────────────────────────────────────────────────────────────────

MODEL = """
import sys
import gpt2lib.model.gpt
print(*(name for name in sys.modules if name.startswith("gpt2lib")))
print(*(n for n in ("pyarrow", "datasets", "tokenizers", "transformers") if n in sys.modules))
"""


def test_the_model_needs_little_of_the_house() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MODEL], capture_output=True, encoding="utf-8", check=True
    )
    ours, theirs = done.stdout.split("\n")[:2]
    assert len(ours.split()) <= 20, ours
    assert theirs == ""


COST = """
import contextlib, io, json, os, pkgutil, importlib, sys, time
facts, source, out = {}, *sys.argv[1:]

def note(what, heavy):
    facts[what] = [name for name in heavy if name in sys.modules]

heavy = json.loads(sys.stdin.read())
environment = dict(os.environ)
import gpt2lib
note("import gpt2lib", heavy)
from gpt2lib.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    codes = [main(["--help"])]
    facts["seconds"] = time.process_time()
    note("--help", heavy)
    codes += [main([]), main(["tran"]), main(["train", "smoke", "--help"]), main(["train", "smok"])]
    note("train --help", heavy)
    import gpt2lib.config, gpt2lib.runs.plots, gpt2lib.course
    note("import gpt2lib.course", ["torch", "transformers", "datasets", "matplotlib"])
    codes += [main(["prepare", source, "--out", out, "--data.vocab_size", "260"])]
    note("prepare", ["torch", "transformers", "matplotlib"])
facts["codes"] = codes

import torch
def settings():
    return [torch.initial_seed(), str(torch.get_default_dtype()), str(torch.get_default_device()),
            torch.get_float32_matmul_precision(), torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(), torch.cuda.is_initialized()]
before = settings()
for module in pkgutil.walk_packages(gpt2lib.__path__, "gpt2lib."):
    importlib.import_module(module.name)
facts["changed"] = [before, settings()] if before != settings() else []
facts["environment"] = sorted(
    key for key in {*environment, *os.environ}
    if key.startswith(("GPT2LIB", "OMP", "PYTORCH", "ACCELERATE"))
    and environment.get(key) != os.environ.get(key)
)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def cost(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("cost")
    (folder / "text.txt").write_text("to be or not to be\n" * 50, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", COST, str(folder / "text.txt"), str(folder / "tokens")],
        input=json.dumps(HEAVY),
        env={k: v for k, v in os.environ.items() if not k.startswith("GPT2LIB")},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert facts["codes"] == [0, 2, 2, 0, 2, 0]
    return facts


@pytest.mark.parametrize(
    "what", ["import gpt2lib", "--help", "train --help", "import gpt2lib.course", "prepare"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(what: str, cost: dict[str, Any]) -> None:
    assert cost[what] == []


def test_help_takes_less_than_a_second(cost: dict[str, Any]) -> None:
    assert cost["seconds"] < 1  # of the processor: a busy machine does not count


def test_importing_decides_nothing(cost: dict[str, Any]) -> None:
    assert cost["changed"] == []
    assert cost["environment"] == []


def test_public_names_are_there_and_lazy() -> None:
    import gpt2lib

    for name in gpt2lib.__all__:
        assert getattr(gpt2lib, name).__name__ == name
        assert name in dir(gpt2lib)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = gpt2lib.trian
    modules = {p.stem for p in (ROOT / "gpt2lib").iterdir()}
    assert not modules & {"train", "generate", "export", "prepare", "stream"}


# ── packaging files agree ───────────────────────────────────────────────────────────────────────


def requirements() -> list[Requirement]:
    """Return everything that pyproject.toml asks for, with all extras."""
    project = PROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for texts in lists for text in texts]


def pins() -> dict[str, str]:
    """Return the exact versions of constraints.txt."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            found[canonicalize_name(name)] = version
    return found


def test_conda_and_pip_install_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "gpt2lib"
    *conda, pip = environment["dependencies"]
    python, installer = conda  # dependencies are declared once, in pyproject.toml
    assert python == "python" + PROJECT["project"]["requires-python"]
    assert installer == "pip"
    constraint, project = pip["pip"]
    assert constraint == "-c constraints.txt"
    found = re.fullmatch(r"-e \.\[([\w,]+)\]", project)
    assert found
    assert set(found[1].split(",")) == set(PROJECT["project"]["optional-dependencies"])


def test_the_pins_satisfy_what_is_required() -> None:
    pinned = pins()
    assert pinned["torch"] == "2.13.0"
    for requirement in requirements():
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version, prereleases=True), str(requirement)


def test_tools_agree_on_the_oldest_python() -> None:
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=").split(",")[0]
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(
        ".".join(map(str, sys.version_info[:3]))
    )


def test_the_citation_and_the_form_for_a_number_can_be_read() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["project"]["version"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= form.keys(), path
        asked = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert len(asked) == len(set(asked)) and "doctor" in asked
