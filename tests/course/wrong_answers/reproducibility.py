"""Answers to the exercises of notebook 10."""

import hashlib
import math

import numpy as np
import torch

from wrong_answers import fails, right, wrong


@right("ulps-apart")
def step_by_step_through_numpy(a, b):
    def place(x):
        whole = int(np.float32(x.item()).view(np.int32))
        return whole if whole >= 0 else -(whole & 0x7FFFFFFF)

    return abs(place(a) - place(b))


@wrong("ulps-apart", "divides-by-epsilon", says="doubles at each power of two")
def in_units_of_eps(a, b):
    return round((a.double() - b.double()).abs().item() / torch.finfo(torch.float32).eps)


@wrong("ulps-apart", "relative-difference", says="only near")
def relative(a, b):
    largest = max(abs(a.item()), abs(b.item()))
    return round(abs(a.item() - b.item()) / largest * 2**23)


@wrong("ulps-apart", "bits-of-negatives", says="the first bit is the sign")
def plain_bits(a, b):
    return abs(a.view(torch.int32).item() - b.view(torch.int32).item())


@wrong("ulps-apart", "converts-the-value", says="same 32 bits")
def as_integers(a, b):
    return (a.to(torch.int32) - b.to(torch.int32)).abs().item()


@wrong("ulps-apart", "with-a-sign", says="no sign")
def b_minus_a(a, b):
    def place(x):
        bits = x.view(torch.int32).item()
        return bits if bits >= 0 else -(bits & 0x7FFFFFFF)

    return place(b) - place(a)


@wrong("ulps-apart", "only-those-between", says="count steps")
def strictly_between(a, b):
    low, high = sorted([a.item(), b.item()])
    bits = [np.float32(x).view(np.int32).item() for x in (low, high)]
    below, above = (x if x >= 0 else -(x & 0x7FFFFFFF) for x in bits)
    return max(above - below - 1, 0)


@wrong("ulps-apart", None, says="expected")
def decimals(a, b):
    return -math.floor(math.log10(abs(a.item() - b.item()) + 1e-30))


def everything(model, optimizer, step):
    names = list(model.named_parameters())
    return {
        "weights": {name: p.detach().clone() for name, p in names},
        "moments": {
            f"{what}/{name}": value.clone()
            for name, p in names
            for what, value in optimizer.state[p].items()
        },
        "random": torch.get_rng_state(),
        "step": step,
    }


@right("state-to-save")
def by_state_dict(model, optimizer, step):
    return everything(model, optimizer, step)


@wrong("state-to-save", "forgets-the-random-state", says="dropout")
def no_random_numbers(model, optimizer, step):
    state = everything(model, optimizer, step)
    del state["random"]
    return state


@wrong("state-to-save", "saves-the-seed", says="how far they are")
def the_seed(model, optimizer, step):
    state = everything(model, optimizer, step)
    state["random"] = torch.initial_seed()
    return state


@wrong("state-to-save", "forgets-the-moments", says="begin at zero")
def weights_only(model, optimizer, step):
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return {"weights": weights, "moments": {}, "random": torch.get_rng_state(), "step": step}


@wrong("state-to-save", "forgets-the-counts", says="bias")
def both_averages(model, optimizer, step):
    moments = {}
    for name, p in model.named_parameters():
        for what in ("exp_avg", "exp_avg_sq"):
            moments[f"{what}/{name}"] = optimizer.state[p][what].clone()
    return {**everything(model, optimizer, step), "moments": moments}


@wrong("state-to-save", "first-average-only", says="two averages")
def momentum_only(model, optimizer, step):
    state = everything(model, optimizer, step)
    state["moments"] = {k: v for k, v in state["moments"].items() if k.startswith("exp_avg/")}
    return state


@wrong("state-to-save", "off-by-one", says="a batch")
def the_next_step(model, optimizer, step):
    return everything(model, optimizer, step + 1)


@wrong("state-to-save", "shares-memory", says=".clone()")
def no_copies(model, optimizer, step):
    names = list(model.named_parameters())
    moments = {f"{k}/{name}": v for name, p in names for k, v in optimizer.state[p].items()}
    weights = {name: p.detach() for name, p in names}
    return {"weights": weights, "moments": moments, "random": torch.get_rng_state(), "step": step}


@wrong("state-to-save", None, says="expected")
def a_list(model, optimizer, step):
    return list(everything(model, optimizer, step).values())


@right("share-of-the-batch")
def cut_the_whole_batch(step, batch_size, rank, processes):
    batch = range(step * batch_size, (step + 1) * batch_size)
    share = batch_size // processes
    return list(batch[rank * share : (rank + 1) * share])


@wrong("share-of-the-batch", "whole-batch-each", says="twice as large")
def a_batch_each(step, batch_size, rank, processes):
    first = (step * processes + rank) * batch_size
    return [first + i for i in range(batch_size)]


@wrong("share-of-the-batch", "all-read-the-same", says="same samples")
def no_rank(step, batch_size, rank, processes):
    first = step * batch_size
    return list(range(first, first + batch_size // processes))


@wrong("share-of-the-batch", "steps-of-a-share", says="twice")
def by_shares(step, batch_size, rank, processes):
    share = batch_size // processes
    return list(range((step + rank) * share, (step + rank + 1) * share))


@wrong("share-of-the-batch", "begins-again", says="step is missing")
def first_batch_always(step, batch_size, rank, processes):
    share = batch_size // processes
    return list(range(rank * share, rank * share + share))


@wrong("share-of-the-batch", "takes-turns", says="a block each")
def every_nth(step, batch_size, rank, processes):
    return [s for s in range(step * batch_size, (step + 1) * batch_size) if s % processes == rank]


@wrong("share-of-the-batch", None, says="expected")
def the_last_rank_first(step, batch_size, rank, processes):
    share = batch_size // processes
    first = step * batch_size + (processes - 1 - rank) * share
    return list(range(first, first + share + 1))


@right("atomic-write")
def temporary_beside_it(disk, name, content):
    temporary = name + ".tmp"
    disk.write(temporary, content)
    disk.flush(temporary)
    disk.rename(temporary, name)
    disk.flush(name)  # needless, harmless


@wrong("atomic-write", "writes-in-place", says="the ne")
def overwrite(disk, name, content):
    disk.write(name, content)
    disk.flush(name)


@wrong("atomic-write", "never-flushes", says="empty file")
def rename_only(disk, name, content):
    disk.write(name + ".new", content)
    disk.rename(name + ".new", name)


@wrong("atomic-write", "flushes-after-the-rename", says="flush first")
def rename_then_flush(disk, name, content):
    disk.write(name + ".new", content)
    disk.rename(name + ".new", name)
    disk.flush(name)


@wrong("atomic-write", "flushes-the-old-file", says="temporary one")
def flush_the_wrong_one(disk, name, content):
    disk.write(name + "~", content)
    disk.flush(name)
    disk.rename(name + "~", name)


@wrong("atomic-write", "deletes-the-old-first", says="no file at all")
def make_room_first(disk, name, content):
    disk.write(name + ".tmp", content)
    disk.flush(name + ".tmp")
    disk.delete(name)
    disk.rename(name + ".tmp", name)


@wrong("atomic-write", "temporary-elsewhere", says="another disk")
def in_the_temporary_folder(disk, name, content):
    disk.write("/tmp/new", content)
    disk.flush("/tmp/new")
    disk.rename("/tmp/new", name)


@wrong("atomic-write", "leaves-the-temporary", says="left on the disk")
def keeps_a_backup(disk, name, content):
    disk.write(name + ".tmp", content)
    disk.flush(name + ".tmp")
    disk.rename(name + ".tmp", name)
    disk.write(name + ".copy", content)


@fails("atomic-write", says="KeyError")
def renames_the_wrong_name(disk, name, content):
    disk.write(name + ".tmp", content)
    disk.rename(name + ".temp", name)


@right("damaged-file")
def size_first(files, manifest):
    for name, entry in manifest.items():
        data = files.get(name, "").encode()
        if name not in files or len(data) != entry["size"]:
            return name
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            return name
    return None


@wrong("damaged-file", "size-only", says="flipped byte")
def by_size(files, manifest):
    for name, entry in manifest.items():
        if name not in files or len(files[name].encode()) != entry["size"]:
            return name
    return None


@wrong("damaged-file", "skips-the-missing", says="gone")
def those_that_are_there(files, manifest):
    for name, entry in manifest.items():
        if name not in files:
            continue
        if hashlib.sha256(files[name].encode()).hexdigest() != entry["sha256"]:
            return name
    return None


@wrong("damaged-file", "goes-through-the-files", says="through the manifest")
def every_file(files, manifest):
    for name, content in files.items():
        sums = manifest.get(name, {"sha256": None})
        if hashlib.sha256(content.encode()).hexdigest() != sums["sha256"]:
            return name
    return None


@wrong("damaged-file", "digest-as-bytes", says="hexdigest")
def bytes_and_text(files, manifest):
    for name, entry in manifest.items():
        if hashlib.sha256(files.get(name, "").encode()).digest() != entry["sha256"]:
            return name
    return None


@wrong("damaged-file", "only-the-first", says="only after all")
def return_too_early(files, manifest):
    for name, entry in manifest.items():
        if hashlib.sha256(files[name].encode()).hexdigest() != entry["sha256"]:
            return name
        return None
    return None


@wrong("damaged-file", None, says="expected")
def the_last_damaged(files, manifest):
    found = None
    for name, entry in manifest.items():
        if hashlib.sha256(files.get(name, "").encode()).hexdigest() != entry["sha256"]:
            found = name
    return found


def number(folder):
    return int(folder["name"].split("-")[1])


@right("newest-checkpoint")
def sound_and_highest(folders):
    sound = sorted((f for f in folders if f["sound"]), key=number)
    return sound[-1]["name"] if sound else None


@wrong("newest-checkpoint", "sorts-as-text", says="as text")
def last_by_name(folders):
    names = sorted(f["name"] for f in folders if f["sound"])
    return names[-1] if names else None


@wrong("newest-checkpoint", "highest-even-if-damaged", says="is damaged")
def highest(folders):
    return sorted(folders, key=number)[-1]["name"]


@wrong("newest-checkpoint", "last-written", says="copied or restored")
def by_time(folders):
    sound = sorted((f for f in folders if f["sound"]), key=lambda f: f["modified"])
    return sound[-1]["name"] if sound else None


@wrong("newest-checkpoint", "gives-up", says="an older one is sound")
def only_the_highest(folders):
    best = max(folders, key=number)
    if best["sound"]:
        return best["name"]
    return None


@wrong("newest-checkpoint", "one-bad-spoils-all", says="does not spoil")
def all_or_nothing(folders):
    if not all(f["sound"] for f in folders):
        return None
    return max(folders, key=number)["name"]


@wrong("newest-checkpoint", "oldest", says="oldest sound one")
def ascending(folders):
    for folder in sorted(folders, key=number):
        if folder["sound"]:
            return folder["name"]
    return None


@wrong("newest-checkpoint", None, says="expected")
def the_number(folders):
    sound = [number(f) for f in folders if f["sound"]]
    return max(sound) if sound else None


@wrong("ulps-apart", "wraps-around", says="wraps around")
def in_int32(a, b):
    def place(x):
        bits = x.view(torch.int32)
        return torch.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))

    return (place(a) - place(b)).abs().item()


@wrong("share-of-the-batch", "ranks-reversed", says="from the other end")
def last_rank_first(step, batch_size, rank, processes):
    share = batch_size // processes
    first = step * batch_size + (processes - 1 - rank) * share
    return list(range(first, first + share))


@wrong("atomic-write", "moves-the-old-away", says="leaves no file")
def keeps_a_bak(disk, name, content):
    disk.write(name + ".tmp", content)
    disk.flush(name + ".tmp")
    disk.rename(name, name + ".bak")
    disk.rename(name + ".tmp", name)


@wrong("atomic-write", "arguments-swapped", says="the name first")
def content_first(disk, name, content):
    disk.write(content, name)
    disk.flush(content)
    disk.rename(content, name)


@wrong("atomic-write", "arguments-swapped", says="rename(old, new)")
def new_name_first(disk, name, content):
    disk.write(name + ".tmp", content)
    disk.flush(name + ".tmp")
    disk.rename(name, name + ".tmp")


@wrong("atomic-write", "neither-old-nor-new", says="['', 'the ne']")
def writes_after_the_flush(disk, name, content):
    temporary = name + ".tmp"
    disk.write(temporary, "")
    disk.flush(temporary)
    disk.write(temporary, content)
    disk.rename(temporary, name)


@wrong("damaged-file", "another-sum", says="md5")
def another_hash(files, manifest):
    for name, entry in manifest.items():
        if hashlib.md5(files.get(name, "").encode()).hexdigest() != entry["sha256"]:
            return name
    return None


@wrong("damaged-file", "sound-files-damaged", says="numbers of bytes")
def sum_of_the_name(files, manifest):
    for name, entry in manifest.items():
        if hashlib.sha256(name.encode()).hexdigest() != entry["sha256"]:
            return name
    return None


@wrong("damaged-file", "characters-for-bytes", says="5 characters and 6 bytes")
def length_of_the_text(files, manifest):
    for name, entry in manifest.items():
        if name not in files or len(files[name]) != entry["size"]:
            return name
        if hashlib.sha256(files[name].encode()).hexdigest() != entry["sha256"]:
            return name
    return None


@wrong("newest-checkpoint", "last-of-the-list", says="in any order")
def last_sound_one(folders):
    found = None
    for folder in folders:
        if folder["sound"]:
            found = folder["name"]
    return found
