"""A user's mistake, told in one sentence.

`UserError` says which argument, which value, what is allowed and the fix. The command line prints it without a traceback and exits with 2;
Python callers catch it as a `ValueError`. Mistakes of our own are assertions.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Wrong input: the message is all that a user needs to put it right."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """An error for a name that is not in a table, with the nearest match and every choice.

    >>> unknown("credit", "grpoo", ["grpo", "rloo"])
    UserError("unknown credit 'grpoo': did you mean 'grpo'? Choices: grpo, rloo")
    """
    choices = sorted(choices)
    near = get_close_matches(name, choices, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}:{hint} Choices: {', '.join(choices)}")


def check_known(kind: str, name: str, choices: Iterable[str]) -> None:
    """Raise where a name is not in a table."""
    if name not in choices:
        raise unknown(kind, name, choices)


def at_least(name: str, value: int, least: int) -> None:
    """Raise where a setting is too small."""
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}")
