"""Memory as a ledger: every tensor of an update is written down while it lives.

The estimate does not fit a formula to measurements. It plays an update through, operation by
operation, with tensors that know only their size. A tensor is freed when the last reference to it
goes, as PyTorch's are: both rest on Python's counting of references. So the simulated code keeps
a variable exactly as long as the real code keeps its tensor.
"""

from __future__ import annotations

from collections import defaultdict


class Held:
    """A tensor of which only the size matters; its bytes are live as long as it is referred to.

    Attributes:
        count: numbers in it.
        width: bytes of a number.
    """

    __slots__ = ("_bytes", "_kind", "_ledger", "count", "width")

    def __init__(self, ledger: Ledger, count: int, width: int, kind: str) -> None:
        self.count, self.width = count, width
        self._ledger, self._kind, self._bytes = ledger, kind, ledger.rounded(count * width)
        ledger.add(kind, self._bytes)

    def __del__(self) -> None:
        self._ledger.add(self._kind, -self._bytes)


class Ledger:
    """The bytes that live now, and when they were most.

    Args:
        grain: what the allocator hands out is a multiple of this many bytes.

    Attributes:
        moment: what the update is doing now, in words; set by who plays it.
        peak: the most bytes that lived at once.
        peak_moment: what the update was doing then.
        peak_parts: the bytes of each kind then; they add up to the peak.
        most: the most bytes of each kind at any time.
    """

    def __init__(self, grain: int = 1) -> None:
        self.grain = grain
        self.live: defaultdict[str, int] = defaultdict(int)
        self.most: defaultdict[str, int] = defaultdict(int)
        self.total = self.peak = 0
        self.moment = self.peak_moment = ""
        self.peak_parts: dict[str, int] = {}

    def rounded(self, size: int) -> int:
        """Return the bytes that the allocator takes for `size` bytes."""
        return -(-size // self.grain) * self.grain

    def hold(self, count: int, width: int, kind: str = "activations") -> Held:
        """Make a tensor of `count` numbers of `width` bytes."""
        return Held(self, count, width, kind)

    def add(self, kind: str, size: int) -> None:
        """Count bytes that came to life, or died."""
        self.live[kind] += size
        self.total += size
        self.most[kind] = max(self.most[kind], self.live[kind])
        if self.total > self.peak:
            self.peak, self.peak_moment = self.total, self.moment
            self.peak_parts = {name: held for name, held in self.live.items() if held}
