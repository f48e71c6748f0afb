"""The family `instructions`: requests with rules as tasks, other ones for each split and seed."""

from collections.abc import Iterator, Mapping
from itertools import count
from random import Random
from typing import Any

from etude.errors import UserError, unknown
from etude.randomness import seed_for
from etude.tasks.instructions.requests import sample_request
from etude.tasks.instructions.rules import HELD_OUT, RULES, TRAINING
from etude.tasks.task import Task

FAMILY = "instructions"
MOST = 4
"""Most rules of a request."""
DEFAULTS: dict[str, Any] = {"rules": "training", "min_rules": 1, "max_rules": 2}
"""`rules`: `training`, `held_out`, `all` or a list of kinds; a request has `min_rules` to `max_rules` rules."""
_NAMED = {"training": TRAINING, "held_out": HELD_OUT, "all": tuple(RULES)}


def check_instruction_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise UserError for an unknown parameter, set of rules or kind of rule."""
    for name in parameters:
        if name not in DEFAULTS:
            raise unknown(f"parameter of {FAMILY}", name, DEFAULTS)
    asked = {**DEFAULTS, **parameters}
    for name in ("min_rules", "max_rules"):
        number = asked[name]
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST:
            raise UserError(f"{name} of {FAMILY} must be a whole number from 1 to {MOST}, got {number!r}")
    if asked["min_rules"] > asked["max_rules"]:
        raise UserError(f"min_rules of {FAMILY} is {asked['min_rules']}, above max_rules ({asked['max_rules']}): set max_rules as high")
    rules = asked["rules"]
    if isinstance(rules, str):
        if rules not in _NAMED:
            raise unknown(f"set of rules of {FAMILY}", rules, _NAMED)
        return
    if not isinstance(rules, (list, tuple)) or not rules:
        raise UserError(f"rules of {FAMILY} must be {', '.join(_NAMED)} or a list of kinds, got {rules!r}")
    for kind in rules:
        if kind not in RULES:
            raise unknown("kind of rule", str(kind), RULES)


def sample_instructions(parameters: Mapping[str, Any], *, split: str, seed: int) -> Iterator[Task]:
    """Yield tasks without end, repetitions included. Raises UserError like `check_instruction_parameters`."""
    check_instruction_parameters(parameters)
    asked = {**DEFAULTS, **parameters}
    kinds = _NAMED[asked["rules"]] if isinstance(asked["rules"], str) else list(asked["rules"])
    random = Random(seed_for(FAMILY, split, seed))
    for number in count():
        request = sample_request(random, kinds, asked["max_rules"], asked["min_rules"])
        rules = [{"kind": kind, "arguments": arguments} for kind, arguments in request.rules]
        metadata = {"subject": request.subject, "rules": rules}
        yield Task(request.prompt, verifier=FAMILY, metadata=metadata, origin=f"{FAMILY}[{number}]")
