"""What is installed, compared with what gpt2lib needs: Python, packages, the notebooks' kernel."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: what it is about.
        status: ok, warning (something will be slower or missing), or problem.
        said: what was found.
        advice: what to do about it; empty if ok.
    """

    name: str
    status: Status
    said: str
    advice: str = ""


def check_python() -> Finding:
    """Compare this Python with what the package asks for."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        wanted = metadata.metadata("gpt2lib")["Requires-Python"]
    except metadata.PackageNotFoundError:
        return Finding("Python", "warning", version, "gpt2lib is not installed: pip install -e .")
    if SpecifierSet(wanted or "").contains(version, prereleases=True):
        return Finding("Python", "ok", version)
    return Finding("Python", "problem", f"{version}, but {wanted} is needed", "make PYTHON=…")


def check_packages(requirements: Iterable[str] | None = None) -> list[Finding]:
    """Compare the installed packages with the package's requirements.

    Args:
        requirements: such as "numpy>=2"; by default those of the installed gpt2lib. One under an
            extra ("; extra == 'lab'") is only a warning; those of dev are not looked at.
    """
    from packaging.requirements import Requirement

    if requirements is None:
        try:
            requirements = metadata.requires("gpt2lib") or []
        except metadata.PackageNotFoundError:
            advice = "install it: pip install -e ."
            return [Finding("packages", "warning", "gpt2lib is not installed", advice)]
    wrong: list[Finding] = []
    count = 0
    for one in map(Requirement, requirements):
        wanted = [x for x in ("", "lab") if one.marker is None or one.marker.evaluate({"extra": x})]
        count += bool(wanted)
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            version = ""
        if wanted and not (version and one.specifier.contains(version, prereleases=True)):
            said = f"{version}, but {one.specifier} is needed" if version else "not installed"
            status: Status = "problem" if "" in wanted else "warning"
            advice = f'pip install "{one.name}{one.specifier}"'
            wrong.append(Finding(one.name, status, said, advice))
    return wrong or [Finding("packages", "ok", f"{count} as required")]


def check_kernel() -> Finding:
    """Look whether a notebook would run in this Python."""
    name = "notebook kernel"
    advice = "make lab, or: python -m ipykernel install --sys-prefix --name python3"
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        way = "pip install jupyterlab ipykernel, if you want the notebooks"
        return Finding(name, "warning", "jupyter is not installed", way)
    try:
        found = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Finding(name, "warning", "there is no kernel python3", advice)
    # Jupyter puts its own Python for a bare "python". Links are not followed: the Python of a
    # virtual environment is a link, and where it lies is what makes it that environment's.
    bare = {"python", "python3", f"python{sys.version_info.major}.{sys.version_info.minor}"}
    if found in bare or Path(found).parent.absolute() == Path(sys.executable).parent.absolute():
        return Finding(name, "ok", "python3 is this Python")
    said = f"python3 is {found}, not {sys.executable}"
    return Finding(name, "warning", said, advice)


def check_accelerate() -> Finding:
    """Say what `accelerate launch` would do by itself."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    name, path = "accelerate", Path(default_config_file)
    if not path.is_file():
        said = "no default configuration; `accelerate launch` starts one process for each GPU"
        return Finding(name, "ok", said)
    try:
        config = load_config_from_file(str(path))
        kind = str(getattr(config.distributed_type, "value", config.distributed_type))
    except Exception as error:  # whatever the file makes it raise
        said = f"{path} cannot be read ({str(error).splitlines()[0]})"
        return Finding(name, "problem", said, "run `accelerate config`, or delete it")
    where = "the CPU" if getattr(config, "use_cpu", False) else "the GPU, where there is one"
    said = (
        f"`accelerate launch` reads {path}: {kind}, {config.num_processes} "
        f"process{'es' * (config.num_processes != 1)}, on {where}"
    )
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP"):
        return Finding(name, "warning", said, "give `accelerate launch` another --config_file")
    return Finding(name, "ok", said)
