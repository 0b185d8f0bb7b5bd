"""The disk in miniature of notebook 10: it must not promise more than real ones do."""

from __future__ import annotations

import copy

import pytest

from gpt2lib.course.exercises.reproducibility.atomic_write import EXERCISE as WRITE
from gpt2lib.course.toy_disk import ToyDisk


def test_what_is_written_in_place_may_be_torn_until_it_is_flushed() -> None:
    disk = ToyDisk({"a": "old!"})
    assert disk.after_a_crash("a") == {"old!"}
    disk.write("a", "new!")
    assert disk["a"] == "new!"
    assert disk.after_a_crash("a") == {"old!", "", "ne", "new!"}
    later = ToyDisk({"a": "old!"})
    later.write("b", "12")
    later.flush("b")
    later.rename("b", "c")
    assert later.after_a_crash("c") == {None, "12"}, "flushed before it got its name"
    assert later.after_a_crash("a") == {"old!"}, "others are left alone"
    assert later.operations == [("write", "b"), ("flush", "b"), ("rename", "b", "c")]


def test_a_rename_may_reach_the_disk_before_the_content() -> None:
    disk = ToyDisk({"a": "old!"})
    disk.write("b", "new!")
    disk.rename("b", "a")
    assert disk == {"a": "new!"}
    assert disk.after_a_crash("a") == {"old!", "", "ne", "new!"}


def test_deleting_and_another_disk() -> None:
    disk = ToyDisk({"a": "old!"})
    disk.delete("a")
    assert disk.after_a_crash("a") == {"old!", None}
    disk = ToyDisk({"a": "old!"})
    disk.write("/tmp/b", "new!")
    disk.flush("/tmp/b")
    disk.rename("/tmp/b", "a")
    assert disk == {"a": "new!"}
    assert "" in disk.after_a_crash("a"), "a copy, written in place"


def test_a_copy_has_a_life_of_its_own() -> None:
    disk = ToyDisk({"a": "old!"})
    other = copy.deepcopy(disk)
    other.write("a", "new!")
    assert disk.after_a_crash("a") == {"old!"}
    assert disk.operations == []


@pytest.mark.parametrize("content", ["", "new", "a longer one"])
def test_the_library_writes_so_that_a_crash_leaves_old_or_new(content: str) -> None:
    disk = ToyDisk({"run/a": "old!", "run/b": "other"})
    WRITE.function()(disk, "run/a", content)
    assert disk == {"run/a": content, "run/b": "other"}
    assert disk.after_a_crash("run/a") == {"old!", content}
    kinds = [operation[0] for operation in disk.operations]
    assert kinds == ["write", "flush", "rename"]
