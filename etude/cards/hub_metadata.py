"""Metadata at the top of a model card, which a model hub reads: base model, licence, data sets and evaluation results.

It holds only names that the hub knows: a base model or data set of this machine is named in the card's text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache

from etude.errors import UserError
from etude.models.adapter_folders import base_of_adapter, is_adapter
from etude.models.hub import ID, is_hub_id

BUNDLED_ORIGINS = {"smollm2-135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
"""Hub id and licence of the bundled models."""
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_MEASURES = {
    "accuracy": ("accuracy", "greedy accuracy"),
    "sampled_accuracy": ("accuracy", "sampled accuracy"),
    "mean_reward": ("mean_reward", "mean reward"),
}
"""Metrics of a row: their name at the hub, and in words."""


def hub_metadata(
    name: str, model: str, *, library: str = "transformers", datasets: Sequence[str | None] = (), results: Sequence[EvalResult] = ()
) -> str:
    """Return the metadata, as YAML, of the card `name` of a model made from `model`; of `datasets`, only those on the hub."""
    base, licence = origin(model)
    known = sorted({dataset for dataset in datasets if dataset and is_hub_id(dataset)})
    data = ModelCardData(
        library_name=library,
        pipeline_tag="text-generation",
        tags=["etude"],
        base_model=base,
        license=licence,
        datasets=known or None,
        model_name=_bare(name) if results else None,
        eval_results=list(results) or None,
    )
    return yaml.safe_dump(data.to_dict(), sort_keys=False, allow_unicode=True)


def origin(model: str) -> tuple[str | None, str | None]:
    """Return the hub id of a model or of its base, and its licence, each None if unknown; a folder is looked up in its own card."""
    if model in BUNDLED_ORIGINS:
        return BUNDLED_ORIGINS[model]
    place = Path(model).expanduser()
    if place.is_dir() and is_adapter(place):
        with suppress(UserError):  # reported when the model is loaded
            return origin(base_of_adapter(model, place))
    is_id = is_hub_id(model)
    card = try_to_load_from_cache(model, "README.md") if is_id else place / "README.md"
    metadata = _metadata_of(Path(card)) if isinstance(card, (str, Path)) else {}
    base, licence = (model if is_id else metadata.get("base_model")), metadata.get("license")
    is_base = isinstance(base, str) and ID.fullmatch(base)
    return (base if is_base else None, licence if isinstance(licence, str) and _LICENCE.fullmatch(licence) else None)


def _metadata_of(card: Path) -> Mapping[str, Any]:
    """Read the metadata of a card; empty if there is none that can be read."""
    try:
        metadata: dict[str, Any] = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return metadata


def _bare(name: str) -> str:
    """Remove characters of an outside name that a hub could show as markup."""
    return " ".join(re.sub(r"[^\w ./:,+-]", " ", str(name)).split()) or "unnamed"


def eval_results(rows: Sequence[Mapping[str, Any]], dataset: str | None) -> Iterator[EvalResult]:
    """Yield the metrics of the final model, suite by suite."""
    for row in rows:
        if row["model"] != "practice":
            continue
        suite = _bare(row["suite"])
        kind = dataset if dataset and is_hub_id(dataset) else re.sub(r"[^a-z0-9]+", "-", suite.lower()).strip("-") or "unnamed"
        for measure, (metric, words) in _MEASURES.items():
            value = row.get(measure)
            if value is None:
                continue
            low, high = row.get(f"{measure}_low"), row.get(f"{measure}_high")
            interval = f", 95 %: {low:.4g} to {high:.4g}" if low is not None and high is not None else ""
            yield EvalResult(
                task_type="text-generation",
                dataset_type=kind,
                dataset_name=suite,
                metric_type=metric,
                metric_name=f"{words} (n = {row['n']}{interval})",
                metric_value=round(value, 4),
            )
