import json
import sys
from dataclasses import replace
from itertools import islice

import pytest

from etude.errors import UserError
from etude.tasks.families import family_names, load_family, sample_entries
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tasks.verifiers import reasoning_gym

FAMILIES = [
    "acre",
    "arc_agi",
    "base_conversion",
    "binary_matrix",
    "chain_sum",
    "count_bits",
    "countdown",
    "dice",
    "game_of_life",
    "gcd",
    "letter_counting",
]
FAMILIES += ["n_queens", "number_format", "number_sorting", "pool_matrix", "simple_equations", "simple_integration", "spell_backward"]
FAMILIES += ["spiral_matrix", "string_insertion", "word_ladder", "word_sorting"]


def draw(family, n=3, split="train", seed=0, **parameters):
    return load_tasks(TaskSource(family=family, parameters=parameters), split=split, n=n, seed=seed)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a data file that a dependency leaves open
@pytest.mark.parametrize("family", FAMILIES)
def test_every_gold_answer_is_right_and_survives_json(family):
    for task in draw(family):
        task = Task(task.prompt, task.answer, metadata=json.loads(json.dumps(task.metadata)))
        assert reasoning_gym(task.answer, task).score == 1.0
        assert reasoning_gym("", task).parts["parsable"] == 0.0


@pytest.mark.parametrize("family", ["chain_sum", "count_bits", "gcd", "simple_equations"])
def test_a_near_miss_earns_nothing_though_the_source_gives_a_part(family):
    task = draw(family)[0]
    reward = reasoning_gym(task.answer + "0", task)
    assert (reward.score, reward.parts["parsable"]) == (0.0, 1.0)
    assert 0.0 < reward.parts["source_score"] < 1.0
    assert reasoning_gym("a guess", task).parts == {"parsable": 0.0}


def test_the_answer_after_a_marker_is_scored():
    task = draw("gcd")[0]
    assert reasoning_gym(f"We divide. The answer is {task.answer}.", task).score == 1.0
    assert reasoning_gym(f"We divide and get {task.answer}", task).score == 0.0


def test_sorted_numbers_must_be_the_questions_own():
    task = draw("number_sorting", min_decimals=0, max_decimals=0)[0]
    numbers = [float(number) for number in task.metadata["entry"]["metadata"]["sorted_numbers"]]
    others = str([str(number + 0.5) for number in numbers])
    reward = reasoning_gym(others, task)
    assert reward.parts["source_score"] == 1.0
    assert reward.score == 0.0
    assert reasoning_gym(", ".join(map(str, numbers)), task).parts["parsable"] == 0.0


def test_a_value_above_24_does_not_solve_the_24_puzzle():
    task = draw("puzzle24")[0]
    task.metadata["entry"]["metadata"]["numbers"] = [1, 2, 7, 7]
    assert reasoning_gym("7*7/2*1", task).parts["source_score"] == 1.0  # the source cuts 24.5 down
    assert reasoning_gym("7*7/2*1", task).score == 0.0


def test_four_other_numbers_do_not_solve_the_24_puzzle():
    task = draw("puzzle24")[0]
    numbers = sorted(task.metadata["entry"]["metadata"]["numbers"])
    wrong = "6*4*1*1" if numbers != [1, 1, 4, 6] else "8*3*1*1"
    assert reasoning_gym(wrong, task).score == 0.0


@pytest.mark.parametrize("family", ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion"])
def test_a_call_without_a_bracket_is_never_run_either(family, tmp_path):
    path, task = tmp_path / "written", draw(family)[0]
    name = family.title().replace("_", "") + "Config"
    call = rf'[{name}["open\x28\x27{path}\x27, \x27w\x27\x29"] for {name}.__class_getitem__ in [eval]]'
    for gold in (task.answer, call):  # as a model's answer, and as a row's own
        assert reasoning_gym(call, replace(task, answer=gold)).score == 0.0
        assert not path.exists()


@pytest.mark.parametrize("family", ["countdown", "string_insertion", "spiral_matrix", "polynomial_multiplication", "simple_integration"])
@pytest.mark.parametrize("attack", ["open('{path}', 'w') and 0", "[open('{path}', 'w')]", "().__class__", "exec(chr(49))", "eval(input())"])
def test_code_in_an_answer_is_never_run(family, attack, tmp_path):
    path = tmp_path / "written"
    assert reasoning_gym(attack.format(path=path), draw(family)[0]).score == 0.0
    assert not path.exists()


EVALUATED = {
    "number_sorting": ("answer",),
    "polynomial_multiplication": ("answer",),
    "bitwise_arithmetic": ("metadata", "problem"),
    "simple_integration": ("metadata", "integrand"),
    "intermediate_integration": ("metadata", "integrand"),
}


@pytest.mark.parametrize("family", EVALUATED)
def test_code_in_an_entry_is_never_run(family, tmp_path):
    path = tmp_path / "written"
    for task in draw(family, n=20):
        assert reasoning_gym(task.answer, task).score == 1.0
    entry = task.metadata["entry"]
    *outer, name = EVALUATED[family]
    (entry[outer[0]] if outer else entry)[name] = f"[str(open('{path}', 'w'))]"
    reward = reasoning_gym(task.answer, task)
    assert reward.score is None and "is not plain arithmetic or data" in reward.message
    assert not path.exists()


def test_items_are_distinct_and_a_larger_draw_begins_with_the_smaller():
    small, large = draw("gcd", n=50), draw("gcd", n=400)
    assert [task.key for task in large[:50]] == [task.key for task in small]
    assert len({task.key for task in large}) == 400


@pytest.mark.parametrize(("first", "second"), [(("train", 0), ("test", 0)), (("train", 0), ("train", 1)), (("train", 1), ("test", 0))])
def test_splits_and_neighbouring_seeds_share_no_items(first, second):
    keys = [{task.key for task in draw("simple_equations", n=300, split=split, seed=seed)} for split, seed in (first, second)]
    assert not keys[0] & keys[1]


def test_the_question_can_be_put_in_other_words():
    source = TaskSource(family="number_sorting", question="Sort in {direction} order: {original_numbers}", worked_format="Sorted: {answer}")
    task = load_tasks(source, split="train", n=1, seed=0)[0]
    assert task.prompt.startswith("Sort in ") and "[" not in task.prompt
    assert task.worked == f"Sorted: {task.answer}"
    with pytest.raises(UserError, match=r"unknown field in question 'directon': did you mean 'direction'\? Choices: .*original_numbers"):
        load_family("number_sorting", {}, split="train", n=1, seed=0, question="{directon}")


def test_enumerated_parameters_are_given_by_their_text():
    words = draw("word_sorting", transformation="lowercase")[0].answer
    assert words == words.lower()
    with pytest.raises(UserError, match="did you mean 'lowercase'"):
        draw("word_sorting", transformation="lowercse")


def test_a_family_without_enough_items_says_so():
    with pytest.raises(UserError, match=r"family 'chain_sum' has too few distinct items: \d+ in \d+ draws, asked for n=300"):
        draw("chain_sum", n=300, min_terms=2, max_terms=2, min_digits=1, max_digits=1)


@pytest.mark.parametrize(
    ("family", "parameters", "message"),
    [
        ("chain_sun", {}, "unknown family 'chain_sun': did you mean 'chain_sum'"),
        ("composite", {}, "unknown family 'composite'"),
        ("chain_sum", {"min_term": 2}, "unknown parameter of chain_sum 'min_term': did you mean 'min_terms'"),
        ("chain_sum", {"seed": 2}, "unknown parameter of chain_sum 'seed'"),
        ("chain_sum", {"min_terms": 0}, "^parameters of family 'chain_sum' are refused: min_terms must be positive"),
    ],
)
def test_unknown_families_and_parameters_are_refused(family, parameters, message):
    with pytest.raises(UserError, match=message):
        load_tasks(TaskSource(family=family, parameters=parameters), split="train", n=3, seed=0)


def test_raw_entries_never_end():
    assert len(list(islice(sample_entries("gcd", {}, split="train", seed=0), 600))) == 600
    assert {"chain_sum", "gcd"} <= set(family_names())


def test_a_family_without_its_package_is_refused_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"need the package reasoning_gym: pip install 'etude\[gym\]'"):
        load_family("gcd", {}, split="test", n=3, seed=0)
    assert len(load_family("instructions", {}, split="test", n=3, seed=0)) == 3
