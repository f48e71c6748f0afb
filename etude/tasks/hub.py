"""Loads rows of a data set from the Hugging Face hub, or from a local folder that `datasets` can read, at once or streamed."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.models.hub import hub_if_reachable


def hub_rows(dataset: str, *, name: str | None, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every row of one split of a data set, with its origin.

    `name` is the configuration, for a data set that has several. Raises UserError if the data set cannot be loaded: offline and not in the
    cache, misspelt, private, or without that configuration or split.
    """
    return _rows(dataset, name, split)


def streamed_rows(dataset: str, *, name: str | None, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield rows like `hub_rows`, but streamed in order, for a data set that is larger than disk and memory."""
    return _rows(dataset, name, split, streaming=True)


def _rows(dataset: str, name: str | None, split: str, **options: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from datasets import load_dataset

    unreachable = None
    try:
        with nullcontext() if Path(dataset).exists() else hub_if_reachable() as unreachable:
            rows = load_dataset(dataset, name, split=split, **options)
        for index, row in enumerate(rows):
            yield f"{dataset}/{split}[{index}]", row
    except Exception as error:  # the hub, the network and the readers raise dozens of unrelated types, while they stream too
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if unreachable and isinstance(error, (ConnectionError, FileNotFoundError)):
            reason = f"it is not in the cache, and {unreachable}"
        raise UserError(
            f"dataset {dataset!r} (dataset_name {name!r}, split {split!r}) cannot be loaded: {reason}. "
            "Without a network, load it once where there is one, or give a file with path"
        ) from error
