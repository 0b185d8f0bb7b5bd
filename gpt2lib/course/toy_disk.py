"""A disk in miniature that says what a power failure may leave behind.

It knows three things about real ones. What is written reaches the disk some time later, in
pieces, unless it is flushed. Renaming a file and deleting one are changes of the *folder*, whole or
not made, and reach the disk in their order, but perhaps before the content of the file that they
are about. And a rename between two disks is a copy.

Reference: Pillai et al. 2014, "All File Systems Are Not Created Equal".
"""

from __future__ import annotations

from typing import Any

OTHER_DISK = "/tmp/"
"""How the names of files on another disk begin."""


class ToyDisk(dict[str, str]):
    """Files by name, as a running program sees them.

    Args:
        files: what lies on the disk already, safe and sound.

    Attributes:
        operations: what was done, such as ("write", "state.json").
    """

    def __init__(self, files: dict[str, str]) -> None:
        super().__init__(files)
        self.operations: list[tuple[str, ...]] = []
        folder = {name: number for number, name in enumerate(files)}
        self._folders = [folder]  # every state so far: name → number of a file
        self._files = [{content} for content in files.values()]  # what each may hold on the disk
        self._left: dict[str, set[str | None]] = {}
        self._look()

    def write(self, name: str, content: str) -> None:
        """Put text into a new file, or in place of what is in an old one, as `open(name, "w")`."""
        self.operations.append(("write", name))
        self._write(name, content)

    def _write(self, name: str, content: str) -> None:
        pieces = {"", content[: len(content) // 2], content}
        if name in self:
            self._files[self._folders[-1][name]] |= pieces
        else:
            self._folders.append({**self._folders[-1], name: len(self._files)})
            self._files.append(pieces)
        self[name] = content
        self._look()

    def flush(self, name: str) -> None:
        """Wait until the content of a file is on the disk, as `os.fsync` does."""
        self.operations.append(("flush", name))
        self._files[self._folders[-1][name]] = {self[name]}
        self._look()

    def rename(self, old: str, new: str) -> None:
        """Give a file another name; a file that had that name is gone."""
        self.operations.append(("rename", old, new))
        if old.startswith(OTHER_DISK) != new.startswith(OTHER_DISK):
            self._write(new, self[old])
            self._delete(old)
            return
        folder = dict(self._folders[-1])
        folder[new] = folder.pop(old)
        self._folders.append(folder)
        self[new] = self.pop(old)
        self._look()

    def delete(self, name: str) -> None:
        """Delete a file."""
        self.operations.append(("delete", name))
        self._delete(name)

    def _delete(self, name: str) -> None:
        self._folders.append({n: f for n, f in self._folders[-1].items() if n != name})
        del self[name]
        self._look()

    def after_a_crash(self, name: str) -> set[str | None]:
        """Return all that may be found under a name if the power failed at any moment so far.

        None stands for no such file.
        """
        return set(self._left.get(name, {None}))

    def _look(self) -> None:
        """Add what a power failure at this moment may leave."""
        for name in {name for folder in self._folders for name in folder}:
            left = self._left.setdefault(name, set())
            for folder in self._folders:
                left |= self._files[folder[name]] if name in folder else {None}


class ToyPath:
    """A file on a toy disk, with as much of `pathlib.Path` as writing a file safely needs."""

    def __init__(self, disk: ToyDisk, name: str) -> None:
        self.disk, self.whole_name = disk, name

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self.whole_name.rpartition("/")[2]

    def with_name(self, name: str) -> ToyPath:
        """Return a file beside this one."""
        folder, slash, _ = self.whole_name.rpartition("/")
        return ToyPath(self.disk, folder + slash + name)

    def write_text(self, text: str, **how: Any) -> None:
        """Write the file."""
        self.disk.write(self.whole_name, text)

    def flush(self) -> None:
        """Flush the file."""
        self.disk.flush(self.whole_name)

    def replace(self, target: ToyPath) -> None:
        """Rename the file to the place of another."""
        self.disk.rename(self.whole_name, target.whole_name)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file."""
        if self.whole_name in self.disk or not missing_ok:
            self.disk.delete(self.whole_name)
