import time

import pytest
import yaml

from etude.settings.yaml_text import problem_of, read_yaml, write_yaml


def test_yaml_numbers_are_read_as_written():
    text = "{n: 12, minus: -3, big: 1_000, hex: 0x1F, rate: 1e-5, half: .5, one: 1., code: 010, time: 1:30, day: 2024-01-02, yes: true}"
    assert read_yaml(text) == {
        **{"n": 12, "minus": -3, "big": 1000, "hex": 31, "rate": 1e-5, "half": 0.5, "one": 1.0},
        **{"code": "010", "time": "1:30", "day": "2024-01-02", True: True},
    }
    assert read_yaml("") is None


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' is given twice, in line 1 too: give it once", 3),
        ("a:\n  b: 1\n  b: 1\n", "'b' is given twice, in line 2 too", 3),
        ("a: &a [*a]", "an alias that holds itself", 1),
        ("a: [1,\nb", "expected ',' or", 2),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor", 1),
        ("[" * 50_000, "more than 100 levels within each other", 1),
        ("x" * 1_000_001, "1,000,001 characters, at most 1,000,000 are read", None),
    ],
)
def test_errors_name_the_line(text, problem, line):
    with pytest.raises(yaml.YAMLError) as error:
        read_yaml(text)
    words, found = problem_of(error.value)
    assert problem in words and found == line


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory():
    rows = ["a0: &a0 [" + ",".join("x" * 10) + "]"]
    rows += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    long = f"long: &long {'x' * 900_000}\nmany: [{','.join(['*long'] * 1000)}]"
    start = time.perf_counter()
    for text in ("\n".join(rows), long):
        with pytest.raises(yaml.YAMLError, match="characters where aliases repeat them"):
            read_yaml(text)
    assert time.perf_counter() - start < 5


def test_a_merge_key_may_be_followed_by_what_it_brings():
    assert read_yaml("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b}")["c"] == {"x": 3, "y": 2}


@pytest.mark.parametrize("value", ["1e-5", "010", "1:30", "2024-01-02", "no", "12", "", "a: b", 1e-5, 3, None, True, ["010", {"x": "1E3"}]])
def test_written_yaml_reads_back_the_same_here_and_in_pyyaml(value):
    text = write_yaml({"it": value})
    assert read_yaml(text) == yaml.safe_load(text) == {"it": value}
