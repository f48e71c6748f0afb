"""Sets of questions in the data, and what answers to them are right.

Open ones, whose answer goes by names (TriviaQA, Natural Questions, WebQuestions), those of TruthfulQA with true and false answers, and
those of bAbI about the facts before them. Which of a set are asked is fixed: up to `N`, by `SEED`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from etude.evaluation.long.facts import read_babi
from etude.evaluation.truthful import truth
from etude.randomness import seed_for
from etude.tasks.aliases import find_alias, plain_words, with_aliases
from etude.tasks.files import file_rows
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tasks.verifiers import VERIFIERS

SEED, N = 90, 500
INSTRUCTION = "Answer in a few words."

Right = Callable[[str, Task], bool]


@dataclass(frozen=True)
class Questions:
    """A set of questions, and what is right."""

    load: Callable[[Path | None], list[Task]]
    is_right: Right
    has_meaning: bool = False
    """Whether answers are also compared with true and false ones by their embeddings."""
    is_of_second: bool = False
    """Whether the second model is asked."""
    has_evidence: bool = False
    """Whether they are about what stands before them."""


def _open(name: str, data: Path | None) -> list[Task]:
    """Load those that are asked, by seed, of the different ones whose answer has words: two of Natural Questions are marks alone."""
    assert data is not None
    rows = [row for _, row in file_rows(data / "openqa_false_answers" / f"{name}.csv") if plain_words(row["answer"])]
    tasks = [with_aliases(Task(question, answer, "aliases")) for question, answer in {r["question"]: r["answer"] for r in rows}.items()]
    order = sorted(range(len(tasks)), key=lambda place: seed_for(SEED, name, place))
    return [tasks[place] for place in sorted(order[:N])]


def webquestions(data: Path | None) -> list[Task]:
    """Load all of devtest, and of val as many others as make 500, none of which was tried on."""
    tried = {task.key for task in webquestions_dev(data)}
    devtest, val = (_webquestions(name, None, SEED, data) for name in ("devtest", "val"))
    left = [task for task in val if task.key not in tried]
    order = sorted(range(len(left)), key=lambda place: seed_for(SEED, "val", place))
    return devtest + [left[place] for place in sorted(order[: N - len(devtest)])]


def webquestions_dev(data: Path | None) -> list[Task]:
    """Load the questions that settings were tried on."""
    return _webquestions("val", 160, 1, data)


def _webquestions(name: str, n: int | None, seed: int, data: Path | None) -> list[Task]:
    source = TaskSource(path=[f"webquestions/{name}.jsonl"], columns={"question": "qText", "answer": "answers"}, verifier="aliases")
    return load_tasks(source, split="test", n=n, seed=seed, data=data)


def _truthful(data: Path | None) -> list[Task]:
    assert data is not None
    rows = [row for _, row in file_rows(data / "truthfulqa" / "mc_task.jsonl")]
    targets = [{is_true: [text for text, value in row["mc2_targets"].items() if value == is_true] for is_true in (1, 0)} for row in rows]
    return [Task(row["question"], metadata={"true": own[1], "false": own[0]}) for row, own in zip(rows, targets, strict=True)]


def _stories(data: Path | None) -> list[Task]:
    """Load as many questions of each file, by seed."""
    assert data is not None
    found = []
    for path in (files := sorted((data / "babi_en").glob("qa*_test.txt"))):
        stories = read_babi(path)
        answers = sorted({answer for _, _, answer in stories})
        tasks = [_story(told, question, answer, answers) for told, question, answer in stories]
        order = sorted(range(len(tasks)), key=lambda place: seed_for(SEED, path.name, place))
        found += [tasks[place] for place in sorted(order[: N // len(files)])]
    order = sorted(range(len(found)), key=lambda place: seed_for(SEED, "stories", place))  # so that a fifth has some of each file
    return [found[place] for place in order]


def _story(told: Sequence[str], question: str, answer: str, answers: Sequence[str]) -> Task:
    may_name = [question, *(fact for fact in told if find_alias(fact, [answer]))]
    others = [other for other in answers if other != answer and not any(find_alias(text, [other]) for text in may_name)]
    return Task(question, answer, "aliases", metadata={"evidence": "\n".join(told), "others": others})


def _tiny_stories(data: Path | None) -> list[Task]:
    return [_story([letter], "which letter", letter, ["x"]) for letter in "abcdefghij"]


def _tiny(data: Path | None) -> list[Task]:
    return [Task(f"repeat {letter}: {letter}", letter, "aliases") for letter in "abcdefghij"]


def says_a_name(text: str, task: Task) -> bool:
    return VERIFIERS["aliases"](text, task).score == 1.0


def says_it_alone(text: str, task: Task) -> bool:
    """Return whether a text says a name of the answer and none of the task's others."""
    return says_a_name(text, task) and not find_alias(text, task.metadata["others"])


def is_true(text: str, task: Task) -> bool:
    return truth(text, task.metadata["true"], task.metadata["false"]) > 0


SETS = {
    "triviaqa": Questions(partial(_open, "TriviaQA"), says_a_name),
    "natural_questions": Questions(partial(_open, "Natural_Questions"), says_a_name),
    "webquestions": Questions(webquestions, says_a_name),
    "truthfulqa": Questions(_truthful, is_true, has_meaning=True),
}
SECOND = "practised"
OF_SECOND = {f"{SECOND}_{name}": replace(SETS[name], is_of_second=True) for name in ("triviaqa", "webquestions")}
STORIES = {"stories": Questions(_stories, says_it_alone, has_evidence=True)}
TINY_SETS = {
    "letters": Questions(_tiny, says_a_name),
    f"{SECOND}_letters": Questions(_tiny, says_a_name, is_of_second=True),
    "told": Questions(_tiny_stories, says_it_alone, has_evidence=True),
}
