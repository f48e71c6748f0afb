"""The verifier of instructions: the share of a task's rules that an answer follows.

Empty compliance counts as nothing: an answer to etude's own requests that has under three words, copies the prompt, speaks of its rules
(`The sea with the word "tea".`) or repeats itself scores 0, whatever rules it follows. Rules of IFEval are checked as its authors do, where
only an empty answer follows none.
"""

from collections.abc import Mapping
from typing import Any

from etude.tasks.instructions.ifeval import IFEVAL
from etude.tasks.instructions.rules import RULES
from etude.tasks.instructions.text import lower_words
from etude.tasks.reward import Reward
from etude.tasks.task import Task

MIN_WORDS = 3
"""An answer has at least so many words."""
OF_RULES = {
    *("word", "words", "phrase", "letter", "letters", "character", "characters", "capital", "lowercase", "sentence", "sentences"),
    *("comma", "commas", "quote", "quotes", "quotation"),
}
"""Words of the rules themselves: an answer has none of them, unless it was asked for."""
COPIED_WORDS = 5
"""So many words in a row that also stand in the prompt are a copy."""
REPEATED = 3
"""So many times in a row the same word, or the same line more than twice, is repetition."""


def instructions(text: str, task: Task) -> Reward:
    """Score the share of the task's rules that the answer follows; right is all of them."""
    text = text.strip()
    rules = task.metadata.get("rules")
    if not rules:
        return Reward(None, message="the task has no rules")
    kept = {rule["kind"]: is_followed(text, rule) for rule in rules}
    problem = _problem(text, task) if text else "no words"
    parts = {"parsable": float(problem is None), **{f"kept_{kind}": float(value) for kind, value in kept.items()}}
    if problem:
        return Reward(0.0, parts, message=problem, words=problem)
    broken = [kind for kind, value in kept.items() if not value]
    return Reward(sum(kept.values()) / len(kept), parts, message=f"breaks {', '.join(broken)}" if broken else "")


def is_followed(text: str, rule: Mapping[str, Any]) -> bool:
    """Return whether a stripped answer follows a rule, of etude's kinds or of IFEval's."""
    kind, arguments = rule["kind"], rule["arguments"]
    return IFEVAL[kind](text, **arguments) if kind in IFEVAL else RULES[kind].is_followed(text, **arguments)


def _problem(text: str, task: Task) -> str | None:
    """Describe why an answer to one of etude's own requests says nothing; None for other tasks."""
    if "subject" not in task.metadata:
        return None
    arguments = [str(value) for rule in task.metadata["rules"] for value in rule["arguments"].values()]
    return empty_compliance(text, task.question, asked=" ".join([task.metadata["subject"], *arguments]))


def empty_compliance(text: str, prompt: str, asked: str = "") -> str | None:
    """Describe why an answer says nothing; None if it does say something. `asked`: what it is about, and what it has to have."""
    said = lower_words(text)
    if len(said) < MIN_WORDS:
        return f"fewer than {MIN_WORDS} words"
    if OF_RULES & {*said} - {*lower_words(asked)}:
        return "speaks of the rules"
    given = " ".join(lower_words(prompt))
    spans = (" ".join(said[start : start + COPIED_WORDS]) for start in range(len(said) - COPIED_WORDS + 1))
    if any(f" {span} " in f" {given} " for span in spans):
        return "copies the prompt"
    if any(len(set(said[start : start + REPEATED])) == 1 for start in range(len(said) - REPEATED + 1)):
        return "repeats a word"
    if len(said) > 12 and len(set(said)) < len(said) / 2:
        return "repeats itself"
    return None
