"""One score whoever asks: lm-evaluation-harness's own transformers model, its `etude` model, its clients of a server, `etude evaluate`.

    pip install 'etude[serve,eval]'
    python -m bench.harnesses --data DIR [--json FILE] [--model smollm2-135m] [--n 200] [--dtype float32]

Two tasks, of files in DIR, each of `--n` rows at equal distances:

choices   science_mcq/ARC-Easy.test.jsonl; the likeliest of the choices after the question, by its log-prob (`acc`)
written   word_problems/test.jsonl; a greedy answer in the chat template; right if its last number is the answer's

Greedy answers are compared with those of transformers as texts: two products in another order of additions may choose another token where
two are nearly as likely. `layer_contrast` is a method of decoding that only etude has, here to see that the harness measures it equally in
the process and over a server. Seconds are of the whole call, with the loading of the model but for the server's.
"""

import json
import re
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lm_eval
import torch
from datasets.utils.logging import disable_progress_bar

from bench.server import NAME, serving
from etude.errors import UserError
from etude.lm_eval.adapter import EtudeLM
from etude.models.load import convert
from etude.recipes.evaluate import evaluate
from etude.suites.domain import DOMAIN
from experiments.benchmark import Argument, Benchmark
from experiments.cells import made_here
from experiments.harness_tasks import tasks_in, write_task
from experiments.tables import markdown, percent

CHOICES, WRITTEN = "choices", "written"
FILES = {CHOICES: "science_mcq/ARC-Easy.test.jsonl", WRITTEN: "word_problems/test.jsonl"}
COLUMNS = {"question": "q", "choices": "options", "answer": "a"}
NEW_TOKENS = 64
METHOD = "layer_contrast_static"
LAST_NUMBER = r"(?s)(-?\d+(?:[.,]\d+)*)(?!.*\d)"
"""A number after which no digit stands in the text."""
THEIRS = "lm-eval, transformers"
ROWS = 32
"""Rows that the server decodes together."""


def found_of(chosen: Namespace) -> dict[str, Any]:
    if chosen.data is None:
        raise UserError(f"--data is needed: the folder that holds {' and '.join(FILES.values())}")
    return measured(chosen.model, {task: rows_of(chosen.data / file, chosen.n) for task, file in FILES.items()}, chosen.dtype)


def measured(model: str, rows: Mapping[str, Sequence[Mapping[str, Any]]], dtype: str) -> dict[str, Any]:
    """Measure both tasks in all ways."""
    disable_progress_bar()
    with TemporaryDirectory() as place:
        folder = Path(place)
        convert(model, folder / "model")
        for task in rows:
            write(folder, task, rows[task])
        found = [{"way": way, "task": task, **one} for way, task, one in _ways(folder, rows, dtype)]
    settings = {"model": model, "n": {task: len(own) for task, own in rows.items()}, "dtype": dtype, "tokens": NEW_TOKENS}
    return {"rows": found, "settings": settings, "versions": {"lm_eval": lm_eval.__version__}, **made_here(dtype)}


def rows_of(path: Path, n: int) -> list[dict[str, Any]]:
    """Return `n` rows of a file at equal distances. Raises UserError for a file that is not there."""
    if not path.is_file():
        raise UserError(f"there is no {path}: --data is the folder that holds {' and '.join(FILES.values())}")
    rows = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    return [rows[place * len(rows) // n] for place in range(n)] if n < len(rows) else rows


def write(folder: Path, task: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a task as the harness reads it."""
    if task == CHOICES:
        asked: dict[str, Any] = {"doc_to_text": "Question: {{q}}\nAnswer:", "doc_to_choice": "{{options}}", "doc_to_target": "a"}
        write_task(folder, task, rows, output_type="multiple_choice", **asked, metric_list=[{"metric": "acc"}])
        return
    number = {"function": "regex", "regex_pattern": LAST_NUMBER}
    filters = [{"name": "last", "filter": [number, {"function": "take_first"}]}]
    generation = {"until": [], "do_sample": False, "max_gen_toks": NEW_TOKENS}
    asked = {"doc_to_text": "{{question}}", "doc_to_target": "answer", "generation_kwargs": generation, "filter_list": filters}
    write_task(folder, task, rows, output_type="generate_until", **asked, metric_list=[{"metric": "exact_match"}])


def last_number(completion: str, answer: str) -> float:
    """Score 1 if the last number of a text is the answer, digit by digit, as the harness's filter and metric do."""
    found = re.search(LAST_NUMBER, completion)
    return float(found is not None and found[1] == answer)


def _ways(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]], dtype: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    model = str(folder / "model")
    theirs = {"pretrained": model, "dtype": dtype}
    expected: dict[str, list[Any]] = {}
    for task in rows:
        found = harness(folder, task, "hf", theirs, device="cpu")
        expected[task] = found.pop("answers")
        yield THEIRS, task, found
    for task in rows:
        yield "lm-eval, etude", task, _beside(harness(folder, task, EtudeLM(model, dtype=dtype)), expected[task])
    own = harness(folder, WRITTEN, EtudeLM(model, dtype=dtype, method=METHOD))
    contrasted = own.pop("answers")
    yield "lm-eval, etude: layer_contrast", WRITTEN, own
    settings = {"threads": torch.get_num_threads(), "clients": ROWS, "dtype": dtype}
    with serving("etude", folder / "model", settings) as (url, _):
        for task, kind, path in ((CHOICES, "local-completions", "completions"), (WRITTEN, "local-chat-completions", "chat/completions")):
            client = {"base_url": f"{url}/{path}", "tokenizer": model, "num_concurrent": ROWS, "max_length": 2048}
            found = harness(folder, task, kind, client | {"model": NAME})
            yield "lm-eval, etude serve", task, _beside(found, expected[task])
        found = harness(folder, WRITTEN, kind, client | {"model": f"{NAME}:{METHOD}"})
        yield "lm-eval, etude serve: layer_contrast", WRITTEN, _beside(found, contrasted)
    for task, measured in ((CHOICES, _chosen), (WRITTEN, _written)):
        began = time.perf_counter()
        score, answers = measured(model, folder, rows[task], dtype)
        found = {"score": score, "answers": answers, "seconds": time.perf_counter() - began}
        yield "etude evaluate", task, _beside(found, expected[task]) if answers else {"score": score, "seconds": found["seconds"]}


def harness(folder: Path, task: str, model: Any, arguments: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Measure a task by the harness: its score, the answers (texts, or the likeliest choice) and the seconds."""
    began = time.perf_counter()
    chat = {"apply_chat_template": True} if task == WRITTEN else {}
    given = {"model_args": dict(arguments)} if arguments else {}
    manager = tasks_in(folder)
    found = lm_eval.simple_evaluate(model, tasks=[task], task_manager=manager, log_samples=True, bootstrap_iters=0, **given, **chat, **more)
    seconds = time.perf_counter() - began
    (score,) = (value for name, value in found["results"][task].items() if name.startswith(("acc,", "exact_match,")))
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return {"score": float(score), "answers": [_answer(sample["resps"], task) for sample in samples], "seconds": seconds}


def _answer(replies: Sequence[Any], task: str) -> Any:
    if task == WRITTEN:
        return replies[0][0]
    logprobs = [float(reply[0][0]) for reply in replies]
    return logprobs.index(max(logprobs))


def _beside(found: dict[str, Any], expected: Sequence[Any]) -> dict[str, Any]:
    answers = found.pop("answers")
    return found | {"equal": sum(own == other for own, other in zip(answers, expected, strict=True))}


def _chosen(model: str, folder: Path, rows: Sequence[Mapping[str, Any]], dtype: str) -> tuple[float, list[Any]]:
    given = {"far_domain": [str(folder / f"{CHOICES}.jsonl")], "questions": [], "glossary": [], "near_domain": [], "text": []}
    changed = {**given, "columns": COLUMNS, "n": None, "generated_n": 0, "text_tokens": 2, "window_tokens": 3, "machine.dtype": dtype}
    found = DOMAIN.evaluate(model, None, changed)
    (score,) = (row["sum"] for row in found["rows"] if row["part"] == "far")
    return score, []


def _written(model: str, folder: Path, rows: Sequence[Mapping[str, Any]], dtype: str) -> tuple[float, list[Any]]:
    tasks = [{name: row[name] for name in ("question", "answer")} for row in rows]
    more: dict[str, Any] = {"evaluation.pass_n": 0, "machine.dtype": dtype}
    found = evaluate(model, tasks=tasks, reward=last_number, max_new_tokens=NEW_TOKENS, verbose=False, **more)
    (items,) = found["items"].values()
    return found.accuracy, [item["text"] for item in items]


def table(found: Mapping[str, Any]) -> str:
    """Write one line a way of asking."""
    settings, counts = found["settings"], found["settings"]["n"]
    ways = list(dict.fromkeys(row["way"] for row in found["rows"]))
    of = {(row["way"], row["task"]): row for row in found["rows"]}
    head = ["asked by", *(f"{task}: {what}" for task in FILES for what in ("score", "equal answers", "seconds"))]
    lines = [[way, *(cell for task in FILES for cell in _cells(of.get((way, task)), counts[task]))] for way in ways]
    below = (
        f"{settings['model']}, {settings['dtype']}; choices: {counts[CHOICES]} of ARC-Easy, log-likelihoods; written: {counts[WRITTEN]} "
        f"word problems, greedy, {settings['tokens']} tokens. Equal answers: with lm-eval's own transformers model; of `layer_contrast`, "
        f"over a server with those in the process. {found['hardware']}. lm-eval {found['versions']['lm_eval']}."
    )
    return markdown(head, lines, below)


def _cells(row: Mapping[str, Any] | None, n: int) -> list[str]:
    if row is None:
        return ["", "", ""]
    return [percent(row["score"]), f"{row['equal']} of {n}" if "equal" in row else "", f"{row['seconds']:.0f}"]


ARGUMENTS = {
    "data": Argument(None, "the folder of data sets"),
    "model": Argument("smollm2-135m"),
    "n": Argument(200, "rows of each task"),
    "dtype": Argument("float32", choices=("float32", "bfloat16")),
}
BENCHMARK = Benchmark("harnesses", __doc__, ARGUMENTS, found_of, table)

if __name__ == "__main__":
    BENCHMARK.main()
