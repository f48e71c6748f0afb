"""Write demonstrations of instructions by templates: what a person gets who knows the rules and writes no sentence of their own."""

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from etude.randomness import seed_for
from etude.tasks.families import sample_tasks
from etude.tasks.instructions.family import FAMILY
from etude.tasks.instructions.verify import instructions
from etude.tasks.task import Task

STARTS: dict[str, tuple[str, ...]] = {
    "Write a line about ": ("I think of {}", "We know {}", "{} is here", "My mind is on {}"),
    "Write the first line of a story about ": ("It all began with {}", "{} was here", "We found {}"),
    "Write a line of a poem about ": ("I sing of {}", "O {}", "{} is my song", "My song is {}"),
    "Say something short about ": ("I like {}", "We all know {}", "{} is fun"),
    "Write a slogan for ": ("Come and see {}", "We love {}", "{} for you"),
    "Write one line of advertising for ": ("Come and try {}", "We have {} for you", "{} for all"),
    "Tell me one short fact about ": ("Many people like {}", "We see {} in the wild", "{} live in many places"),
    "Describe ": ("I think of {}", "We like {}", "{} is good"),
    "Write a short message to ": ("I want to {}", "We would like to {}", "Let me {}"),
}
"""Ways to begin an answer, by how the request begins."""
TRIES = 12
"""Templates that are tried for a request."""


def demonstrations(parameters: dict[str, Any], seed: int, n: int) -> Iterator[dict[str, Any]]:
    """Yield n demonstrations as rows of a task file; requests that no template answers rightly are left out."""
    random = Random(seed_for("templates", seed))
    written = ((task, answer(task, random)) for task in sample_tasks(FAMILY, parameters, split="demonstrations", seed=seed))
    yield from islice(({"question": task.question, "answer": text} for task, text in written if text is not None), n)


def answer(task: Task, random: Random) -> str | None:
    """Return an answer that follows all rules, by the first of some templates that does; None if none does."""
    tries = (_answer(task, random) for _ in range(TRIES))
    return next((text for text in tries if text and instructions(text, task).is_right), None)


def _answer(task: Task, random: Random) -> str | None:
    subject: str = task.metadata["subject"]
    begin = next((begin for begin in STARTS if subject.startswith(begin)), None)
    if begin is None:
        return None
    thing = subject.removeprefix(begin).removesuffix(".").removesuffix(" briefly")
    if begin == "Write a short message to ":
        thing = thing.split(" to ", 1)[1]
    given: dict[str, Any] = {rule["kind"]: rule["arguments"] for rule in task.metadata["rules"]}
    text = random.choice(STARTS[begin]).format(thing)
    if "begin_word" in given:
        text = f"{given['begin_word']['word']} {text[0].lower() if text[:2] != 'I ' else text[0]}{text[1:]}"
    if "number" in given:
        text += f" and {given['number']['number']} more"
    if "two_words" in given:
        text += " and the {first} and the {second}".format(**given["two_words"])
    if "word_times" in given:
        text += " and the {word} by the {word}".format(**given["word_times"])
    for kind in ("include_word", "end_word"):
        if kind in given:
            text += f" and the {given[kind]['word']}"
    text = text[0].upper() + text[1:] + given.get("end_mark", {"mark": "."})["mark"]
    return f'"{text}"' if "quoted" in given else text
