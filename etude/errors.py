"""Errors of users, each in one sentence.

`UserError` names the argument, the value, what is allowed and the fix. The command line prints it without a traceback and exits with 2;
Python callers catch it as a `ValueError`. Mistakes of our own are assertions.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from etude.settings.spellings import our_value

_MOST_CHOICES, _NEAREST = 40, 6
"""The most choices that an error lists, and how many nearest ones it lists if there are more."""


class UserError(ValueError):
    """Wrong input: the message says how to correct it."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """Return an error for an unknown name, with the nearest match and all choices (of very many, the nearest).

    Another library's name for a choice counts as a match.

    >>> unknown("advantage", "grpoo", ["grpo", "rloo"])
    UserError("unknown advantage 'grpoo': did you mean 'grpo'? Choices: grpo, rloo")
    """
    choices = sorted(choices)
    ours, note = our_value(kind, name) or ("", "")
    spelled = name.strip().lower().replace("-", "_")
    near = [ours] if ours in choices else [spelled] if spelled in choices else get_close_matches(name, choices, n=1)
    hint = f" did you mean {near[0]!r}{f' ({note})' if note and near[0] == ours else ''}?" if near else ""
    if len(choices) <= _MOST_CHOICES:
        return UserError(f"unknown {kind} {name!r}:{hint} Choices: {', '.join(choices)}")
    nearest = get_close_matches(name, choices, n=_NEAREST, cutoff=0.0)
    return UserError(f"unknown {kind} {name!r}:{hint} Nearest of {len(choices)}: {', '.join(nearest)}")


def value_hint(setting: str, value: str) -> str:
    """Return a hint with our name for another library's value, as a question; "" if it is not known."""
    ours = our_value(setting, value)
    return f" did you mean {ours[0]!r}?" if ours else ""


def check_known(kind: str, name: str, choices: Iterable[str]) -> None:
    """Raise UserError if a name is not in a table."""
    if name not in choices:
        raise unknown(kind, name, choices)


def at_least(name: str, value: int, least: int) -> None:
    """Raise UserError if a setting is too small."""
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}")
