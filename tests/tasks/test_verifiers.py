import random
import time
from fractions import Fraction

import pytest

from etude.errors import UserError
from etude.tasks.aliases import aliases_of, with_aliases
from etude.tasks.answers import answer_form, final_answer, parse_list
from etude.tasks.choices import read_choice
from etude.tasks.expressions import as_latex
from etude.tasks.family_scores import decode, encode
from etude.tasks.instructions.rules import RULES
from etude.tasks.numbers import find_numbers, write_number
from etude.tasks.task import Task
from etude.tasks.verifiers import CHEAP, VERIFIERS, check_gold, find_verifier


def reward(verifier, gold, text, **metadata):
    return VERIFIERS[verifier](text, Task("question", gold, verifier, metadata=metadata))


NUMERIC = [
    ("5", "The answer is 5. To check: 5 + 3 = 8.", 1.0),
    ("8", "The answer is 5. To check: 5 + 3 = 8.", 0.0),
    ("20", "The answer is $20, since 4 * 5 = 20", 1.0),
    ("7", "The answer is: in step 1, 3 + 4 = 7", 1.0),
    ("12", "The answer is 12, 3 more than before", 1.0),
    ("1", "1.0", 1.0),
    ("1", "10", 0.0),
    ("10", "1", 0.0),
    ("1,000", "It costs 1000.", 1.0),
    ("3/4", "0.75", 1.0),
    ("1.5", "1 1/2 cups", 1.0),
    ("-5", "\u22125", 1.0),
    ("5", "-5", 0.0),
    ("3", "5-3 = 2, then 5 - 2 = 3", 1.0),
    ("18", "The answer is $18 per day.", 1.0),
    ("50", "50%", 1.0),
    ("5", "5kg", 1.0),
    ("7", "12 - 5 = 7", 1.0),
    ("7", "The answer is 7. I checked it 3 times.", 1.0),
    ("7", "The answer is 5. No: the answer is 7", 1.0),
    ("10", "answer: 3 + 7 = 10", 1.0),
    ("12", "#### 12\nQuestion: what is 3?", 1.0),
    ("2.5", "2.5000001", 1.0),
    ("2.5", "2.51", 0.0),
    ("1/3", "0.3333333", 0.0),
    ("31", "0x1F", 0.0),
    ("2", "x2", 0.0),
    ("1", "1e9999999999", 0.0),
    ("3", "The answer is 12 = 3 * 4", 0.0),
    ("12", "The answer is 12 = 3 * 4 = 2 * 6", 1.0),
    ("10", "answer: 3 + 7 = 10. I checked it 3 times.", 1.0),
    ("10", "answer: 3 + 7 = 10 pens in 2 boxes", 1.0),
    ("5", "The answer is not 5 but 7", 0.0),
    ("7", "The answer is not 5 but 7", 1.0),
    ("7", "The answer is not 5 or 6 but 7", 1.0),
    ("-5", "The answer is x = \u2212 5.", 1.0),
    ("-5", "The answer is - 5", 1.0),
    ("- 5", "5", 0.0),
    ("-5", "The answer is 3 - 5", 0.0),
    ("5", "x - 5", 1.0),
]


@pytest.mark.parametrize(("gold", "text", "score"), NUMERIC)
def test_numeric_compares_numbers_and_not_their_writing(gold, text, score):
    assert reward("numeric", gold, text).score == score


JOINED = ["The answer is 3 + 4", "The answer is 7, 8 or 9", "The answer is 10^2", "The answer is 5 times 2", "so it is 3 + 4"]


@pytest.mark.parametrize(
    "text", ["", "no idea", "5 or 6", "5-10", "between 5 and 10", "The answer is 5 or 6", "1/0", "-$-5", "1" * 1000, *JOINED]
)
def test_numeric_finds_no_single_number_in_words_ranges_and_nonsense(text):
    result = reward("numeric", "5", text)
    assert (result.score, result.parts["parsable"]) == (0.0, 0.0)
    assert "number" in result.message


def test_a_wrong_number_is_parsable_and_quoted_in_the_feedback():
    result = reward("numeric", "1", "10")
    assert result.parts["parsable"] == 1.0
    assert result.message == "got 10, expected 1"
    assert reward("numeric", "1", "none").message == "no number in the answer"


EXACT = [
    ("Paris", "paris", 1.0, 1.0),
    ("Paris", ' "Paris." ', 1.0, 1.0),
    ("Paris", "The answer is **Paris**.", 1.0, 1.0),
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
    ("Answer: yes", "Answer: yes", 1.0, 1.0),
    ("Answer: 0 1\n1 0", "Answer: 0 1\n1 0", 1.0, 1.0),
]


@pytest.mark.parametrize(("gold", "text", "score", "parsable"), EXACT)
def test_exact_forgives_case_space_and_punctuation_only(gold, text, score, parsable):
    result = reward("exact", gold, text)
    assert (result.score, result.parts["parsable"]) == (score, parsable)


CHOICE = [
    ("B", 1.0, 1.0),
    ("(B)", 1.0, 1.0),
    ("**B**", 1.0, 1.0),
    ("B) a pear", 1.0, 1.0),
    ("The answer is B", 1.0, 1.0),
    ("Answer: option (B).", 1.0, 1.0),
    ("A pear.", 1.0, 1.0),
    ("A", 0.0, 1.0),
    ("A or B", 0.0, 0.0),
    ("B. a stone", 0.0, 0.0),
    ("", 0.0, 0.0),
    ("Because of the weather", 0.0, 0.0),
    ("The answer is B because pears are fruit", 1.0, 1.0),
    ("The answer is B, a pear.", 1.0, 1.0),
    ("The answer is **B**; pears are fruit.", 1.0, 1.0),
    ("The answer is B. Pears are fruit.", 1.0, 1.0),
    ("The answer is A because stones are hard", 0.0, 1.0),
    ("I think the answer is a stone", 0.0, 1.0),
    ("The answer is A pear", 1.0, 1.0),
    ("The answer is A banana", 0.0, 0.0),
    ("The answer is B, a stone.", 0.0, 0.0),
    ("The answer is B or A", 0.0, 0.0),
    ("The answer is A or B", 0.0, 0.0),
    ("The answer is B or something", 0.0, 0.0),
    ("The answer is B, not A", 0.0, 0.0),
    ("The answer is D because it is", 0.0, 0.0),
    ("B because pears are fruit", 0.0, 0.0),
]


@pytest.mark.parametrize(("text", "score", "parsable"), CHOICE)
def test_choice_takes_one_letter_or_one_text(text, score, parsable):
    result = reward("choice", "B", text, choices=["a stone", "a pear", "a chair"])
    assert (result.score, result.parts["parsable"]) == (score, parsable)


@pytest.mark.parametrize(("text", "letter"), [("TT", "A"), ("The answer is Tt.", "B"), ("tt", "C"), ("tT", None), ("C", "C")])
def test_choices_that_differ_in_case_only_are_told_apart(text, letter):
    assert read_choice(text, ["TT", "Tt", "tt"]) == letter


def test_choices_that_are_no_list_are_none():
    assert reward("choice", "B", "B", choices=None).score == 1.0


def test_choice_works_without_the_texts_of_the_choices():
    assert reward("choice", "B", "B. whatever it is").score == 1.0
    assert reward("choice", "B", "A or B").parts["parsable"] == 0.0
    assert reward("choice", "B", "B. or C.").parts["parsable"] == 0.0


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
    assert reward("math", gold, text).score == score


MATH_GOLDS = [
    ("sqrt(2)", r"$\sqrt{2}$", "sqrt(3)"),
    ("sqrt(2*(x+1))", r"\boxed{\sqrt{2x+2}}", "sqrt(2*x+1)"),
    ("sin(x)", r"$\sin(x)$", "cos(x)"),
    ("2sin(x)^2", r"$2\sin^2(x)$", "sin(x)^2"),
    ("log(8)", r"The answer is log(8).", "8"),
    ("ln(8)", r"$\ln 8$", "log(8)"),
    ("x+abs(y)", r"$|y|+x$", "x+y"),
    ("abs(x+abs(y))", r"$|x+|y||$", "abs(x+y)"),
    ("3*exp(2)", r"$3e^2$", "3"),
    ("asin(x)", r"$\arcsin(x)$", "acos(x)"),
    ("2*pi*r", r"$2\pi r$", "2*r"),
    ("30 sec", "30", "3"),
]


@pytest.mark.parametrize(("gold", "right", "wrong"), MATH_GOLDS)
def test_math_reads_plain_names_of_functions(gold, right, wrong):
    assert check_math(gold, gold) == check_math(gold, right) == 1.0
    assert check_math(gold, wrong) == 0.0
    assert check_math(wrong, gold) == 0.0


def check_math(gold, text):
    return reward("math", gold, text).score


@pytest.mark.parametrize("gold", ["3*gamma(5)", "log2(8)", "sqrt2", "3*exp(2", "sqrt(2"])
def test_math_does_not_read_a_number_out_of_an_unknown_call(gold):
    assert reward("math", gold, "3").score is None
    assert reward("math", "3", gold).score == reward("math", "2", gold).score == reward("math", "5", gold).score == 0.0


def test_only_whole_plain_names_become_latex():
    assert as_latex("asin(x) + sqrt(abs(y))*pi") == r"\arcsin(x) + \sqrt{\left|y\right|}*\pi"
    for text in (r"\sin(x)", "using(x)", "pixel", "log2(8)", "30 sec", "sqrt(2"):
        assert as_latex(text) == text


@pytest.mark.parametrize(
    ("gold", "text", "score"),
    [
        ("the left ventricle", "The answer is Left Ventricle.", 1.0),
        ("the left ventricle", "It is the left one.", 2 * 1 / (4 + 2)),
        ("red red blood", "red blood blood", 2 * 2 / (3 + 3)),
        ("12", "It is 12.5", 0.0),
        ("a vein", "an artery", 0.0),
    ],
)
def test_the_words_verifier_scores_f1(gold, text, score):
    assert reward("words", gold, text).score == pytest.approx(score)


def test_an_answer_without_words_is_not_parsable():
    assert reward("words", "a vein", "The answer is: ...").parts["parsable"] == 0.0
    assert reward("words", "...", "a vein").score is None


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("It is the Pulsar.", "Yukon Optics; PULSAR", True),
        ("pulsars", "PULSAR", False),
        ("Mark wrote it, said Twain", "Mark Twain", False),
        ("In 1,900 or so", '["1,900"]', True),
        ("São Paulo", "S\u0061\u0303o Paulo", True),
        ("U.S.A.", "U.S.A.; United States", True),
        ("the one", "The; A", True),
        ("an A", "A", True),
        ("B", "A", False),
    ],
)
def test_a_text_is_right_that_says_one_of_the_answers_names(text, gold, right):
    found = reward("aliases", gold, text)
    assert (found.score == 1.0) == right, found.message


def test_a_name_without_words_counts_only_where_there_is_no_other():
    assert with_aliases(Task("Which animal?", "\U0001f981; Lion")).answer == "Lion"
    assert aliases_of(Task("Which?", "?!")) == ["?!"]


def test_an_alias_is_unscored_where_there_is_no_name_and_unparsable_without_words():
    assert reward("aliases", " ; ", "a vein").score is None
    assert reward("aliases", "a vein", " ?! ").parts["parsable"] == 0.0


def test_math_is_not_parsable_without_an_expression():
    assert reward("math", "12", "hello world").parts["parsable"] == 0.0


@pytest.mark.parametrize("verifier", ["exact", "numeric", "words", "aliases", "choice", "math"])
def test_a_task_without_a_gold_answer_is_unscored(verifier):
    assert VERIFIERS[verifier]("5", Task("question")).score is None


def hostile_texts():
    size = 1_000_000
    several = ["1,000,", "a1 ", "answer is ", "answer is\n", "[1,", "1 1/", "1/2/", "((B)", "1e", "-1", "####"]
    seeds = [*"1[ {\u2212.\ud800", *several]
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
    parts = [*"1-/,.e[]'{}()AB \n\x00\ud83dé%", "the answer is", "####"]
    entry = {"question": "question", "answer": "12", "metadata": {}}
    task = Task("question", "12", verifier, metadata={"family": "chain_sum", "entry": entry})
    if verifier == "choice":
        task = Task("question", "B", verifier, metadata={"choices": ["1", "2"]})
    if verifier == "instructions":
        rules = [{"kind": kind, "arguments": rule.sample(draw)} for kind, rule in RULES.items()]
        task = Task("question", None, verifier, metadata={"subject": "question", "rules": rules})
    if verifier == "code":
        task = Task("question", None, "code", metadata={"tests": ["assert answer == 12"]})
    for _ in range(300 if verifier in CHEAP else 40):
        text = "".join(draw.choice(parts) for _ in range(draw.randrange(30)))
        result = VERIFIERS[verifier](text, task)
        assert 0.0 <= result.score <= 1.0 if verifier in ("words", "instructions") else result.score in (0.0, 1.0)
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


def test_the_answer_after_the_last_marker_is_final():
    assert final_answer("Answer: 5\nNo. The final answer is: 6.\nDone", "6") == "6"
    assert final_answer("The answer is 6. Answer:", "6") == "6"
    assert final_answer("  6 ", "6") == "6"


def test_numbers_know_where_they_stand():
    text = "from 1,000 to 2 3/4"
    assert [text[number.start : number.end] for number in find_numbers(text)] == ["1,000", "2 3/4"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(10) ** 4995, "1e4995"),
        (-(Fraction(10) ** 100_000) * 3 / 2, "-1.5e100000"),
        (1 / Fraction(10) ** 999, "1e-999"),
        (Fraction(10) ** 5000 / 3, "3.3333333333333333e4999"),
        (Fraction(10) ** 399, "1" + "0" * 399),
    ],
)
def test_numbers_too_long_to_read_are_written_in_e_notation(value, text):
    assert write_number(value) == text


def test_a_written_number_is_read_back():
    for text in ("1e999", "12.5", "-1e-300", "7/3", "1.25e450"):
        (number,) = find_numbers(text)
        assert find_numbers(str(number))[0].value == number.value


def test_check_gold_says_why_an_answer_cannot_be_read():
    assert check_gold(Task("question", "12", "numeric")) is None
    assert check_gold(Task("question", None, "numeric")) is None
    assert check_gold(Task("question", "twelve", "numeric")) == "no number in the gold answer 'twelve'"
    assert check_gold(Task("question", " ", "exact")) == "the gold answer is empty"
    assert "none of the choices" in check_gold(Task("question", "E", "choice", metadata={"choices": ["a stone", "a pear"]}))


def test_an_unknown_verifier_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown verifier 'numerc': did you mean 'numeric'"):
        find_verifier("numerc")


def test_an_entry_survives_json_with_its_tuples_and_integer_keys():
    entry = {"a": (1, (2, 3)), "b": {1: [None, (4,)]}, "c": {"d": 1.5}}
    assert decode(encode(entry)) == entry
