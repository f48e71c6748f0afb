import random
import time

import pytest

from etude.errors import UserError
from etude.tasks.answers import answer_form, final_answer, parse_list
from etude.tasks.family_scores import decode, encode
from etude.tasks.numbers import find_numbers
from etude.tasks.task import Task
from etude.tasks.verifiers import CHEAP, VERIFIERS, check_gold, verifier_named


def verdict(verifier, gold, text, **metadata):
    return VERIFIERS[verifier](text, Task("question", gold, verifier, metadata=metadata))


NUMERIC = [
    ("1", "1.0", 1.0),
    ("1", "10", 0.0),
    ("10", "1", 0.0),
    ("1000", "1,000", 1.0),
    ("1,000", "It costs 1000.", 1.0),
    ("0.75", "3/4", 1.0),
    ("3/4", "0.75", 1.0),
    ("1.5", "1 1/2 cups", 1.0),
    ("-5", "x = -5", 1.0),
    ("-5", "\u22125", 1.0),
    ("5", "-5", 0.0),
    ("3", "5-3 = 2, then 5 - 2 = 3", 1.0),
    ("18", "$18", 1.0),
    ("18", "The answer is $18 per day.", 1.0),
    ("50", "50%", 1.0),
    ("5", "5kg", 1.0),
    ("12", "12.", 1.0),
    ("1e3", "1000", 1.0),
    ("7", "12 - 5 = 7", 1.0),
    ("7", "The answer is 7. I checked it 3 times.", 1.0),
    ("7", "The answer is 5. No: the answer is 7", 1.0),
    ("10", "answer: 3 + 7 = 10", 1.0),
    ("12", "so #### 12", 1.0),
    ("12", "#### 12\nQuestion: what is 3?", 1.0),
    ("2.5", "2.5000001", 1.0),
    ("2.5", "2.51", 0.0),
    ("1/3", "0.3333333", 0.0),
    ("31", "0x1F", 0.0),
    ("2", "x2", 0.0),
    ("1", "1e9999999999", 0.0),
]


@pytest.mark.parametrize(("gold", "text", "score"), NUMERIC)
def test_numeric_compares_numbers_and_not_their_writing(gold, text, score):
    assert verdict("numeric", gold, text).score == score


@pytest.mark.parametrize("text", ["", "no idea", "5 or 6", "5-10", "between 5 and 10", "The answer is 5 or 6", "1/0", "-$-5", "1" * 1000])
def test_numeric_finds_no_single_number_in_words_ranges_and_nonsense(text):
    result = verdict("numeric", "5", text)
    assert (result.score, result.parts["parsable"]) == (0.0, 0.0)
    assert "number" in result.message


def test_a_wrong_number_is_parsable_and_told_of():
    result = verdict("numeric", "1", "10")
    assert result.parts["parsable"] == 1.0
    assert result.message == "got 10, expected 1"
    assert verdict("numeric", "1", "none").message == "no number in the answer"


EXACT = [
    ("Paris", "paris", 1.0, 1.0),
    ("Paris", ' "Paris." ', 1.0, 1.0),
    ("Paris", "The answer is **Paris**.", 1.0, 1.0),
    ("New York", "new   york", 1.0, 1.0),
    ("Paris", "It is Paris", 0.0, 0.0),
    ("1", "10", 0.0, 1.0),
    ("-5", "5", 0.0, 1.0),
    (".5", "5", 0.0, 1.0),
    ("[1, 2]", "[1,2]", 1.0, 1.0),
    ("['a', 'b']", '["a", "b"]', 1.0, 1.0),
    ("[1, 2]", "[2, 1]", 0.0, 1.0),
    ("[1, 2]", "1, 2", 0.0, 0.0),
    ("Paris", "", 0.0, 0.0),
    ("0 1\n1 0", "#### 0 1\n1 0", 1.0, 1.0),
]


@pytest.mark.parametrize(("gold", "text", "score", "parsable"), EXACT)
def test_exact_forgives_case_space_and_punctuation_only(gold, text, score, parsable):
    result = verdict("exact", gold, text)
    assert (result.score, result.parts["parsable"]) == (score, parsable)


CHOICE = [
    ("B", 1.0, 1.0),
    ("b", 1.0, 1.0),
    ("(B)", 1.0, 1.0),
    ("B.", 1.0, 1.0),
    ("**B**", 1.0, 1.0),
    ("B) a pear", 1.0, 1.0),
    ("The answer is B", 1.0, 1.0),
    ("Answer: option (B).", 1.0, 1.0),
    ("A pear.", 1.0, 1.0),
    ("A", 0.0, 1.0),
    ("A or B", 0.0, 0.0),
    ("A, B", 0.0, 0.0),
    ("(A) or (B)", 0.0, 0.0),
    ("B. a stone", 0.0, 0.0),
    ("D", 0.0, 0.0),
    ("", 0.0, 0.0),
    ("Because of the weather", 0.0, 0.0),
]


@pytest.mark.parametrize(("text", "score", "parsable"), CHOICE)
def test_choice_takes_one_letter_or_one_text(text, score, parsable):
    result = verdict("choice", "B", text, choices=["a stone", "a pear", "a chair"])
    assert (result.score, result.parts["parsable"]) == (score, parsable)


def test_choice_works_without_the_texts_of_the_choices():
    assert verdict("choice", "B", "B. whatever it is").score == 1.0
    assert verdict("choice", "B", "A or B").parts["parsable"] == 0.0
    assert verdict("choice", "B", "B. or C.").parts["parsable"] == 0.0


@pytest.mark.parametrize(
    ("gold", "text", "score"),
    [
        ("1/2", "0.5", 1.0),
        ("x+1", "$1+x$", 1.0),
        ("x+1", "The answer is 1 + x", 1.0),
        (r"\frac{3}{4}", r"\boxed{0.75}", 1.0),
        ("10", "1", 0.0),
    ],
)
def test_math_compares_expressions(gold, text, score):
    assert verdict("math", gold, text).score == score


def test_math_is_not_parsable_without_an_expression():
    assert verdict("math", "12", "hello world").parts["parsable"] == 0.0


@pytest.mark.parametrize("verifier", ["exact", "numeric", "choice", "math"])
def test_a_task_without_a_gold_answer_is_unscored(verifier):
    assert VERIFIERS[verifier]("5", Task("question")).score is None


def hostile_texts():
    size = 1_000_000
    seeds = [
        "1",
        "1,000,",
        "a1 ",
        "answer is ",
        "answer is\n",
        "[",
        "[1,",
        "1 1/",
        "1/2/",
        "((B)",
        " ",
        "{",
        "\u2212",
        "1e",
        ".",
        "-1",
        "\ud800",
        "####",
    ]
    yield from (seed * (size // len(seed)) for seed in seeds)
    yield "1,000" * (size // 5) + "0"
    yield "[" + "-" * size + "1]"
    yield "[" * (size // 2) + "]" * (size // 2)


@pytest.mark.parametrize("verifier", sorted(CHEAP))
def test_a_megabyte_of_hostile_text_costs_little(verifier):
    tasks = [Task("question", gold, verifier) for gold in ("12", "[1, 2]", "B")]
    for text in hostile_texts():
        for task in tasks:
            start = time.perf_counter()
            VERIFIERS[verifier](text, task)
            assert time.perf_counter() - start < 5, text[:10]


@pytest.mark.parametrize("verifier", sorted(VERIFIERS))
def test_no_verifier_raises_on_arbitrary_text(verifier):
    draw = random.Random(7)
    parts = [
        "1",
        "-",
        "/",
        ",",
        ".",
        "e",
        "[",
        "]",
        "'",
        "{",
        "}",
        "(",
        ")",
        "the answer is",
        "####",
        "A",
        "B",
        " ",
        "\n",
        "\x00",
        "\ud83d",
        "é",
        "%",
    ]
    entry = {"question": "question", "answer": "12", "metadata": {}}
    task = Task("question", "12", verifier, metadata={"family": "chain_sum", "entry": entry})
    if verifier == "choice":
        task = Task("question", "B", verifier, metadata={"choices": ["1", "2"]})
    for _ in range(300 if verifier in CHEAP else 40):
        text = "".join(draw.choice(parts) for _ in range(draw.randrange(30)))
        result = VERIFIERS[verifier](text, task)
        assert result.score in (0.0, 1.0)
        assert result.parts["parsable"] in (0.0, 1.0)
        assert (result.message == "") == (result.score == 1.0)


@pytest.mark.parametrize(
    ("text", "form"), [("-1,000.5", "number"), ("3/4", "number"), ("['a']", "list"), ("[1, 2", "text"), ('{"a": 1}', "object")]
)
def test_forms_are_told_apart(text, form):
    assert answer_form(text) == form


def test_a_list_is_read_without_being_evaluated():
    assert parse_list("[1, 2.5, 'a', None]") == [1, 2.5, "a", None]
    assert parse_list("[print(1)]") is None
    assert parse_list("[" * 10_000 + "]" * 10_000) is None


def test_the_answer_behind_the_last_marker_is_the_final_one():
    assert final_answer("Answer: 5\nNo. The final answer is: 6.\nDone", "6") == "6"
    assert final_answer("The answer is 6. Answer:", "6") == "6"
    assert final_answer("  6 ", "6") == "6"


def test_numbers_know_where_they_stand():
    text = "from 1,000 to 2 3/4"
    assert [text[number.start : number.end] for number in find_numbers(text)] == ["1,000", "2 3/4"]


def test_check_gold_says_why_an_answer_cannot_be_read():
    assert check_gold(Task("question", "12", "numeric")) is None
    assert check_gold(Task("question", None, "numeric")) is None
    assert check_gold(Task("question", "twelve", "numeric")) == "no number in the gold answer 'twelve'"
    assert check_gold(Task("question", " ", "exact")) == "the gold answer is empty"
    assert "none of the choices" in check_gold(Task("question", "E", "choice", metadata={"choices": ["a stone", "a pear"]}))


def test_an_unknown_verifier_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown verifier 'numerc': did you mean 'numeric'"):
        verifier_named("numerc")


def test_an_entry_survives_json_with_its_tuples_and_integer_keys():
    entry = {"a": (1, (2, 3)), "b": {1: [None, (4,)]}, "c": {"d": 1.5}}
    assert decode(encode(entry)) == entry
