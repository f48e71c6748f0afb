"""Requests composed from a grammar: what to write about, and the rules that the answer has to follow.

    Write a short message to a neighbour to say thanks for the cake. Use exactly 7 words. End with "!".

A request has `min_rules` to `max_rules` rules of different groups that do not contradict each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from etude.errors import UserError
from etude.tasks.instructions.rules import RULES, Arguments
from etude.tasks.instructions.vocabulary import ANIMALS, FOODS, PEOPLE, PLACES, PURPOSES, THINGS, TOPICS

LINES: tuple[tuple[str, dict[str, Sequence[str]]], ...] = (
    ("Write a line about {topic}.", {"topic": TOPICS}),
    ("Write the first line of a story about {topic}.", {"topic": TOPICS}),
    ("Write a line of a poem about {topic}.", {"topic": TOPICS}),
    ("Say something short about {topic}.", {"topic": TOPICS}),
    ("Write a short message to {person} to {purpose}.", {"person": PEOPLE, "purpose": PURPOSES}),
    ("Write a slogan for {thing}.", {"thing": THINGS}),
    ("Write one line of advertising for {thing}.", {"thing": THINGS}),
    ("Describe {place} briefly.", {"place": PLACES}),
    ("Tell me one short fact about {animal}.", {"animal": ANIMALS}),
    ("Describe the taste of {food}.", {"food": FOODS}),
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
MOST_TRIES = 10_000
"""Combinations of rules that are tried for a request."""
LISTED = frozenset({"dashed_items", "numbered_items", "comma_list"})
"""Kinds of rules that ask for a list."""
_NOT_LISTED = frozenset({"beginning", "form", "comma", "question"})
"""Groups and kinds that a list contradicts."""


@dataclass(frozen=True)
class Request:
    """A prompt and its rules."""

    subject: str
    """The request without the rules."""
    prompt: str
    rules: tuple[tuple[str, Arguments], ...]
    """Kind and arguments of each rule."""


def sample_request(random: Random, kinds: Sequence[str], max_rules: int, min_rules: int = 1) -> Request:
    """Sample a request with rules of these kinds. Raises UserError if no `min_rules` of them go together."""
    for _ in range(MOST_TRIES):
        number = random.randint(min_rules, max_rules)
        rules = [(kind, RULES[kind].sample(random)) for kind in random.sample(list(kinds), min(number, len(kinds)))]
        if len(rules) >= min_rules and are_compatible(rules):
            break
    else:
        raise UserError(f"rules: no {min_rules} of {', '.join(kinds)} go together: set min_rules lower, or name more kinds")
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
    if "case" in groups and {"begin_word", "begin_words"} & set(given):
        return False
    if LISTED & set(given) and _NOT_LISTED & {*groups, *given}:
        return False
    avoided = [str(value) for kind in ("avoid_letter", "avoid_word") for value in given.get(kind, {}).values()]
    asked = [str(value).lower() for kind, arguments in rules if RULES[kind].group != "avoid" for value in arguments.values()]
    return not any(unwanted in value for unwanted in avoided for value in asked)
