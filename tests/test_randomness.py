import numpy as np

from etude.randomness import seed_for, uniforms

MASK = 2**64 - 1


def split_mix(key, position):
    """SplitMix64's output number `position` from the state `key`, in Python integers."""
    z = (key + (position + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return ((z ^ (z >> 31)) >> 11) / 2**53


def test_uniforms_are_split_mix_64():
    keys = [0, 1, 1234567, 2**63, MASK, seed_for("a")]
    for position in (0, 1, 17, 100_000):
        got = uniforms(np.array(keys, dtype=np.uint64), np.full(len(keys), position))
        assert got.tolist() == [split_mix(key, position) for key in keys]
    assert int(split_mix(1234567, 0) * 2**53) == 6457827717110365317 >> 11  # the published first output for the seed 1234567


def test_a_number_depends_on_its_key_and_position_alone():
    keys, positions = np.array([5, 9, 5], dtype=np.uint64), np.array([3, 3, 4])
    together = uniforms(keys, positions)
    assert together.tolist() == [uniforms(keys[i : i + 1], positions[i : i + 1])[0] for i in range(3)]
    assert len(set(together.tolist())) == 3


def test_uniforms_are_uniform_over_keys_and_over_positions():
    count, bins = 20_000, 50
    hashed = np.array([seed_for(0, i) for i in range(count)], dtype=np.uint64)
    for keys, positions in (
        (hashed, np.zeros(count, dtype=int)),
        (np.arange(count, dtype=np.uint64), np.zeros(count, dtype=int)),
        (np.full(count, 7, dtype=np.uint64), np.arange(count)),
    ):
        numbers = uniforms(keys, positions)
        assert numbers.min() >= 0 and numbers.max() < 1
        observed = np.histogram(numbers, bins=bins, range=(0, 1))[0]
        chi_square = ((observed - count / bins) ** 2 / (count / bins)).sum()
        assert chi_square < 94  # the 99.99th percentile at 49 degrees of freedom
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03


def test_seeds_tell_names_apart():
    assert seed_for(1, 23) != seed_for(12, 3) != seed_for(1, 2, 3)
    assert seed_for("a", 0) == seed_for("a", 0)
    assert len({seed_for(run, step, task) for run in range(10) for step in range(10) for task in range(10)}) == 1000
    assert 0 <= seed_for() < 2**64
