"""The `etude` command: parses arguments and prints results, nothing else."""

import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etude.console.options import EVERYWHERE, Options, options_help, refuse_options, take_option, take_options
from etude.console.terminal import VisibleFormatter, visible
from etude.errors import UserError, unknown
from etude.models.hub import check_available
from etude.outputs import check_output, is_pack, is_page, is_standard_output, write_output
from etude.settings.configuration import to_plain_values
from etude.training.interruption import Interrupted, Interruption

USAGE = f"""etude: language models get better by practising

  etude adapt NAME_OR_YAML [--key value ...]      train on the text of a domain
  etude practice NAME_OR_YAML [--key value ...]   train on rewards of the model's own attempts at tasks (RL)
  etude evaluate MODEL [--key value ...]          measure a model on suites of tasks
  etude evaluate MODEL --suite NAME_OR_YAML       measure it on a suite: retention (general knowledge and skills), domain, latent-knowledge
                                                  (knowledge missing in answers), long (long contexts with a KV cache policy)
  etude generate MODEL [--key value ...]          answer prompts
  etude serve MODEL [--key value ...]             serve a model like OpenAI's interface
  etude report RUN [RUN ...] [--out FILE]         write an HTML report of one or several runs
  etude report RUN --pack FILE.zip                pack a run for sharing, without weights, local paths and access tokens
  etude watch RUN [--port N] [--host ADDRESS]     show the report of a run in a browser while it runs
  etude models [list | fetch NAME | convert MODEL FOLDER]
  etude models interpolate START END --factor A --out DIR
  etude models export MODEL --format FORMAT --out PLACE   write a model for llama.cpp, vLLM, onnxruntime-genai or openvino-genai

  etude recipes [show NAME]                       list the recipes that ship, or print one
  etude init FOLDER                               write a recipe, tasks and a verifier of your own to start from
  etude completion bash|zsh|fish                  print a script that completes commands and settings in a shell

  etude COMMAND --help [SECTION|all]              list the common settings of a command, those of a section, or all

{EVERYWHERE}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 2 for wrong input, 130 or 143 after Ctrl-C or SIGTERM."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    is_verbose, is_quiet = "--verbose" in given, bool({"-q", "--quiet"} & {*given})
    words = [word for word in given if word not in ("-q", "--quiet", "--verbose")]
    try:
        status = _run(words, is_quiet=is_quiet, is_verbose=is_verbose)
        sys.stdout.flush()  # here a closed pipe can be caught, not when the interpreter ends
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        if is_verbose:
            traceback.print_exc()
        print(f"etude: {visible(str(error))}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"etude: stopped by {stop.name} {stop.note}".rstrip(), file=sys.stderr)
        return stop.exit_status
    except KeyboardInterrupt as stop:
        print("; ".join(["etude: interrupted", *getattr(stop, "__notes__", ())]), file=sys.stderr)
        return 130
    except OSError as error:
        if is_verbose:
            traceback.print_exc()
        print(visible(f"etude: {error.filename or 'input or output'}: {error.strerror or error}"), file=sys.stderr)
        return 2


def _run(arguments: list[str], *, is_quiet: bool, is_verbose: bool) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if arguments[0] == "--version":
        from etude import __version__

        print(f"etude {__version__}")
        return 0
    command = COMMANDS.get(arguments[0])
    if command is None:
        raise unknown("command", arguments[0], COMMANDS)
    _set_logging(is_quiet=is_quiet, is_verbose=is_verbose)
    with Interruption():
        command(arguments[1:], is_quiet)
    return 0


def _practice(arguments: list[str], is_quiet: bool) -> None:
    from etude.settings.configuration import find_configuration, shipped_configurations
    from etude.training.parse import COMMON, SHORT, changed_settings, parse_practice
    from etude.training.settings import PracticeSettings

    names, options = ", ".join(shipped_configurations("practice")), ("run", "data", "json", "force", "track", "resume", "dry_run")
    if _wants_help(arguments):
        head = f"etude practice NAME_OR_YAML [--key value ...]\n\nrecipes (etude recipes): {names}\n\n{options_help(*options)}"
        here = _own_values(arguments, "practice", parse_practice)
        return _help(head, PracticeSettings, arguments, COMMON, SHORT, here)
    common, rest = take_options(arguments, *options)
    path = find_configuration("practice", _first(rest, f"practice needs a configuration: a YAML file or one of {names}"))
    settings = parse_practice(path, rest[1:])
    check_available(settings.model, settings.tasks.dataset)
    if common.dry_run:
        if changed := changed_settings(path.stem, settings):
            print(f"# changed from {path.stem}: {', '.join(f'{name} {value}' for name, value in changed.items())}")
        return _dry_run(settings, to_plain_values(settings), path.stem, common.data)
    from etude.console.tracking import TrackingReporter
    from etude.recipes.practice import practice_named

    run = common.run or Path("runs") / path.stem
    reporter = _reporter(common, is_quiet)
    if common.track:
        reporter = TrackingReporter(reporter, common.track.split(","), run, to_plain_values(settings))
    try:
        with _resumable(run):
            result = practice_named(settings, path.stem, run=run, data=common.data, resume=common.resume, reporter=reporter)
    finally:
        if isinstance(reporter, TrackingReporter):
            reporter.close()
    _write_json(common, result)


def _adapt(arguments: list[str], is_quiet: bool) -> None:
    from etude.recipes.adapt_settings import COMMON, AdaptSettings, parse_adapt
    from etude.settings.configuration import find_configuration, shipped_configurations, to_plain_values

    names, options = ", ".join(shipped_configurations("adapt")), ("run", "data", "json", "force", "resume", "dry_run")
    if _wants_help(arguments):
        head = f"etude adapt NAME_OR_YAML [--key value ...]\n\nrecipes (etude recipes): {names}\n\n{options_help(*options)}"
        return _help(head, AdaptSettings, arguments, COMMON, {}, _own_values(arguments, "adapt", parse_adapt))
    common, rest = take_options(arguments, *options)
    path = find_configuration("adapt", _first(rest, f"adapt needs a configuration: a YAML file or one of {names}"))
    run = common.run or Path("runs") / path.stem
    settings = parse_adapt(path, rest[1:])
    check_available(settings.model, settings.corpus.dataset)
    if common.dry_run:
        import yaml

        from etude.recipes.estimate_adapt import estimate_adaptation

        print(yaml.safe_dump(to_plain_values(settings), sort_keys=False), end="", flush=True)
        return print(f"# {estimate_adaptation(settings, common.data)}")
    from etude.recipes.adapt import adapt_named

    with _resumable(run):
        result = adapt_named(settings, path.stem, run=run, data=common.data, resume=common.resume, reporter=_reporter(common, is_quiet))
    _write_json(common, result)


def _own_values(arguments: Sequence[str], command: str, parse: Callable[[Path, Sequence[str]], Any]) -> dict[str, Any]:
    """Return the values of the recipe that a command's help is asked for, by dotted name; {} if it names none."""
    from etude.settings.configuration import find_configuration, recipe_values

    return {} if arguments[0].startswith("-") else recipe_values(find_configuration(command, arguments[0]), parse)


@contextmanager
def _resumable(run: Path) -> Iterator[None]:
    """Add to a Ctrl-C how to resume the run, if its folder exists."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if (run / "configuration.yaml").is_file():
            stop.add_note("go on with --resume")
        raise


def _evaluate(arguments: list[str], is_quiet: bool) -> None:
    from etude.recipes.evaluate_settings import COMMON, OWN_SHORT, EvaluateSettings, parse_evaluate

    options = ("data", "json", "force")
    suite, arguments = take_option(arguments, "--suite")
    if suite:
        return _evaluate_suite(suite, arguments, *options)
    if _wants_help(arguments):
        head = "etude evaluate MODEL [--key value ...]\netude evaluate MODEL --suite NAME_OR_YAML [--key value ...]"
        return _help(f"{head}\n\n{options_help(*options)}", EvaluateSettings, arguments, COMMON, OWN_SHORT)
    common, rest = take_options(arguments, *options)
    model, rest = _model(rest, "evaluate needs a model: a bundled name, a folder, a .gguf file or a hub id")
    if any(word.partition("=")[0] == "--tasks" for word in rest):
        raise UserError(
            "unknown setting --tasks: a suite that ships is named by --suite NAME, files of tasks by --evaluation.path FILE, and the tasks "
            "of a practice configuration by --recipe NAME"
        )
    settings = parse_evaluate(model, rest)
    check_available(model)
    from etude.recipes.evaluate import evaluate

    _write_json(common, evaluate(model, settings, data=common.data, reporter=_reporter(common, is_quiet)))


def _evaluate_suite(name: str, arguments: list[str], *options: str) -> None:
    from etude.suites.table import find_suite

    suite = find_suite(name)
    options = (*options, "page") if suite.has_page else options
    if _wants_help(arguments):
        page = {"page": "--page FILE    write an HTML page of the tokens that the policy keeps or reads"}
        head = f"etude evaluate MODEL --suite NAME_OR_YAML [--key value ...]\n\n{options_help(*options, more=page)}"
        return _help(head, suite.settings, arguments)
    common, rest = take_options(arguments, *options)
    if common.page:
        check_output("--page", common.page, is_page, force=common.force)
    model, rest = _model(rest, f"evaluate needs a model before --suite {name}: a bundled name, a folder, a .gguf file or a hub id")
    reporter = _reporter(common, is_quiet=False)  # the rows that a suite reports are its result
    _write_json(common, suite.evaluate(model, suite.parse(name, rest), data=common.data, page=common.page, reporter=reporter))


def _generate(arguments: list[str], is_quiet: bool) -> None:
    from etude.recipes.generate_settings import COMMON, SHORT, GenerateSettings, parse_generate, prompts_from

    options = ("json", "page", "force")
    if _wants_help(arguments):
        head = "etude generate MODEL --prompt TEXT | --file FILE [--key value ...]"
        page = {"page": "--page FILE    write an HTML page of a --method's answers, with samples and agreement on each token"}
        return _help(f"{head}\n\n{options_help(*options, more=page)}", GenerateSettings, arguments, COMMON, SHORT)
    common, rest = take_options(arguments, *options)
    model, rest = _model(rest, "generate needs a model: a bundled name, a folder, a .gguf file or a hub id")
    settings = parse_generate(model, rest)
    check_available(model)
    if common.page and not settings.decoding.is_on:
        raise UserError("--page shows the answers of a decoding method: choose a --method, such as integrative, or leave it out")
    if common.page:
        check_output("--page", common.page, is_page, force=common.force)
    prompts = prompts_from(settings, sys.stdin)
    answers = sys.stderr if is_standard_output(common.json) or is_standard_output(common.page) else sys.stdout
    streams = answers.isatty() and len(prompts) == settings.num_samples == 1
    is_written = streams and not settings.search.is_on and settings.thought.budget_tokens is None
    answered = 0

    def tell(row: dict[str, Any]) -> None:
        nonlocal answered
        answered += 1
        shows = sys.stderr.isatty() and not answers.isatty() and len(prompts) > 1 and not is_quiet
        for text in [""] if is_written else row["completions"]:
            line = text if len(prompts) == 1 else json.dumps({"prompt": row["prompt"], "completion": text}, ensure_ascii=False)
            print(visible(line) if answers.isatty() else line, file=answers, flush=True)  # files get the unescaped text
        if shows:
            print(f"\r{answered:,} of {len(prompts):,} answered", end="\n" if answered == len(prompts) else "", file=sys.stderr, flush=True)

    def write_piece(text: str) -> None:
        print(visible(text), end="", file=answers, flush=True)  # only a terminal is streamed to

    from etude.recipes.generate import generate

    rows = generate(model, prompts, settings, write=write_piece if streams else None, done=tell)
    if common.page:
        from etude.evaluation.report.answers_page import write_answers_page

        write_answers_page(rows, settings.decoding.method, Path(model).name, Path(common.page))
    _write_json(common, rows)


def _serve(arguments: list[str], is_quiet: bool) -> None:
    from etude.serve.settings import COMMON, ServeSettings
    from etude.settings.configuration import parse

    if _wants_help(arguments):
        head = f"etude serve MODEL [--key value ...]\n\nAnswer requests of OpenAI's interface, by default of this machine.\n\n{EVERYWHERE}"
        return _help(head, ServeSettings, arguments, COMMON)
    model, rest = _model(arguments, "serve needs a model: a bundled name, a folder, a .gguf file or a hub id")
    settings = parse(ServeSettings, None, rest)
    check_available(model)
    try:
        from etude.recipes.serve import serve
    except ModuleNotFoundError as error:
        raise UserError(f"serve needs the package {error.name}: pip install 'etude[serve]'") from None

    serve(model, settings, print)


def _report(arguments: list[str], is_quiet: bool) -> None:
    usage = "etude report RUN [RUN ...] [--out FILE] [--force], or etude report RUN --pack FILE.zip [--force]"
    if _wants_help(arguments) or not arguments:
        print(
            f"{usage}\n\nWrite a self-contained HTML page (default report.html in the first run folder), or --pack a run for sharing.\n"
            "- is standard output. Only --force replaces a file that etude did not write."
        )
        return
    packed, rest = take_option(arguments, "--pack")
    out, rest = take_option(rest, "--out")
    is_forced, runs = "--force" in rest, [Path(word) for word in rest if word != "--force"]
    refuse_options([str(run) for run in runs], usage)
    if not runs:
        raise UserError(f"report needs the folder of a run, such as runs/quickstart: {usage}")
    from etude.evaluation.report.run_folder import check_is_run

    for run in runs:
        check_is_run(run)
    if packed:
        from etude.export.pack import pack

        if len(runs) != 1 or out:
            raise UserError("--pack takes one run, and no --out: etude report RUN --pack FILE.zip")
        check_output("--pack", packed, is_pack, force=is_forced)
        return _say_where(pack(runs[0], Path(packed), replaces=is_forced))
    if out:
        check_output("--out", out, is_page, force=is_forced)
    from etude.evaluation.report import write_report

    _say_where(write_report(runs, Path(out) if out else runs[0] / "report.html"))


def _watch(arguments: list[str], is_quiet: bool) -> None:
    from etude.recipes.watch_settings import WatchSettings
    from etude.settings.configuration import parse

    usage = "etude watch RUN [--port N] [--host ADDRESS]"
    if _wants_help(arguments) or not arguments:
        head = (
            f"{usage}\n\nServe the report of a run as it stands, with its progress and last attempts. The page follows the run while it\n"
            f"runs, and stays when it ends. Nothing is written to the run's folder.\n\n{EVERYWHERE}"
        )
        return _help(head, WatchSettings, arguments)
    run, rest = Path(_first(arguments, f"watch needs the folder of a run, such as runs/quickstart: {usage}")), arguments[1:]
    if rest and not rest[0].startswith("--"):
        raise UserError(f"watch shows one run, got {run} and {rest[0]}: name one; etude report shows several side by side")
    settings = parse(WatchSettings, None, rest)
    try:
        from etude.recipes.watch import watch
    except ModuleNotFoundError as error:
        raise UserError(f"watch needs the package {error.name}: pip install 'etude[serve]'") from None

    watch(run, settings, print)


def _say_where(path: Path) -> None:
    if not is_standard_output(str(path)):
        print(path)


def _models(arguments: list[str], is_quiet: bool) -> None:
    if arguments[:1] == ["export"]:
        return _export(arguments[1:], is_quiet)
    if _wants_help(arguments):
        print(
            "etude models [list | fetch NAME | convert MODEL FOLDER]\n"
            "etude models interpolate START END [--factor A] [--groups early=A late=A ...] --out DIR\n"
            f"{_EXPORT}\n\n"
            "fetch says what it installs, convert writes a folder; interpolate writes the weights (1 - A) START + A END,\nwith --groups "
            "other factors for groups of layers: embeddings, early, middle, late, head. export writes a model for\nother programs: "
            "etude models export --help."
        )
        return
    match arguments:
        case [] | ["list"]:
            from etude.models.bundled import list_bundled

            for row in (("name", "model", "state"), *list_bundled()):
                print("\t".join(row))
        case ["fetch", name]:
            from etude.models.bundled_folder import fetch

            print(fetch(name))
        case ["convert", source, folder]:
            from etude.models.load import convert

            print(convert(source, Path(folder)))
        case ["interpolate", *rest]:
            print(_interpolate(rest))
        case _:
            raise UserError("models takes: list, fetch NAME, convert MODEL FOLDER, interpolate START END --factor A --out DIR, or export")


_EXPORT = "etude models export MODEL --format FORMAT --out PLACE [--quantization KIND] [--evaluate [--recipe NAME_OR_YAML]]"


def _export(arguments: list[str], is_quiet: bool) -> None:
    from etude.export.formats import FORMATS, find_format

    options = ("data", "json", "force")
    if _wants_help(arguments):
        listed = "\n".join(f"  {name:<10}{kind.summary}: {', '.join(kind.quantizations)}" for name, kind in FORMATS.items())
        about = (
            f"{_EXPORT}\n\nformats, with the kinds of their weights, the default first\n{listed}\n\n"
            "--evaluate measures the model and, in its own runtime, the export: on the evaluation of the model's run, or on\n"
            "--recipe, --evaluation.path and other settings of etude evaluate."
        )
        more = {"force": "--force        replace what an earlier export wrote, and a file of --json"}
        return print(f"{about}\n\n{options_help(*options, more=more)}")
    name, rest = take_option(arguments, "--format")
    quantization, rest = take_option(rest, "--quantization")
    out, rest = take_option(rest, "--out")
    common, rest = take_options([word for word in rest if word != "--evaluate"], *options)
    if name is None or out is None:
        raise UserError(f"export needs --format, one of {', '.join(FORMATS)}, and --out: {_EXPORT}")
    kind = find_format(name)
    kind.chosen(quantization)
    model, rest = _model(rest, f"export needs a model: {_EXPORT}")
    is_measured = "--evaluate" in arguments
    if not is_measured:
        refuse_options(rest, _EXPORT)
    from etude.recipes.export import check_place, export, measure_export, parse_measured, sentences_of

    check_place(Path(out), kind, force=common.force)
    settings = parse_measured(model, rest) if is_measured else None
    check_available(model)
    kind.check_installed()
    if settings is not None:
        kind.check_runtime()
    found = export(model, kind, Path(out), quantization, force=common.force)
    print(*sentences_of(found, kind), sep="\n", flush=True)
    if settings is not None:
        found |= measure_export(model, kind, Path(out), settings, data=common.data, reporter=_reporter(common, is_quiet))
    _write_json(common, found)


def _recipes(arguments: list[str], is_quiet: bool) -> None:
    from etude.settings.configuration import about, command_of, shipped

    usage = "etude recipes [show NAME]"
    if _wants_help(arguments):
        return print(f"{usage}\n\nList the recipes that ship, with their commands; show prints one, to be copied and changed.")
    known = {path.stem: path for path in shipped()}
    match arguments:
        case [] | ["list"]:
            for name, path in known.items():
                command = str(command_of(path))
                print(f"{command if command in COMMANDS else 'evaluate':<10}{name:<18}{about(path)}")
        case ["show", name]:
            if name not in known:
                raise unknown("recipe", name, known)
            print(known[name].read_text(encoding="utf8"), end="")
        case _:
            raise UserError(f"recipes takes nothing, or show NAME: {usage}")


def _init(arguments: list[str], is_quiet: bool) -> None:
    usage = "etude init FOLDER"
    if _wants_help(arguments):
        return print(
            f"{usage}\n\nWrite a commented recipe, tasks and a verifier to change, one command from a run. Nothing is overwritten."
        )
    refuse_options(arguments, usage)
    if len(arguments) != 1:
        raise UserError(f"init needs one folder: {usage}")
    from etude.recipes.init import write_practice

    for file in write_practice(Path(arguments[0])):
        print(file)
    if not is_quiet:
        print(f"now: cd {shlex.quote(arguments[0])} && etude practice recipe.yaml", file=sys.stderr)


def _completion(arguments: list[str], is_quiet: bool) -> None:
    from etude.console.completion import SHELLS, completion
    from etude.recipes.words import words_of_commands

    usage = f"etude completion {'|'.join(SHELLS)}"
    if _wants_help(arguments):
        return print(f'{usage}\n\nPrint a script that completes commands, recipes and settings: eval "$(etude completion bash)".')
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise UserError(f"completion needs the name of a shell: {usage}")
    print(completion(arguments[0], words_of_commands(COMMANDS)), end="")


def _interpolate(arguments: list[str]) -> Path:
    factor, rest = take_option(arguments, "--factor")
    out, rest = take_option(rest, "--out")
    at = next((place for place, word in enumerate(rest) if word.startswith("--groups")), len(rest))
    groups = [word for word in (rest[at].partition("=")[2], *rest[at + 1 :]) if word] if at < len(rest) else []
    if len(rest[:at]) != 2 or out is None:
        raise UserError("interpolate takes two models and a folder: etude models interpolate START END --factor A --out DIR")
    named = {name: _share("--groups " + name, value) for name, _, value in (word.partition("=") for word in groups)}
    from etude.models.interpolation import interpolate

    return interpolate(rest[0], rest[1], Path(out), factor=None if factor is None else _share("--factor", factor), groups=named)


def _share(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{name} must be a number in [0, 1], got {text!r}") from error


COMMANDS: dict[str, Callable[[list[str], bool], None]] = {
    "adapt": _adapt,
    "practice": _practice,
    "evaluate": _evaluate,
    "generate": _generate,
    "serve": _serve,
    "report": _report,
    "watch": _watch,
    "models": _models,
    "recipes": _recipes,
    "init": _init,
    "completion": _completion,
}


def _first(rest: Sequence[str], message: str) -> str:
    """Return the first argument of a command: a configuration or a model. Raises UserError without one."""
    if not rest or rest[0].startswith("--"):
        raise UserError(message)
    return rest[0]


def _model(arguments: Sequence[str], message: str) -> tuple[str, list[str]]:
    """Return the model that a command begins with, or that `--model` names, and the other arguments."""
    named, rest = take_option(arguments, "--model")
    if named is None:
        return _first(rest, message), list(rest[1:])
    if rest and not rest[0].startswith("--"):
        raise UserError(f"the model is given twice: {rest[0]} and --model {named}; give it once")
    return named, rest


def _reporter(common: Options, is_quiet: bool) -> Any:
    """Return the reporter of a run: on standard error if standard output is for the result."""
    from rich.console import Console as RichConsole

    from etude.console.reporter import Console, ResultsOnly

    console = RichConsole(stderr=True, highlight=False, soft_wrap=True, markup=False) if is_standard_output(common.json) else None
    return ResultsOnly(console) if is_quiet else Console(console)


def _dry_run(settings: Any, values: dict[str, Any], name: str, data: Path | None) -> None:
    import yaml

    from etude.recipes.estimate import estimate
    from etude.training.data import load_data
    from etude.training.parse import callbacks_of
    from etude.training.unused_settings import said_of_unused

    print(yaml.safe_dump(values, sort_keys=False), end="")
    for sentence in said_of_unused(settings):
        print(f"# {sentence}")
    reserved = sum(callback.num_reserved_tasks for callback in callbacks_of(settings))
    facts = load_data(settings, name, data, reserved=reserved).facts
    print("# tasks: " + ", ".join(f"{key} {value:.4g}" for key, value in facts.items()))
    attempts = settings.steps * settings.rollout.tasks_per_step * settings.rollout.num_samples
    turns = f"{settings.rollout.turns} turns of at most " if settings.rollout.turns > 1 else ""
    print(f"# {settings.steps} steps, {attempts} attempts of at most {turns}{settings.rollout.max_new_tokens} tokens", flush=True)
    aside = [*(["the judge"] if "judge" in settings.reward_parts else []), *(["the adaptation"] if settings.adaptation else [])]
    without = f"; the time of {' and '.join(aside)} aside" if aside else ""
    print(f"# {estimate(settings, name, data)}{without}")


def _wants_help(arguments: Sequence[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _help(
    head: str,
    kind: type[Any],
    arguments: Sequence[str],
    common: Sequence[str] = (),
    short: Mapping[str, str] | None = None,
    here: Mapping[str, Any] | None = None,
) -> None:
    """Print the help of a command: the `common` settings, or those of the section that stands after --help, or `all`.

    `short` has short names of settings, `here` the values of a recipe.
    """
    from etude.settings.help import help_of, short_help, topic_help

    topic = _topic(arguments)
    if topic and topic != "all":
        print(topic_help(kind, topic, short or {}, here or {}), end="")
    else:
        print(head + "\n" + (short_help(kind, common, short or {}, here or {}) if common and topic != "all" else help_of(kind)))


def _topic(arguments: Sequence[str]) -> str:
    """Return the word after --help; "" if there is none."""
    places = [place for place, word in enumerate(arguments) if word in ("-h", "--help")]
    after = arguments[places[0] + 1 :] if places else []
    return after[0] if after else ""


def _write_json(common: Options, value: Any) -> None:
    if common.json is not None:
        write_output(common.json, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


class _ToStandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error as it is now, which a test or a caller may have put elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


_HANDLER = _ToStandardError()
_HANDLER.setFormatter(VisibleFormatter("etude: %(message)s"))


def _set_logging(*, is_quiet: bool, is_verbose: bool) -> None:
    """Log etude's warnings once each; of libraries only errors, and no progress bars, unless asked for."""
    own = logging.getLogger("etude")
    own.setLevel(logging.ERROR if is_quiet else logging.INFO if is_verbose else logging.WARNING)
    if _HANDLER not in own.handlers:
        own.addHandler(_HANDLER)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if is_verbose:
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    for library in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY", "DATASETS_VERBOSITY"):
        os.environ.setdefault(library, "error")
    for library in ("huggingface_hub", "datasets"):  # they have handlers of their own
        logging.getLogger(library).propagate = False


if __name__ == "__main__":
    sys.exit(main())
