"""Requests composed from a grammar: what to write about, and the rules that the answer has to follow.

    Write a short message to a neighbour: thanks for the cake. Use exactly 7 words. End with "!".

A request has 1 to `max_rules` rules of different groups that do not contradict each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from etude.tasks.instructions.rules import RULES, Arguments
from etude.tasks.instructions.vocabulary import ANIMALS, FOODS, OCCASIONS, PEOPLE, PLACES, THINGS, TOPICS

LINES: tuple[tuple[str, dict[str, Sequence[str]]], ...] = (
    ("Write a line about {topic}.", {"topic": TOPICS}),
    ("Write the first line of a story about {topic}.", {"topic": TOPICS}),
    ("Write a line of a poem about {topic}.", {"topic": TOPICS}),
    ("Say something short about {topic}.", {"topic": TOPICS}),
    ("Write a short message to {person} about {occasion}.", {"person": PEOPLE, "occasion": OCCASIONS}),
    ("Write a slogan for {thing}.", {"thing": THINGS}),
    ("Write one line of advertising for {thing}.", {"thing": THINGS}),
    ("Describe {place} briefly.", {"place": PLACES}),
    ("Tell me one short fact about {animal}.", {"animal": ANIMALS}),
    ("Say how {food} can taste.", {"food": FOODS}),
)
"""Subjects that a line answers."""
LISTS: tuple[tuple[str, dict[str, Sequence[str]]], ...] = (
    ("What can one see in {place}?", {"place": PLACES}),
    ("What might one hear in {place}?", {"place": PLACES}),
    ("What goes well with {food}?", {"food": FOODS}),
    ("Suggest names for {thing}.", {"thing": THINGS}),
    ("What do {animal} need?", {"animal": ANIMALS}),
)
"""Subjects that a list answers."""
LISTED = frozenset({"dashed_items", "numbered_items", "comma_list"})


@dataclass(frozen=True)
class Request:
    """A prompt and its rules."""

    subject: str
    """The request without the rules."""
    prompt: str
    rules: tuple[tuple[str, Arguments], ...]
    """Kind and arguments of each rule."""


def sample_request(random: Random, kinds: Sequence[str], max_rules: int) -> Request:
    """Sample a request with rules of these kinds."""
    while True:
        number = random.randint(1, max_rules)
        chosen = random.sample(list(kinds), min(number, len(kinds)))
        rules = [(kind, RULES[kind].sample(random)) for kind in chosen]
        if are_compatible(rules):
            break
    subject, slots = random.choice(LISTS if any(kind in LISTED for kind, _ in rules) else LINES)
    subject = subject.format(**{name: random.choice(words) for name, words in slots.items()})
    asked = [random.choice(RULES[kind].asked).format(**arguments) for kind, arguments in rules]
    return Request(subject, " ".join([subject, *asked]), tuple(rules))


def are_compatible(rules: Sequence[tuple[str, Arguments]]) -> bool:
    """Return whether an answer can follow all of these rules."""
    given = dict(rules)
    groups = {RULES[kind].group for kind in given}
    if len(groups) < len(rules) or {"length", "sentences"} <= groups or {"form", "end"} <= groups:
        return False
    if "case" in groups and "begin_word" in given:
        return False
    avoided = [str(value) for kind in ("avoid_letter", "avoid_word") for value in given.get(kind, {}).values()]
    asked = [str(value).lower() for kind, arguments in rules if RULES[kind].group != "avoid" for value in arguments.values()]
    return not any(unwanted in value for unwanted in avoided for value in asked)
