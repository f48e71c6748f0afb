"""Export: write a model for another program, and measure what that program answers with it, beside the model itself."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from etude.console.reporter import Reporter
from etude.device.machine import threads_of
from etude.engine.protocols import PrefixEngine
from etude.errors import UserError
from etude.evaluation.measure import OtherAnswer, Suite
from etude.export.card import CARD, is_card, write_card
from etude.export.formats import Format
from etude.models.load import describe_weights, transformers_name
from etude.models.save import copy_prompt_settings
from etude.recipes.evaluate import evaluate_beside
from etude.recipes.evaluate_settings import EvaluateSettings, parse_evaluate
from etude.recipes.results import Result


def check_place(out: Path, kind: Format, *, force: bool) -> None:
    """Check that an export can be written to `out`. Raises UserError for a wrong ending, and for something that must not be replaced.

    `force` replaces a file, or a folder that an export wrote.
    """
    if kind.ending and out.suffix != kind.ending:
        raise UserError(f"--out {out}: {kind.name} is one file: name one that ends in {kind.ending}")
    if not kind.ending and out.suffix in (".gguf", ".onnx", ".xml", ".safetensors"):
        raise UserError(f"--out {out}: {kind.name} is a folder: name a folder")
    if not out.exists():
        return
    if not force:
        raise UserError(f"--out {out}: exists already: name another place, or replace it with --force")
    if out.is_dir() == bool(kind.ending) or (out.is_dir() and not is_card(out / CARD)):
        raise UserError(f"--out {out}: --force replaces what an export of {kind.name} wrote, and this is something else: remove it first")


def export(model: str, kind: Format, out: Path, quantization: str | None = None, *, force: bool = False) -> dict[str, Any]:
    """Write a model in another program's format and return what, where and how large it is.

    `bytes_before`: of the model's weights as they are saved; None if they are in memory or on a hub. Nothing is left of an export that
    fails. Raises UserError for an existing `out` (see `check_place`), a missing package, and a model that the format can't hold.
    """
    chosen = kind.chosen(quantization)
    check_place(out, kind, force=force)
    kind.check_installed()
    out.resolve().parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    _remove(partial)
    try:
        kind.export(model, partial, chosen)
        before = _bytes_before(model)
        if partial.is_dir():
            copy_prompt_settings(model, partial)
            write_card(partial, kind, chosen, model)
        _remove(out)
        os.replace(partial, out)
    finally:
        _remove(partial)
    found = {"model": model, "weights": describe_weights(model), "format": kind.name, "quantization": chosen, "out": str(out)}
    return found | {"bytes": bytes_of(out), "bytes_before": before}


def measure_export(
    model: str, kind: Format, out: Path, settings: EvaluateSettings, *, data: Path | None = None, reporter: Reporter | None = None
) -> Result:
    """Measure a model and what its export's runtime answers to the same tasks: rows have `export_accuracy`, `export_gain`, and so on.

    Only greedy answers are compared: what the settings sample, search or decode otherwise is left out. Raises UserError if the runtime is
    not installed.
    """
    kind.check_runtime()
    threads = threads_of(settings.machine)

    def answers(engine: PrefixEngine, longest: int, suite: Suite) -> list[OtherAnswer]:
        room = max(map(len, suite.prompts)) + longest
        answer = kind.open(out, longest_tokens=room, ends=engine.end_tokens, threads=threads)
        return [OtherAnswer(engine.text_of(tokens), len(tokens)) for tokens in answer(suite.prompts, longest)]

    return evaluate_beside(model, greedy_alone(settings), "export", answers, data, reporter)


def greedy_alone(settings: EvaluateSettings) -> EvaluateSettings:
    """Return the settings without what is sampled, searched or decoded by a method."""
    plain = EvaluateSettings()
    evaluation = replace(settings.evaluation, pass_n=0, thought=plain.evaluation.thought)
    return replace(
        settings, evaluation=evaluation, search=plain.search, decoding=plain.decoding, judge=plain.judge, kv_cache=plain.kv_cache
    )


def parse_measured(model: str, overrides: Sequence[str]) -> EvaluateSettings:
    """Read the settings of a measurement as `etude evaluate` does; without a recipe and files, those of the run that the model is of.

    Raises UserError if there is no such run.
    """
    settings = parse_evaluate(model, overrides)
    if settings.recipe is not None or settings.evaluation.path:
        return settings
    run = Path(model).resolve().parent / "configuration.yaml"
    if not Path(model).is_dir() or not run.is_file():
        raise UserError(
            f"--evaluate measures on the tasks of a run, and {model} is in no run's folder: name a configuration by --recipe, or files by "
            "--evaluation.path"
        )
    return parse_evaluate(model, [*overrides, "--recipe", str(run)])


def sentences_of(found: Mapping[str, Any], kind: Format) -> list[str]:
    """Return what an export is, its size beside the model's, and how it is run."""
    before = f"; the model has {found['bytes_before'] / 1e6:,.1f} MB" if found["bytes_before"] else ""
    head = f"{found['out']}: {kind.summary}, {found['quantization']}, {found['bytes'] / 1e6:,.1f} MB{before}"
    lines = kind.lines_at(found["out"]) if kind.ending or not kind.commands else []  # a folder's README.md has them
    return [head, "to run it:", *(f"  {line}".rstrip() for line in (*kind.commands_at(found["out"]), *lines))]


def bytes_of(place: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    return sum(path.stat().st_size for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file())


def _bytes_before(model: str) -> int | None:
    place = Path(transformers_name(model) or model)
    if place.is_file():
        return bytes_of(place)
    return sum(map(bytes_of, place.glob("*.safetensors"))) or None


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
