"""Promises of the search among hashes: what it finds is what comparing with all finds."""

import numpy as np
import pytest

from hoi_assets.near_hashes import NearHashes


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 4, 5, 6, 12, 64])
def test_finds_what_comparing_with_all_finds(distance: int) -> None:
    rng = np.random.default_rng(distance)
    centres = rng.integers(0, 1 << 63, 40, dtype=np.uint64)
    # Around few centres, so that there is much to find, at every distance.
    flips = [int(rng.integers(0, 9)) for _ in range(3000)]
    added = []
    for number in flips:
        bits = int(rng.choice(centres))
        for place in rng.choice(64, number, replace=False):
            bits ^= 1 << int(place)
        added.append(bits)
    hashes = NearHashes(distance)
    every = np.array(added, dtype=np.uint64)
    for number, bits in enumerate(added):
        if number % 20 == 0:
            apart = np.bitwise_count(every[:number] ^ np.uint64(bits))
            assert hashes.near(bits).tolist() == np.flatnonzero(apart <= distance).tolist()
        hashes.add(bits)
