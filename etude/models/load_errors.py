"""Reports in one sentence why a model cannot be loaded, for any error of the libraries."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.models.hub import hub_if_reachable, missing_and_unreachable
from etude.models.model_folder import INDEX, SETTINGS, check_files

_MEANT = {
    "Couldn't instantiate the backend tokenizer": "it has no tokenizer that can be read: tokenizer.json is missing, or what its tokenizer "
    "needs is not installed (sentencepiece, tiktoken)",
    "You set `ignore_mismatched_sizes`": "the sizes in config.json are not those of its weights",
}
"""Prefixes of error messages, and their meanings."""


@contextmanager
def explain_load_errors(name: str, *, is_hub_id: bool = False) -> Iterator[None]:
    """Convert any error within the context to a UserError that names the model.

    The small files of a hub id are checked like those of a folder before anything else is loaded. If the hub is unreachable, the model is
    loaded from the cache, or a UserError is raised at once.
    """
    with hub_if_reachable() if is_hub_id else nullcontext() as unreachable:
        try:
            if is_hub_id:
                _check_hub_files(name, unreachable)
            yield
        except UserError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise UserError(f"model {name!r} can't be loaded: {first_sentence(error)}") from error


def is_panic(error: BaseException) -> bool:
    """Tell whether an error is a panic of a Rust library such as tokenizers, which is not an `Exception` in Python."""
    return type(error).__name__ == "PanicException"


def first_sentence(error: BaseException) -> str:
    """Return the first sentence of an exception's message.

    >>> first_sentence(ValueError("Validation error for field 'width':\\n    expected int\\nand a page more"))
    "Validation error for field 'width': expected int"
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    for begin, meaning in _MEANT.items():
        if lines[0].startswith(begin):
            return meaning
    said = lines.pop(0)
    while said.endswith(":") and lines:
        said += f" {lines.pop(0)}"
    if isinstance(error, (LookupError, AttributeError, TypeError, RecursionError)) or is_panic(error):
        said = f"its files are not what the libraries expect ({type(error).__name__}: {said})"
    return said[:300]


def _check_hub_files(name: str, unreachable: str | None) -> None:
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils import cached_file

    if unreachable and not isinstance(try_to_load_from_cache(name, SETTINGS[0]), str):
        raise missing_and_unreachable("model", name, unreachable)
    found = cached_file(name, SETTINGS[0])
    for file in (INDEX, *SETTINGS[1:]):
        cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    if found is not None:
        check_files(name, Path(found).parent)


def check_complete(info: Mapping[str, Any]) -> None:
    """Raise ValueError if weights are missing, which transformers would initialise randomly."""
    if info["missing_keys"]:
        raise ValueError(f"its files lack {', '.join(sorted(info['missing_keys'])[:3])}")
