"""Read a problem from a model's text, and check its form before anybody tries to solve it.

| flaw | a problem that |
|---|---|
| `unfinished` | was truncated |
| `empty` | has fewer than three words, or is a list or another answer rather than a question |
| `leak` | contains its answer: the answer's words in a row, or a marker such as "The answer is" |
| `copy` | shares too many 4-word pieces with a problem shown to its writer, or all words with another of the step |
| `measured` | is in the evaluation |

The remaining problems have a valid form; their solvers find out whether they have an answer.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from etude.engine.completion import Finish
from etude.tasks.answers import answer_form, last_characters, marked_answer
from etude.tasks.numbers import find_numbers
from etude.tasks.overlap import ngram_overlap
from etude.tasks.task import Task

FLAWS = ("unfinished", "empty", "leak", "copy", "measured")
_PIECE = 4
_LABEL = re.compile(r"\A\s*(?:problem|question)\s*:", re.IGNORECASE)
_END = re.compile(r"\n\s*\n|\n\s*(?:solution|answer|problem|question)\s*:", re.IGNORECASE)


def read_problem(text: str, finish: Finish) -> tuple[str, bool]:
    """Return the problem in a text, its first paragraph without a label, and whether it is finished.

    >>> read_problem(" What is 2 + 3?\\n\\nSolution: 5", "length"), read_problem("What is 2 +", "length")
    (('What is 2 + 3?', True), ('What is 2 +', False))
    """
    text = _LABEL.sub("", text)
    first, *rest = _END.split(text.lstrip(), maxsplit=1)
    return first.strip(), bool(rest) or finish == "stop"


def asking(task: Task, problem: str, **changes: object) -> Task:
    """Return a task that asks this problem in the form of `task`: the same messages before it, instruction, verifier and metadata."""
    prompt = problem if isinstance(task.prompt, str) else (*task.prompt[:-1], {**task.prompt[-1], "content": problem})
    return replace(task, prompt=prompt, worked=None, **changes)  # type: ignore[arg-type]


def flaw_of(
    problem: Task, *, is_finished: bool, shown: Sequence[Task], written: Collection[str], measured: Collection[str], max_overlap: float
) -> str:
    """Return the first flaw of a problem, or "". `shown` are the tasks that its writer saw or wrote from; `written` and `measured` are keys
    of the step's other problems and of the evaluation.
    """
    checks = {
        "unfinished": not is_finished,
        "empty": len(problem.words) < 3 or answer_form(problem.question.strip()) in ("number", "list", "object"),
        "leak": leaks(problem.question, problem.answer),
        "copy": problem.key in written or any(_overlap(problem, other) > max_overlap for other in shown),
        "measured": problem.key in measured,
    }
    return next((flaw for flaw in FLAWS if checks[flaw]), "")


def leaks(question: str, answer: str | None) -> bool:
    """Return whether a problem contains its answer.

    If the answer is one number, it is compared by value with the problem's numbers. Otherwise its words are searched in a row, whatever the
    characters between them.

    >>> leaks("Sort: 3, 1, 2", "[1, 2, 3]"), leaks("Sort: 3, 1, 2, 3", "[1, 2, 3]"), leaks("Ann has 7 pens and gives 2 away.", "5")
    (False, True, False)
    """
    if marked_answer(last_characters(question)) is not None:
        return True
    if not answer:
        return False
    gold = find_numbers(answer)
    if len(gold) == 1 and (gold[0].start, gold[0].end) == (0, len(answer.strip())):
        return any(number.value == gold[0].value for number in find_numbers(question))
    own, said = (_bare_words(text) for text in (answer, question))
    return bool(own) and any(said[start : start + len(own)] == own for start in range(len(said) - len(own) + 1))


def _bare_words(text: str) -> list[str]:
    """Return words and numbers, these by value, without the marks between them."""
    found = []
    for word in re.findall(r"[-\u2212]?\d+(?:\.\d+)?|\w+", text.casefold()):
        numbers = find_numbers(word)
        found.append(str(numbers[0]) if len(numbers) == 1 else word)
    return found


def _overlap(problem: Task, other: Task) -> float:
    """Return the share of the problem's pieces that occur in another."""
    return ngram_overlap([other], [problem], n=_PIECE)[0]
