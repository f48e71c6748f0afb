"""Verifiers, the reward functions of tasks: pure functions (text, task) -> Reward that score an answer. The table at the end names them.

| name | right is | form of the answer |
|---|---|---|
| `exact` | the same text except for case, spaces and surrounding punctuation | the gold answer's: number, list, object, word, text |
| `numeric` | the same number (`etude.tasks.numbers`) | one number |
| `calculator` | the same number, where results of equations count as a calculator computes them | one number |
| `words` | the same words; else the score is the F1 of the words in common | words |
| `aliases` | contains one of the answer's names (`etude.tasks.aliases`) anywhere | words |
| `choice` | the same choice, by letter or text | one choice |
| `math` | the same expression (math-verify, `etude.tasks.expressions`) | an expression |
| `instructions` | follows all rules (`etude.tasks.instructions`); else a share of them | any |
| `code` | code that passes all tests of the task (`etude.tasks.code`); else the share that it passes | Python code |
| `reasoning_gym` | a full score from the source's own scorer (`etude.tasks.family_scores`) | the gold answer's |

Scores are 1 or 0, except those of `words`, `instructions` and `code`, which may be between; an answer is right at 1 (`tasks.right_at`
lowers it). Your own verifier may give any finite number (`etude.tasks.functions`).

`parts["parsable"]` is 1.0 if an answer of the expected form was found: it distinguishes wrong answers from missing ones. `exact`,
`numeric`, `calculator`, `words`, `aliases` and `choice` take microseconds, read at most 20,000 characters in linear time, never raise.
`math` and `reasoning_gym` run third-party code, which may hang or raise: `etude.rewards.verifier_reward` runs it in a process to be killed.
`code` runs the answer itself, in processes of its own.
"""

from collections.abc import Callable
from dataclasses import replace

from etude.errors import check_known, unknown
from etude.tasks.aliases import aliases_of, find_alias, plain_words
from etude.tasks.answers import answer_form, final_answer, has_form_of, last_characters, normalise, parse_list, word_counts
from etude.tasks.choices import choices_of, read_choice
from etude.tasks.code import code
from etude.tasks.equations import find_wrong_equation
from etude.tasks.expressions import math
from etude.tasks.family_scores import reasoning_gym
from etude.tasks.feedback import of_another_form, quoted, read_as, shortened
from etude.tasks.function_check import PYTHON_OBJECT, check_function
from etude.tasks.functions import load_verifier
from etude.tasks.instructions.verify import instructions
from etude.tasks.number_answers import NO_NUMBER, compute_number, read_number
from etude.tasks.numbers import Number, same_number
from etude.tasks.reward import Reward
from etude.tasks.task import Task

CHEAP = frozenset({"exact", "numeric", "calculator", "words", "aliases", "choice"})
"""Verifiers that may run in any process: no third-party code, linear time."""

COMPARING = CHEAP | {"math"}
"""Verifiers that compare with a gold answer, so they cannot score a task without one."""


def exact(text: str, task: Task) -> Reward:
    """Score 1.0 if the answer equals the gold answer except for case, spaces and surrounding punctuation; lists are compared item by item.

    >>> exact("The answer is paris.", Task("Capital of France?", "Paris")).score
    1.0
    """
    if task.answer is None:
        return _no_gold()
    gold = final_answer(task.answer, task.answer)  # a gold answer may have its own marker
    answer = final_answer(text, gold)
    items, gold_items = parse_list(answer), parse_list(gold)
    same = items == gold_items if items is not None and gold_items is not None else normalise(answer) == normalise(gold)
    if same or has_form_of(answer, gold):
        return _reward(same, f"got {_short(answer)}, expected {_short(gold)}", _short(answer))
    return _unparsable(
        f"expected a {answer_form(gold)}, got {answer_form(answer)}: {_short(answer)}", of_another_form(last_characters(answer))
    )


def numeric(text: str, task: Task) -> Reward:
    """Score 1.0 if the text's number equals the gold number: the first number after an answer marker, or else the last one of the text.

    After a marker, a number that begins the line counts (`5. To check: 5 + 3 = 8`), or else the last side of its `=` that holds one number.
    Numbers joined by `or`, `to`, `and`, a dash or an operator do not count, nor does a number after `not`. A sign may be separate from its
    digits if it cannot be a minus (`x = - 5`). For a wrong answer, the words name its first equation that does not hold.

    >>> numeric("3 + 7 = 10", Task("What is 3 + 7?", "10")).score, numeric("10", Task("What is 3 - 2?", "1")).score
    (1.0, 0.0)
    """
    reward = _number_reward(text, task, read_number)
    wrong = find_wrong_equation(text) if reward.score == 0 and reward.parts["parsable"] else ""
    return replace(reward, words=f"{reward.words} {quoted(wrong)} does not hold.") if wrong else reward


def calculator(text: str, task: Task) -> Reward:
    """Score 1.0 if the text's number, as `numeric` reads it, is the gold number; a wrong result of an equation counts as what it comes to.

    So an answer is right if it calculates the right thing (`etude.tasks.equations.computed_results`), whatever its sums.

    >>> calculator("24 + 39 = 53\\n53 - 4 = 48\\nThe answer is 48.", Task("How many are left?", "59")).score
    1.0
    """
    reward = _number_reward(text, task, compute_number)
    is_computed = reward.score == 0 and reward.parts["parsable"] and read_number(text) != compute_number(text)
    return replace(reward, words=f"{reward.words} That is what your sums come to with a calculator.") if is_computed else reward


def _number_reward(text: str, task: Task, read: Callable[[str], tuple[Number | None, str]]) -> Reward:
    """Score 1.0 if the number that `read` finds in the text is the gold number."""
    if task.answer is None:
        return _no_gold()
    gold, _ = read_number(task.answer)
    if gold is None:
        return Reward(None, message=f"no number in the gold answer {_short(task.answer)}")
    found, problem = read(text)
    if found is None:
        words = (
            "I found no number in your answer."
            if problem == NO_NUMBER
            else f"I found no single number in your answer: {shortened(problem)}."
        )
        return _unparsable(problem, words)
    return _reward(same_number(found, gold), f"got {found}, expected {gold}", shortened(str(found)))


def words(text: str, task: Task) -> Reward:
    """Score the F1 of an answer's words, for free-form answers (SQuAD, Rajpurkar et al. 2016, arXiv 1606.05250).

    The text after the last answer marker counts, or else the whole text. Repetitions count; articles and punctuation do not.

    >>> words("the left ventricle", Task("Which chamber?", "Left ventricle")).score
    1.0
    """
    if task.answer is None:
        return _no_gold()
    said, gold = (word_counts(final_answer(each, task.answer)) for each in (text, task.answer))
    if not gold:
        return Reward(None, message=f"no words in the gold answer {_short(task.answer)}")
    if not said:
        return _unparsable("no words in the answer", "I found no words in your answer.")
    f1 = 2 * (said & gold).total() / (said.total() + gold.total())
    if f1 == 1:
        return _reward(True, "", "")
    read = _short(final_answer(text, task.answer))
    return Reward(f1, {"parsable": 1.0}, message=f"got {read}, expected {_short(task.answer)}", words=read_as(read))


def aliases(text: str, task: Task) -> Reward:
    """Score 1.0 if the text contains one of the accepted names, anywhere: a text that names many things is right more often.

    >>> aliases("I think that it was Twain, Mark Twain.", Task("Who?", "Samuel Clemens; Mark Twain")).score
    1.0
    """
    if task.answer is None:
        return _no_gold()
    names = aliases_of(task)
    if not names:
        return Reward(None, message=f"no name in the gold answer {_short(task.answer)}")
    if not plain_words(text):
        return _unparsable("no words in the answer", "I found no words in your answer.")
    found = find_alias(text, names)
    return _reward(found is not None, f"got {_short(text)}, expected one of {_short('; '.join(names))}", _short(text))


def choice(text: str, task: Task) -> Reward:
    """Score 1.0 if the text names the gold choice, by its letter or its text; `metadata["choices"]` may list the texts.

    >>> choice("(B)", Task("Which is a fruit?", "B", metadata={"choices": ["a stone", "a pear"]})).score
    1.0
    """
    if task.answer is None:
        return _no_gold()
    choices = choices_of(task)
    gold = read_choice(task.answer, choices)
    if gold is None:
        return Reward(None, message=f"the gold answer {_short(task.answer)} names none of the choices")
    found = read_choice(text, choices)
    if found is None:
        return _unparsable(f"no single choice in the answer {_short(last_characters(text))}", "I found no single choice in your answer.")
    return _reward(found == gold, f"got {found}, expected {gold}", found)


VERIFIERS: dict[str, Callable[[str, Task], Reward]] = {
    "exact": exact,
    "numeric": numeric,
    "calculator": calculator,
    "words": words,
    "aliases": aliases,
    "choice": choice,
    "math": math,
    "instructions": instructions,
    "code": code,
    "reasoning_gym": reasoning_gym,
}


def find_verifier(name: str) -> Callable[[str, Task], Reward]:
    """Return a verifier by its name in the table, or load a user's own by `file.py:function`.

    A user's verifier may return any value that `to_reward` accepts. Raises UserError for an unknown name.
    """
    if _is_user_function(name):
        return load_verifier(name)
    if name not in VERIFIERS:
        raise unknown("verifier", name, VERIFIERS)
    return VERIFIERS[name]


def _is_user_function(name: str) -> bool:
    """Tell whether a verifier is a user's function: file.py:function or package.module:function."""
    return ":" in name or name.endswith(".py")


def check_verifier(name: str) -> None:
    """Raise UserError for a name that `find_verifier` does not know, as far as possible without running a user's file."""
    if name.startswith(PYTHON_OBJECT):
        return  # an object, which `etude.rewards.functions` checks
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
    reward = VERIFIERS[task.verifier](task.answer, task)
    return None if reward.is_right else reward.message


def _reward(right: bool, message: str, read: str) -> Reward:
    """Build the reward of an answer that was read as `read`."""
    return Reward(float(right), {"parsable": 1.0}, message="" if right else message, words="" if right else read_as(read))


def _unparsable(message: str, words: str) -> Reward:
    return Reward(0.0, {"parsable": 0.0}, message=message, words=words)


def _no_gold() -> Reward:
    return Reward(None, message="the task has no gold answer")


def _short(text: str) -> str:
    return quoted(last_characters(text))
