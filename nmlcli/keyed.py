"""Draws keyed by (seed, purpose, index): the only source of randomness that decides a product.

A key is a 64-bit hash of what is drawn for, so a draw depends neither on the order of rows, nor on
blocks, workers or platform, and drawing for one sample never moves the draw of another. All
arithmetic is on unsigned 64-bit integers modulo 2^64.
"""

import hashlib
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

VERSION = 1  # part of every derived constant: another scheme must not pass unseen

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def hash_ids(ids: Iterable[str]) -> Keys:
    """Hash sample ids, seed-free: the first eight bytes (little-endian) of SHA-256 of the UTF-8.

    Returns uint64 [N]. Ids are always text, so a column 0,1,2… and default row numbers agree.
    """
    digests = b"".join(hashlib.sha256(i.encode("utf-8", "surrogateescape")).digest()[:8] for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def hash_rows(start: int, stop: int) -> Keys:
    """Stand-ins for id hashes where a draw is for a row or step number: uint64 [stop - start]."""
    return np.arange(start, stop, dtype=np.uint64)


def constants(seed: int, purpose: str) -> tuple[int, int]:
    """Two 64-bit constants for a purpose, from SHA-256 of a versioned text."""
    text = f"nml keys {VERSION}\nseed {seed}\npurpose {purpose}\n"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def scalar(seed: int, purpose: str) -> int:
    """One 63-bit number for a purpose, to seed a generator of another library."""
    return constants(seed, purpose)[0] >> 1


def mix(state: Keys) -> Keys:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), elementwise."""
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def keys(hashes: Keys, seed: int, purpose: str) -> Keys:
    """Keys for a purpose, uint64 [N] from id hashes or row numbers [N]; uniform over 64 bits."""
    a, b = constants(seed, purpose)
    hashes = np.atleast_1d(hashes)  # array arithmetic wraps silently, scalar arithmetic warns
    return mix(mix(hashes * _GOLDEN + np.uint64(a)) ^ np.uint64(b))


def below(key: Keys, bound: int | NDArray[np.uint64]) -> NDArray[np.int64]:
    """Integers in [0, bound) from keys [N]; bias at most bound / 2^32."""
    return (((key >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def uniforms(key: Keys) -> NDArray[np.float64]:
    """Floats in [0, 1) from keys [N]: the upper 53 bits, so exact on every platform."""
    return (key >> np.uint64(11)).astype(np.float64) * 2.0**-53


def threshold(ratio: Fraction) -> int:
    """The key below which a Bernoulli draw of this ratio is a hit; 2^64 for ratio 1."""
    return int(ratio * 2**64)


def permutation(count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """A permutation of range(count), int64, decided by the purpose alone."""
    return np.argsort(keys(hash_rows(0, count), seed, purpose), kind="stable").astype(np.int64)
