"""Verifiers: pure functions (text, task) -> Verdict that score an answer. The table at the end names them.

| name | right is | form of the answer |
|---|---|---|
| `exact` | the same text but for case, spaces and surrounding punctuation | the gold answer's: number, list, object, word, text |
| `numeric` | the same number (`etude.tasks.numbers`) | one number |
| `words` | the same words; else the score is the F1 of the words in common | words |
| `aliases` | says one of the answer's names (`etude.tasks.aliases`), whatever stands around it | words |
| `choice` | the same choice, by letter or text | one choice |
| `math` | the same expression (math-verify, `etude.tasks.expressions`) | an expression |
| `reasoning_gym` | a full score from the source's own scorer (`etude.tasks.family_scores`) | the gold answer's |

Scores are 1 or 0, but for those of `words`, which lie between; right is 1 (`tasks.right_at` lowers it). A verifier of your own may give any
finite number (`etude.tasks.functions`).

`parts["parsable"]` is 1.0 where an answer of the expected form was found: it tells a model that does not know from one that does not
say. `exact`, `numeric`, `words`, `aliases` and `choice` need microseconds, read at most 20,000 characters in linear time and never raise.
`math` and `reasoning_gym` run other people's code, which may hang or raise: `etude.rewards.outcome` runs verifiers in a process that it
can kill.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from etude.errors import check_known, unknown
from etude.rewards.verdict import Verdict
from etude.rewards.words import of_another_form, quoted, read_as, shortened
from etude.tasks.aliases import aliases_of, find_alias, plain_words
from etude.tasks.answers import answer_form, final_answer, has_form_of, last_characters, marked_answer, normalise, parse_list, word_counts
from etude.tasks.choices import choices_of, read_choice
from etude.tasks.equations import find_wrong_equation
from etude.tasks.expressions import math
from etude.tasks.family_scores import reasoning_gym
from etude.tasks.function_check import check_function
from etude.tasks.functions import load_verifier
from etude.tasks.numbers import Number, find_numbers, is_range, same_number
from etude.tasks.task import Task

CHEAP = frozenset({"exact", "numeric", "words", "aliases", "choice"})
"""Verifiers that may run in any process: no foreign code, linear time."""

COMPARING = CHEAP | {"math"}
"""Verifiers that compare with a gold answer, so they cannot score a task without one."""

_NO_NUMBER = "no number in the answer"
_CLAUSE_END = re.compile(r"[.,;](?=\s)")
_OPERATOR = re.compile(r"[ ]?(?:[-+*/^\u2212\u00d7\u00f7\u00b7]|times\b|plus\b|minus\b)", re.IGNORECASE)
_BETWEEN_OPERANDS = re.compile(rf"{_OPERATOR.pattern}[ ]?", re.IGNORECASE)
_COMMA = re.compile(r",[ ]?")
_AT_ONCE = re.compile(r"[^\w\n]{0,8}\d")
_NOT = re.compile(r"\bnot\s{1,3}\Z", re.IGNORECASE)
_SIGN_APART = re.compile(r"(?:\A|=|\bis)[ \t]*(?P<sign>[-\u2212])[ \t]+\Z")


def exact(text: str, task: Task) -> Verdict:
    """Score 1.0 if the answer equals the gold answer except for case, spaces and surrounding punctuation; lists are compared item by item.

    >>> exact("The answer is paris.", Task("Capital of France?", "Paris")).score
    1.0
    """
    if task.answer is None:
        return _no_gold()
    gold = final_answer(task.answer, task.answer)  # a gold answer may have a marker of its own
    answer = final_answer(text, gold)
    items, gold_items = parse_list(answer), parse_list(gold)
    same = items == gold_items if items is not None and gold_items is not None else normalise(answer) == normalise(gold)
    if same or has_form_of(answer, gold):
        return _verdict(same, f"got {_short(answer)}, expected {_short(gold)}", _short(answer))
    return _unparsable(
        f"expected a {answer_form(gold)}, got {answer_form(answer)}: {_short(answer)}", of_another_form(last_characters(answer))
    )


def numeric(text: str, task: Task) -> Verdict:
    """Score 1.0 if the text's number equals the gold number: the first number after an answer marker, or else the last one of the text.

    After a marker, a number that begins the line counts (`5. To check: 5 + 3 = 8`), or else the last side of its `=` that holds one number.
    Numbers joined by `or`, `to`, `and`, a dash or an operator do not count, nor does a number after `not`. A sign may be separate from its
    digits if it cannot be a minus (`x = - 5`). For a wrong answer, the words name its first equation that does not hold.

    >>> numeric("3 + 7 = 10", Task("What is 3 + 7?", "10")).score, numeric("10", Task("What is 3 - 2?", "1")).score
    (1.0, 0.0)
    """
    if task.answer is None:
        return _no_gold()
    gold, _ = read_number(task.answer)
    if gold is None:
        return Verdict(None, message=f"no number in the gold answer {_short(task.answer)}")
    found, problem = read_number(text)
    if found is None:
        words = (
            "I found no number in your answer."
            if problem == _NO_NUMBER
            else f"I found no single number in your answer: {shortened(problem)}."
        )
        return _unparsable(problem, words)
    verdict = _verdict(same_number(found, gold), f"got {found}, expected {gold}", shortened(str(found)))
    wrong = "" if verdict.score else find_wrong_equation(text)
    return replace(verdict, words=f"{verdict.words} {quoted(wrong)} does not hold.") if wrong else verdict


def words(text: str, task: Task) -> Verdict:
    """Score the F1 of an answer's words, for free-form answers (SQuAD, Rajpurkar et al. 2016, arXiv 1606.05250).

    The text after the last answer marker counts, or else the whole text. Repetitions count; articles and punctuation do not.

    >>> words("the left ventricle", Task("Which chamber?", "Left ventricle")).score
    1.0
    """
    if task.answer is None:
        return _no_gold()
    said, gold = (word_counts(final_answer(each, task.answer)) for each in (text, task.answer))
    if not gold:
        return Verdict(None, message=f"no words in the gold answer {_short(task.answer)}")
    if not said:
        return _unparsable("no words in the answer", "I found no words in your answer.")
    f1 = 2 * (said & gold).total() / (said.total() + gold.total())
    if f1 == 1:
        return _verdict(True, "", "")
    read = _short(final_answer(text, task.answer))
    return Verdict(f1, {"parsable": 1.0}, message=f"got {read}, expected {_short(task.answer)}", words=read_as(read))


def aliases(text: str, task: Task) -> Verdict:
    """Score 1.0 if the text contains one of the accepted names, anywhere: a text that names many things is right more often.

    >>> aliases("I think that it was Twain, Mark Twain.", Task("Who?", "Samuel Clemens; Mark Twain")).score
    1.0
    """
    if task.answer is None:
        return _no_gold()
    names = aliases_of(task)
    if not names:
        return Verdict(None, message=f"no name in the gold answer {_short(task.answer)}")
    if not plain_words(text):
        return _unparsable("no words in the answer", "I found no words in your answer.")
    found = find_alias(text, names)
    return _verdict(found is not None, f"got {_short(text)}, expected one of {_short('; '.join(names))}", _short(text))


def read_number(text: str) -> tuple[Number | None, str]:
    """Return the number that a text gives as its answer, or None and what is wrong.

    >>> read_number("It is 5 or 6")
    (None, '5 or 6 is not one number')
    """
    text = last_characters(text)
    marked = marked_answer(text)
    if marked is not None:
        text = _side(marked.splitlines()[0])
    numbers = [_signed(text, number) for number in _stated(text, find_numbers(text))]
    if not numbers:
        return None, _NO_NUMBER
    joined = _joined(text, numbers) if marked is not None else _joined(text, numbers[-2:])
    if joined:
        return None, f"{joined} is not one number"
    return (numbers[0] if marked is not None else numbers[-1]), ""


def _joined(text: str, numbers: list[Number]) -> str:
    """Return the alternatives or the calculation that the first number belongs to: `5 or 6`, `7, 8 or 9`, `3 + 4`; "" for none."""
    for first, second in pairwise(numbers):
        if is_range(text, (first, second)) or _BETWEEN_OPERANDS.fullmatch(text, first.end, second.start):
            return text[numbers[0].start : second.end]
        if not _COMMA.fullmatch(text, first.end, second.start):
            break
    return ""


def _side(line: str) -> str:
    """Return the side of a line's equations that gives the result: the last one that holds one number, or else the last one with any.

    Text after the first clause may hold other numbers: `3 + 7 = 10. I checked it 3 times`, `5. To check: 5 + 3 = 8`.

    >>> _side("3 + 7 = 10"), _side("12 = 3 * 4")
    (' 10', '12 ')
    """
    *before, last = line.split("=")
    if not before:
        return last
    clause = _CLAUSE_END.split(line, maxsplit=1)[0]
    if "=" not in clause and _AT_ONCE.match(clause) and len(find_numbers(clause)) == 1:
        return clause
    sides = [*before, _CLAUSE_END.split(last, maxsplit=1)[0]]
    single = next((side for side in reversed(sides) if len(find_numbers(side)) == 1), None)
    if single is not None:
        return single
    first = next(iter(find_numbers(last)), None)
    if first is not None and not _OPERATOR.match(last, first.end):
        return last
    return "=".join(before)


def _stated(text: str, numbers: list[Number]) -> list[Number]:
    """Drop the numbers that the text denies: `not 5 but 7`, `not 5 or 6`."""
    stated: list[Number] = []
    denied: Number | None = None
    for number in numbers:
        if _NOT.search(text, max(0, number.start - 8), number.start) or (denied is not None and is_range(text, (denied, number))):
            denied = number
        else:
            denied = None
            stated.append(number)
    return stated


def _signed(text: str, number: Number) -> Number:
    """Apply a minus that stands apart before a number at the text's beginning or after `=` or `is`, where it cannot be a subtraction."""
    sign = _SIGN_APART.search(text, max(0, number.start - 12), number.start)
    if sign is None or not (text[number.start].isdigit() or text[number.start] == "."):
        return number
    return replace(number, value=-number.value, start=sign.start("sign"))


def choice(text: str, task: Task) -> Verdict:
    """Score 1.0 if the text names the gold choice, by its letter or its text; `metadata["choices"]` may list the texts.

    >>> choice("(B)", Task("Which is a fruit?", "B", metadata={"choices": ["a stone", "a pear"]})).score
    1.0
    """
    if task.answer is None:
        return _no_gold()
    choices = choices_of(task)
    gold = read_choice(task.answer, choices)
    if gold is None:
        return Verdict(None, message=f"the gold answer {_short(task.answer)} names none of the choices")
    found = read_choice(text, choices)
    if found is None:
        return _unparsable(f"no single choice in the answer {_short(last_characters(text))}", "I found no single choice in your answer.")
    return _verdict(found == gold, f"got {found}, expected {gold}", found)


VERIFIERS: dict[str, Callable[[str, Task], Verdict]] = {
    "exact": exact,
    "numeric": numeric,
    "words": words,
    "aliases": aliases,
    "choice": choice,
    "math": math,
    "reasoning_gym": reasoning_gym,
}


def find_verifier(name: str) -> Callable[[str, Task], Verdict]:
    """Return a verifier by its name in the table, or load a user's own by `file.py:function`.

    A user's verifier may return what `as_verdict` accepts. Raises UserError for a name that is neither.
    """
    if _is_user_function(name):
        return load_verifier(name)
    if name not in VERIFIERS:
        raise unknown("verifier", name, VERIFIERS)
    return VERIFIERS[name]


def _is_user_function(name: str) -> bool:
    """Return whether a verifier is a user's function: file.py:function or package.module:function."""
    return ":" in name or name.endswith(".py")


def check_verifier(name: str) -> None:
    """Raise UserError for a name that `find_verifier` does not know, as far as that can be told without running a user's file."""
    if _is_user_function(name):
        check_function(name)
    else:
        check_known("verifier", name, VERIFIERS)


def check_gold(task: Task) -> str | None:
    """Describe why a task's verifier does not accept its own gold answer; None if it does, or if there is no gold answer.

    >>> check_gold(Task("What is 1 + 1?", "two", "numeric"))
    "no number in the gold answer 'two'"
    """
    if task.answer is None:
        return None
    if not task.answer.strip():
        return "the gold answer is empty"
    verdict = VERIFIERS[task.verifier](task.answer, task)
    return None if verdict.is_right else verdict.message


def _verdict(right: bool, message: str, read: str) -> Verdict:
    """Build the verdict of an answer that was read as `read`."""
    return Verdict(float(right), {"parsable": 1.0}, message="" if right else message, words="" if right else read_as(read))


def _unparsable(message: str, words: str) -> Verdict:
    return Verdict(0.0, {"parsable": 0.0}, message=message, words=words)


def _no_gold() -> Verdict:
    return Verdict(None, message="the task has no gold answer")


def _short(text: str) -> str:
    return quoted(last_characters(text))
