"""Which of many 64-bit hashes lie within a few bits of a given one, without looking at all.

Hashes are cut into three chunks. Two that differ in at most five bits differ in at most one bit of
some chunk, so only hashes with such a chunk are compared: the work for one hash hardly grows with
their number. Memory: 20 bytes a hash.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

CHUNKS = ((0, 21), (21, 21), (42, 22))  # first bit, bits
# Where each chunk's values begin in one array of all.
STARTS = np.cumsum([0, *(1 << bits for _, bits in CHUNKS[:-1])])
# From here on the chunks' neighbours are more than it is worth; all hashes are compared.
MAX_RADIUS = 1
FIRST_ROOM = 1024
NONE = -1


class NearHashes:
    """Hashes in the order in which they were added.

    Args:
        distance: 0..64 bits.

    Example:
        >>> hashes = NearHashes(2)
        >>> for bits in (0b0000, 0b1111, 0b0011):
        ...     hashes.add(bits)
        >>> hashes.near(0b0001).tolist()
        [0, 2]
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        self._radius = distance // len(CHUNKS)
        self._size = 0
        self._hashes = np.zeros(FIRST_ROOM, dtype=np.uint64)
        # Chains: the last hash of each chunk's value, and for each hash the one before it.
        self._indexed = self._radius <= MAX_RADIUS
        values = sum(1 << bits for _, bits in CHUNKS) if self._indexed else 0
        self._last = np.full(values, NONE, dtype=np.int32)
        self._before = np.full((FIRST_ROOM, len(CHUNKS)), NONE, dtype=np.int32)
        flips = [_flips(bits, self._radius) for _, bits in CHUNKS] if self._indexed else []
        self._flips = np.concatenate(flips) if flips else np.empty(0, dtype=np.int64)
        self._chunk_of_flip = np.repeat(np.arange(len(flips)), [len(own) for own in flips])

    def add(self, bits: int) -> None:
        """Add a hash; its number is how many were added before."""
        number = self._size
        if number == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._before = np.concatenate([self._before, np.full_like(self._before, NONE)])
        self._hashes[number] = bits
        if self._indexed:
            for chunk, value in enumerate(_chunks(bits)):
                place = value + STARTS[chunk]
                self._before[number, chunk] = self._last[place]
                self._last[place] = number
        self._size += 1

    def near(self, bits: int) -> NDArray[np.int64]:
        """Numbers of the hashes within the distance, ascending."""
        hashes = self._hashes[: self._size]
        if not self._indexed:
            apart = np.bitwise_count(hashes ^ np.uint64(bits))
            return np.flatnonzero(apart <= self._distance)
        chunks = self._chunk_of_flip
        values = np.array(_chunks(bits), dtype=np.int64)[chunks] ^ self._flips
        numbers = self._last[values + STARTS[chunks]]
        found = []
        # All chains at once, a link at a time.
        while (alive := np.flatnonzero(numbers != NONE)).size:
            numbers, chunks = numbers[alive], chunks[alive]
            found.append(numbers)
            numbers = self._before[numbers, chunks]
        if not found:
            return np.empty(0, dtype=np.int64)
        candidates = np.concatenate(found)
        apart = np.bitwise_count(hashes[candidates] ^ np.uint64(bits))
        return np.unique(candidates[apart <= self._distance]).astype(np.int64)


def _chunks(bits: int) -> list[int]:
    """The value of each chunk."""
    return [(bits >> first) & ((1 << count) - 1) for first, count in CHUNKS]


def _flips(bits: int, radius: int) -> NDArray[np.int64]:
    """All patterns of at most `radius` bits out of `bits`."""
    return np.array(
        [
            sum(1 << place for place in places)
            for flipped in range(radius + 1)
            for places in combinations(range(bits), flipped)
        ],
        dtype=np.int64,
    )
