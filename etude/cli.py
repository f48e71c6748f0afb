"""The `etude` command: parsing and printing, nothing else."""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import UserError, unknown
from etude.interruption import Interrupted, Interruption

USAGE = """etude: language models get better by practising

  etude adapt NAME_OR_YAML [--key value ...]      learn a domain from text
  etude practice NAME_OR_YAML [--key value ...]   improve on tasks by own attempts
  etude evaluate MODEL [--key value ...]          measure a model on suites
  etude evaluate MODEL --suite NAME_OR_YAML       what it knew and could do before: retention; knows of a domain: domain; knows and does not
                                                  say: knows-says; or finds in long texts, with what --engine.view keeps of them: long
  etude generate MODEL [--key value ...]          answer prompts
  etude report RUN [RUN ...] [--out FILE]         the page of a run, or of several side by side
  etude report RUN --pack FILE.zip                a run for somebody else: no weights, no paths of this machine, no tokens
  etude models [list | fetch NAME | convert MODEL FOLDER]
  etude models interpolate START END --factor A --out DIR

  etude COMMAND --help                            every setting of a command
"""

COMMON = {
    "run": "--run DIR      the run folder (default runs/NAME)",
    "data": "--data DIR     the folder of data sets (default: the variable ETUDE_DATA)",
    "json": "--json FILE    write the result there too",
    "track": "--track NAMES  trackers to tell too: tensorboard, wandb, trackio, ... (one, or several with commas)",
    "resume": "--resume       go on with an unfinished run",
    "dry_run": "--dry-run      print the resolved configuration, try one step for time, memory and disk, and stop",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for wrong input, 130 or 143 when stopped by Ctrl-C or SIGTERM."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if arguments[0] == "--version":
        from etude import __version__

        print(f"etude {__version__}")
        return 0
    _quiet_libraries()
    try:
        command = COMMANDS.get(arguments[0])
        if command is None:
            raise unknown("command", arguments[0], COMMANDS)
        with Interruption():
            command(arguments[1:])
        return 0
    except UserError as error:
        print(f"etude: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"etude: stopped by {stop.name} {stop.note}".rstrip(), file=sys.stderr)
        return stop.exit_status
    except KeyboardInterrupt:
        print("etude: interrupted; go on with --resume where a run folder was being written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        print(f"etude: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2


def _practice(arguments: list[str]) -> None:
    from etude.configuration import find_configuration, resolved, shipped

    names = ", ".join(shipped("practice"))
    if _wants_help(arguments):
        from etude.recipes.settings import PracticeSettings

        head = f"etude practice NAME_OR_YAML [--key value ...]\n\nconfigurations that ship: {names}"
        return _help(f"{head}\n\n{_common_help()}", PracticeSettings)
    common, rest = _common(arguments, *COMMON)
    path = find_configuration("practice", _first(rest, f"practice needs a configuration: a YAML file or one of {names}"))
    from etude.recipes.settings import parse_practice  # only now, since it waits for torch

    settings = parse_practice(path, rest[1:])
    if common.dry_run:
        return _dry_run(settings, resolved(settings), path.stem, common.data)
    from etude.recipes.practice import practice_named
    from etude.tracking import Tracked
    from etude.watching import Console, Watcher

    run = common.run or Path("runs") / path.stem
    watcher: Watcher = Console()
    if common.track:
        watcher = Tracked(watcher, common.track.split(","), run, resolved(settings))
    try:
        result = practice_named(settings, path.stem, run=run, data=common.data, resume=common.resume, watcher=watcher)
    finally:
        if isinstance(watcher, Tracked):
            watcher.close()
    _write_json(common.json, result)


def _adapt(arguments: list[str]) -> None:
    from etude.configuration import find_configuration, resolved, shipped
    from etude.recipes.adapt import adapt_named
    from etude.recipes.adapt_settings import AdaptSettings, parse_adapt
    from etude.watching import Console

    names, options = ", ".join(shipped("adapt")), ("run", "data", "json", "resume", "dry_run")
    if _wants_help(arguments):
        head = f"etude adapt NAME_OR_YAML [--key value ...]\n\nconfigurations that ship: {names}"
        return _help(f"{head}\n\n{_common_help(*options)}", AdaptSettings)
    common, rest = _common(arguments, *options)
    path = find_configuration("adapt", _first(rest, f"adapt needs a configuration: a YAML file or one of {names}"))
    run = common.run or Path("runs") / path.stem
    settings = parse_adapt(path, rest[1:])
    if common.dry_run:
        import yaml

        from etude.recipes.estimate_adapt import estimate_adaptation

        print(yaml.safe_dump(resolved(settings), sort_keys=False), end="", flush=True)
        return print(f"# {estimate_adaptation(settings, common.data)}")
    result = adapt_named(settings, path.stem, run=run, data=common.data, resume=common.resume, watcher=Console())
    _write_json(common.json, result)


def _evaluate(arguments: list[str]) -> None:
    from etude.recipes.evaluate import EvaluateSettings, evaluate, parse_evaluate

    options = ("data", "json")
    suite, arguments = _take(arguments, "--suite")
    if suite:
        return _evaluate_suite(suite, arguments, *options)
    if _wants_help(arguments):
        head = "etude evaluate MODEL [--key value ...]\netude evaluate MODEL --suite NAME_OR_YAML [--key value ...]"
        return _help(f"{head}\n\n{_common_help(*options)}", EvaluateSettings)
    common, rest = _common(arguments, *options)
    model = _first(rest, "evaluate needs a model: a bundled name, a folder, a .gguf file or a hub id")
    settings = parse_evaluate(model, rest[1:])
    from etude.watching import Console

    result = evaluate(model, settings, data=common.data, watcher=Console())
    _write_json(common.json, result)


def _evaluate_suite(suite: str, arguments: list[str], *options: str) -> None:
    from etude.configuration import command_of, shipped
    from etude.recipes.domain_suite import MeasuredDomain, evaluate_domain, parse_domain
    from etude.recipes.knows_says import KnowsSays, evaluate_knows, parse_knows
    from etude.recipes.long_suite import LongSuite, evaluate_long, parse_long
    from etude.recipes.retention_suite import RetentionSuite, evaluate_suite, parse_suite
    from etude.watching import Console

    kinds: dict[str, tuple[Any, Any, Any]] = {
        "domain": (MeasuredDomain, parse_domain, evaluate_domain),
        "knows": (KnowsSays, parse_knows, evaluate_knows),
        "long": (LongSuite, parse_long, evaluate_long),
        "suite": (RetentionSuite, parse_suite, evaluate_suite),
    }
    names = {name: kind for kind in kinds for name in shipped(kind)}
    kind = command_of(Path(suite)) if Path(suite).is_file() else names.get(suite)
    if kind is None and not suite.endswith((".yaml", ".yml")):
        raise unknown("suite", suite, names)
    settings, parsed, evaluated = kinds.get(kind or "", kinds["suite"])
    if _wants_help(arguments):
        head = f"etude evaluate MODEL --suite NAME_OR_YAML [--key value ...]\n\n{_common_help(*options)}"
        own = "  --page FILE    write a page of what the policy keeps of a text, or reads\n" if kind == "long" else ""
        return _help(head + own, settings)
    page, arguments = _take(arguments, "--page") if kind == "long" else (None, arguments)
    if page and Path(page).is_dir():
        raise UserError(f"--page {page}: is a folder: name a file in it")
    common, rest = _common(arguments, *options)
    model = _first(rest, f"evaluate needs a model before --suite {suite}: a bundled name, a folder, a .gguf file or a hub id")
    paged = {"page": page} if page else {}
    _write_json(common.json, evaluated(model, parsed(suite, rest[1:]), data=common.data, watcher=Console(), **paged))


def _generate(arguments: list[str]) -> None:
    from etude.recipes.generate import GenerateSettings, generate, parse_generate, prompts_from

    if _wants_help(arguments):
        head = "etude generate MODEL --prompt TEXT | --file FILE [--key value ...]"
        own = "  --page FILE    write a page of answers by a --method: samples, and agreement on each token\n"
        return _help(f"{head}\n\n{_common_help('json')}{own}", GenerateSettings)
    common, rest = _common(arguments, "json")
    page, rest = _take(rest, "--page")
    model = _first(rest, "generate needs a model: a bundled name, a folder, a .gguf file or a hub id")
    settings = parse_generate(model, rest[1:])
    if page and not settings.decoding.is_on:
        raise UserError("--page shows answers that were made of several: choose a --method, such as integrative, or leave it out")
    if page and Path(page).is_dir():
        raise UserError(f"--page {page}: is a folder: name a file in it")
    prompts = prompts_from(settings, sys.stdin)
    streams = sys.stdout.isatty() and len(prompts) == settings.num_samples == 1
    is_written = streams and not settings.search.is_on and settings.thought.budget_tokens is None
    answered = 0

    def tell(row: dict[str, Any]) -> None:
        nonlocal answered
        answered += 1
        shows = sys.stderr.isatty() and not sys.stdout.isatty() and len(prompts) > 1
        for text in [""] if is_written else row["completions"]:
            print(text if len(prompts) == 1 else json.dumps({"prompt": row["prompt"], "completion": text}, ensure_ascii=False), flush=True)
        if shows:
            print(f"\r{answered:,} of {len(prompts):,} answered", end="\n" if answered == len(prompts) else "", file=sys.stderr, flush=True)

    rows = generate(model, prompts, settings, write=_write_piece if streams else None, done=tell)
    if page:
        from etude.evaluation.report.answers import write_answers

        write_answers(rows, settings.decoding.method, Path(model).name, Path(page))
    _write_json(common.json, rows)


def _write_piece(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _report(arguments: list[str]) -> None:
    from etude.evaluation.report import write_report

    if _wants_help(arguments) or not arguments:
        print(
            "etude report RUN [RUN ...] [--out FILE]\netude report RUN --pack FILE.zip\n\n"
            "One self-contained page; default: report.html in the first run folder. --pack writes a run for somebody else."
        )
        return
    packed, rest = _take(arguments, "--pack")
    out, runs = _take(rest, "--out")
    if packed:
        from etude.recipes.pack import pack

        if len(runs) != 1 or out:
            raise UserError("--pack takes one run, and no --out: etude report RUN --pack FILE.zip")
        return print(pack(Path(runs[0]), Path(packed)))
    page = write_report([Path(run) for run in runs], Path(out) if out else Path(runs[0]) / "report.html")
    print(page)


def _models(arguments: list[str]) -> None:
    from etude import models

    if _wants_help(arguments):
        print(
            "etude models [list | fetch NAME | convert MODEL FOLDER]\n"
            "etude models interpolate START END [--factor A] [--groups early=A late=A ...] --out DIR\n\n"
            "fetch says what it installs, convert writes a folder; interpolate writes a model between two, (1 - A) START + A END, with "
            "factors of their own for groups of layers: embeddings, early, middle, late, head."
        )
        return
    match arguments:
        case [] | ["list"]:
            for name, note, state in models.available():
                print(f"{name}\t{note}\t{state}")
        case ["fetch", name]:
            print(models.fetch(name))
        case ["convert", source, folder]:
            print(models.convert(source, Path(folder)))
        case ["interpolate", *rest]:
            print(_interpolate(rest))
        case _:
            raise UserError("models takes: list, fetch NAME, convert MODEL FOLDER, or interpolate START END --factor A --out DIR")


def _interpolate(arguments: list[str]) -> Path:
    from etude.interpolation import interpolate

    factor, rest = _take(arguments, "--factor")
    out, rest = _take(rest, "--out")
    at = next((place for place, word in enumerate(rest) if word.startswith("--groups")), len(rest))
    groups = [word for word in (rest[at].partition("=")[2], *rest[at + 1 :]) if word] if at < len(rest) else []
    if len(rest[:at]) != 2 or out is None:
        raise UserError("interpolate takes two models and a folder: etude models interpolate START END --factor A --out DIR")
    named = {name: _share("--groups " + name, value) for name, _, value in (word.partition("=") for word in groups)}
    return interpolate(rest[0], rest[1], Path(out), factor=None if factor is None else _share("--factor", factor), groups=named)


def _share(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{name} must be a number in [0, 1], got {text!r}") from error


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "adapt": _adapt,
    "practice": _practice,
    "evaluate": _evaluate,
    "generate": _generate,
    "report": _report,
    "models": _models,
}


@dataclass
class _Common:
    """The values of the common options."""

    run: Path | None = None
    data: Path | None = None
    json: Path | None = None
    track: str | None = None
    resume: bool = False
    dry_run: bool = False


def _common(arguments: list[str], *names: str) -> tuple[_Common, list[str]]:
    """The common options that a command takes, and what is left."""
    common, rest = _Common(), list(arguments)
    for name in names:
        option = "--" + name.replace("_", "-")
        if isinstance(getattr(common, name), bool):
            setattr(common, name, option in rest)
            rest = [argument for argument in rest if argument != option]
            continue
        value, rest = _take(rest, option)
        setattr(common, name, value if name == "track" or not value else Path(value))
    if "data" in names and common.data is None and os.environ.get("ETUDE_DATA"):
        common.data = Path(os.environ["ETUDE_DATA"])
    if common.json and common.json.is_dir():
        raise UserError(f"--json {common.json}: is a folder: name a file in it")
    if common.data and not common.data.is_dir():
        raise UserError(f"--data {common.data}: no such folder")
    return common, rest


def _common_help(*names: str) -> str:
    return "common options\n" + "".join(f"  {text}\n" for name, text in COMMON.items() if not names or name in names)


def _first(rest: Sequence[str], message: str) -> str:
    """The word that a command begins with: a configuration or a model."""
    if not rest or rest[0].startswith("--"):
        raise UserError(message)
    return rest[0]


def _take(arguments: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of `--option VALUE` or `--option=VALUE`, and the other arguments."""
    rest: list[str] = []
    value = None
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == option:
            if not queue:
                raise UserError(f"{option} needs a value")
            value = queue.pop(0)
        elif argument.startswith(option + "="):
            value = argument.split("=", 1)[1]
        else:
            rest.append(argument)
    return value, rest


def _dry_run(settings: Any, values: dict[str, Any], name: str, data: Path | None) -> None:
    import yaml

    from etude.recipes.estimate import estimate
    from etude.recipes.materials import gather

    print(yaml.safe_dump(values, sort_keys=False), end="")
    facts = gather(settings, name, data).facts
    print("# tasks: " + ", ".join(f"{key} {value:.4g}" for key, value in facts.items()))
    attempts = settings.steps * settings.explore.tasks_per_step * settings.explore.num_samples
    turns = f"{settings.explore.turns} turns of at most " if settings.explore.turns > 1 else ""
    print(f"# {settings.steps} steps, {attempts} attempts of at most {turns}{settings.explore.max_new_tokens} tokens", flush=True)
    aside = [*(["the judge"] if "judge" in settings.feedback_parts else []), *(["the adaptation"] if settings.adaptation else [])]
    without = f"; the time of {' and '.join(aside)} aside" if aside else ""
    print(f"# {estimate(settings, name, data)}{without}")


def _wants_help(arguments: Sequence[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _help(head: str, kind: type[Any]) -> None:
    from etude.configuration import help_of

    print(head + "\n" + help_of(kind))


def _write_json(path: Path | None, value: Any) -> None:
    if path is not None:
        from etude.runs import write_atomically

        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _quiet_libraries() -> None:
    """Set what libraries read on import: no progress bars and advice of theirs."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.basicConfig(format="etude: %(message)s", level=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
