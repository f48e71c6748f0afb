"""Removes data that identifies a machine and its user, and credentials, from a run's texts.

A setting that is a path, absolute, relative or of Windows, keeps only its last part. So does every path below the usual roots in a text,
and every repetition of a setting's path. User names become `[user]`. Tokens of known services, passwords in an address or after their name,
and private keys become `[secret]`. A token of an unknown form is not found.
"""

import getpass
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_ROOTS = (
    "home|root|Users|Volumes|private|mnt|data|work|workspace|workspaces|tmp|var|srv|opt|scratch|media|nfs|lustre|gpfs|export|content|kaggle|"
    "etc|run|nix|usr|proc|sys|dev|boot|lib|lib64|bin|sbin|snap|app|project|projects|storage|afs|efs|fsx|beegfs|cluster|net|vol|volume|"
    "Applications|Library|System|dbfs|databricks|gscratch|shared|users|homes|datasets|models|ssd|nvme|fast|cache"
)
_PART = r"""[^\s"'\\:,;<>|\]})/]+"""
_NO_ENDING = "".join(rf"(?<!\.\w{{{letters}}})" for letters in range(1, 7))
"""A space after a file's ending ends a path; elsewhere it may be part of a folder's name, which is followed by a slash."""
_PATH = re.compile(
    rf"(?<![\w./~-])(?:file://)?(?:~\w*|/(?:{_ROOTS})(?=/))(?:/+{_PART}(?:{_NO_ENDING} {_PART}){{0,3}}(?=/+[^\s/]))*(?:/+{_PART})/*"
)
_WINDOWS_PART = r"""[^\s"':,;<>|*?\\/]+"""
_WINDOWS = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]:[\\/]+"
    r"(?:Users|Documents and Settings|Program Files(?: \(x86\))?|ProgramData|Windows|Temp|home|work|data|projects?)"
    rf"(?:[\\/]+{_WINDOWS_PART}(?:{_NO_ENDING} {_WINDOWS_PART}){{0,3}}(?=[\\/]))*(?:[\\/]+{_WINDOWS_PART})[\\/]*",
    re.IGNORECASE,
)
_BEGINS_AS_PATH = re.compile(r"file://|~\w*/|\.{1,2}[\\/]|/[^\s/]+$|/[^/]+/|\\\\|[A-Za-z]:[\\/]")
_ENDS_AS_FILE = re.compile(r"[\\/].*\.(?:jsonl?|csv|tsv|txt|ya?ml|parquet|arrow|py|gguf|md|html?|gz|zip|safetensors|bin|pt)(?::\w+)?$")
_PATH_SETTINGS = ("path", "file", "function", "verifier")
_SECRET_SETTING = re.compile(r"(?:^|_)(?:api_?key|password|passwd|secret|authorization|access_?key|token|credentials?)$", re.IGNORECASE)

_SECRETS = (
    (r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:(?s:.)*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|(?s:.)*)", "[secret]"),
    (
        r"(?<![A-Za-z0-9])(?:hf_|sk-|[srp]k_(?:live|test)_|whsec_|gh[opsru]_|github_pat_|gl(?:pat|dt|ptt|rt)-|xox[abeoprs]-|xapp-|AKIA|ASIA|AIza|"
        r"ya29\.|npm_|pypi-|wandb_|dop_v1_|shpat_|SG\.|nvapi-|r8_|gsk_|pplx-|xai-|tgp_v1_|AGE-SECRET-KEY-)[A-Za-z0-9_.-]{11,}[A-Za-z0-9_-]",
        "[secret]",
    ),
    (r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*", "[secret]"),
    (r"(?i)\b(Bearer|Basic) +[A-Za-z0-9._~+/=-]{12,}", r"\1 [secret]"),
    (
        r"(?i)\b([\w-]{0,40}(?:api[_-]?key|access[_-]?key|secret|passw(?:or)?d|passwd|auth[_-]?token|access[_-]?token|private[_-]?key)"
        r"""[\w-]{0,40}["']?\s{0,9}[:=]\s{0,9}["']?)[^\s"',;}\[]{6,}""",
        r"\1[secret]",
    ),
    (r"(?<=://)[^\s/@]+@", "[secret]@"),
    (r"(?i)([?&](?:token|key|api_key|apikey|access_token|sig|signature)=)[^\s&#\"']+", r"\1[secret]"),
)
_HIDDEN = [(re.compile(pattern), instead) for pattern, instead in _SECRETS]

_USER = re.compile(r"(?:/home/|/Users/|/homes/|[A-Za-z]:[\\/]Users[\\/]|(?<![\w/])~)([^\\/\s:]+)")
_COMMON = frozenset(
    (
        *(
            "root",
            "user",
            "users",
            "ubuntu",
            "debian",
            "admin",
            "administrator",
            "runner",
            "nobody",
            "docker",
            "vagrant",
            "jovyan",
            "guest",
        ),
        *(
            "worker",
            "shared",
            "public",
            "default",
            "home",
            "app",
            "work",
            "test",
            "train",
            "data",
            "base",
            "model",
            "models",
            "python",
            "etude",
        ),
    )
)
"""Names that do not identify a person, and frequent words of runs."""

Clean = Callable[[str, str], str]
"""(text, its name) -> the redacted text."""


class Redaction:
    """Redacts the texts of one run; `settings` are its configuration and facts."""

    def __init__(self, settings: Iterable[Any]) -> None:
        texts = [text for value in settings for text in _texts(value)]
        names = {found for _, text in texts for found in _USER.findall(text)} | _own_names()
        names = {name for name in names if len(name) > 2 and name.lower() not in _COMMON}
        listed = "|".join(map(re.escape, sorted(names, key=lambda name: (-len(name), name))))
        self._users = re.compile(rf"(?<![A-Za-z0-9])(?:{listed})(?![A-Za-z0-9])" if names else r"(?!)")
        places = {text for name, text in texts if _is_path(text, name) and len(last_part(text)) < len(text)}
        self._places = sorted(places, key=lambda place: (-len(place), place))

    def of_text(self, text: str, name: str = "") -> str:
        """Remove paths, users and secrets from a text."""
        for place in self._places:
            text = text.replace(place, last_part(place))
        return self._users.sub("[user]", without_places(text))

    def of_setting(self, text: str, name: str) -> str:
        """Redact a setting or fact: a path if it looks like one, a secret if its name says so."""
        if _SECRET_SETTING.search(name):
            return "[secret]"
        return self.of_text(last_part(text) if _is_path(text, name) else text)


def walked(value: Any, clean: Clean, name: str = "") -> Any:
    """Apply `clean` to every text in a JSON or YAML value, including names of mappings; items of a list have the list's name."""
    if isinstance(value, str):
        return clean(value, name)
    if isinstance(value, dict):
        return {clean(str(inner), ""): walked(each, clean, str(inner)) for inner, each in value.items()}
    return [walked(each, clean, name) for each in value] if isinstance(value, list) else value


def without_places(text: str) -> str:
    """Cut absolute paths to their last part, and hide secrets.

    >>> without_places("path: /mnt/ann/my sets/train.jsonl, ~/keys, key hf_abcdefghijklmnopqrst, 1/2 and a/b")
    'path: train.jsonl, keys, key [secret], 1/2 and a/b'
    """
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    for pattern in (_WINDOWS, _PATH):
        text = pattern.sub(lambda found: last_part(found[0]), text)
    return text


def last_part(path: str) -> str:
    r"""Return the last part of a path, with either kind of slash.

    >>> last_part(r"C:\Users\ann\f.jsonl"), last_part("../my sets/mine.py:judge")
    ('f.jsonl', 'mine.py:judge')
    """
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def _is_path(text: str, name: str) -> bool:
    """Tell whether a setting is a path: `org/name` is a hub id unless it exists on this machine."""
    if len(text) > 4096 or "\n" in text or "://" in text.removeprefix("file://") or not re.search(r"[\\/]", text):
        return False
    if name in _PATH_SETTINGS or _BEGINS_AS_PATH.match(text) or _ENDS_AS_FILE.search(text):
        return True
    with suppress(OSError, ValueError):  # not a valid file name
        return (len(re.findall(r"[\\/]", text)) > 1 and " " not in text) or Path(text).exists()
    return False


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a value, with its name."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for inner, each in value.items():
            yield from _texts(each, str(inner))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, name)


def _own_names() -> set[str]:
    """Return the names of the current user."""
    names = {Path.home().name}
    with suppress(OSError, KeyError, ImportError):  # a user without a password entry
        names.add(getpass.getuser())
    return names
