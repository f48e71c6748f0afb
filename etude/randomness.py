"""Counter-based random numbers: the same names give the same numbers, whatever was sampled before.

A key is a 64-bit hash of a run's seed and any names (step, task, attempt). `uniforms` turns keys and a position into numbers in [0, 1) by
SplitMix64 (Steele et al. 2014, the finaliser of MurmurHash3 variant 13), so an attempt does not depend on the batch in which it is decoded
or on what else is sampled.
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def seed_for(*names: object) -> int:
    """Return a 64-bit seed from any printable names; `seed_for(1, 23)` and `seed_for(12, 3)` differ."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniforms(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return one number in [0, 1) for each (key, position); keys and positions are integer arrays of one shape."""
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64) + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
