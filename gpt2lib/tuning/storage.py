"""A study in its storage: opened, and told apart from others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import Study

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import flat
from gpt2lib.tuning.config import StudyConfig
from gpt2lib.tuning.samplers import make_pruner, make_sampler
from gpt2lib.utils.errors import UserError

SETTINGS = "settings"
"""Attribute of a study: what it was begun with, as JSON."""

HEARTBEAT, GRACE = 15, 120
"""Seconds between the signs of life of a trial in a database, and until it is taken for dead."""


def open_study(
    config: StudyConfig, base: TrainConfig, storage: BaseStorage, new: bool = True
) -> Study:
    """Open the study in its storage, or make it there if it may be `new`.

    Raises:
        UserError: if the storage cannot be read, or holds another study of that name, or none.
    """
    name = config.name or "study"
    with _one_line(config.storage):
        if not new and name not in optuna.get_all_study_names(storage):
            raise UserError(f"there is no study {name!r} in {shown(config.storage)} yet")
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            sampler=make_sampler(config),
            pruner=make_pruner(config),
            load_if_exists=True,
        )
        _refuse_another(study, config, base)
    return study


def make_storage(spec: str, folder: Path) -> BaseStorage:
    """Return the storage that a study names: sqlite, journal, or the URL of a database.

    Raises:
        UserError: if it cannot be opened.
    """
    if spec == "journal":
        path = folder / "study.journal"
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_JournalLock(path)))
    if spec != "sqlite" and "://" not in spec:
        raise UserError(f"storage {spec!r} is neither sqlite, journal nor the URL of a database")
    with warnings.catch_warnings(), _one_line(spec):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
        if spec == "sqlite":
            url = f"sqlite:///{(folder / 'study.db').resolve()}"
            return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 120}})
        return RDBStorage(
            spec,
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )


def shown(spec: str) -> str:
    """Return a storage as it may be shown: without its password."""
    if spec in ("sqlite", "journal"):
        return f"the {spec} storage"
    from sqlalchemy.engine import make_url

    return make_url(spec).render_as_string(hide_password=True)


class _JournalLock(BaseJournalFileLock):
    """A lock that ends with its process, and leaves no half line behind.

    Optuna's own locks are files that a killed process leaves for 30 seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        self.lock.acquire()
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):  # it would spoil all lines that follow
            with self.path.open("rb+") as file:
                file.truncate(content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self.lock.release()


@contextmanager
def _one_line(spec: str) -> Iterator[None]:
    """Turn what libraries say of a storage that cannot be opened into one line."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        said = str(getattr(cause, "orig", None) or cause).split("\n")[0]
        if isinstance(cause, ModuleNotFoundError) and cause.name == "psycopg":
            said += '; pip install "psycopg[binary]"'
        raise UserError(f"cannot open {shown(spec)}: {said}") from error


def _refuse_another(study: Study, config: StudyConfig, base: TrainConfig) -> None:
    """Write down what makes a study this one, or refuse another; more trials do not matter."""
    values = config.to_dict()
    now = {name: values[name] for name in ("space", "fixed", "budget", "seeds")}
    now["base"] = base.to_dict()
    where = f"{shown(config.storage)} holds a study {study.study_name!r}"
    if SETTINGS not in study.user_attrs:
        if study.get_trials(deepcopy=False):
            raise UserError(f"{where} of other origin; name it")
        study.set_user_attr(SETTINGS, json.dumps(now, sort_keys=True))
    then = json.loads(study.user_attrs[SETTINGS])
    then["base"] = TrainConfig.from_dict(then["base"]).to_dict()  # fields that are new since then
    old, new = flat(then), flat(now)
    names = [n for n in {**old, **new} if old.get(n) != new.get(n)]
    if names:
        changed = ", ".join(f"{n} {old.get(n)} → {new.get(n)}" for n in names[:3])
        more = f" and {len(names) - 3} more" if names[3:] else ""
        raise UserError(
            f"{where} of another space or base ({changed}{more}); choose another name or storage, "
            "or the same settings"
        )
