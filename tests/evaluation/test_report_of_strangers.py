"""The page of a run folder that somebody else made: whatever its files hold, there is a page or one sentence, soon and in little memory."""

import gzip
import json
import os
import random
import tracemalloc
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from test_report import KNOWN, attempt, item, node, row

from etude.callbacks.gate import Gate
from etude.cli import main
from etude.errors import UserError
from etude.evaluation.report import bounded_reading, run_folder, write_report

HUGE = "9" * 400
ODD = [
    "x",
    "",
    "²",
    None,
    True,
    -1,
    0,
    1e308,
    -1e308,
    5e-324,
    10**30,
    [],
    {},
    [[]],
    {"a": {"b": []}},
    ["x", 1],
    "HUGE",
    "NAN",
    "\ud800\x1b[0m",
]
NODES = [
    node(0, None, "q", drawn=None, tokens=0, visits=2),
    *(node(number, 0, f"step {number}", finish="stop", value=number % 2, mean=None) for number in (1, 2)),
]
THOUGHT = {"thought": [{"budget_tokens": 8, "accuracy": 0.3, "own_tokens": 7.5, "extended": 0.1, "cut": 0.2}]}
PAIR = {
    "first": "base", "second": "practice", "suite": "sums", "difference": 0.2, "difference_low": 0.1, "difference_high": 0.3,
    "p_value": 0.003, "n": 100, "only_first": 2, "only_second": 9, "nats": 0.1, "nats_low": -0.1, "nats_high": 0.2,
    "choices": {"difference": 0.1, "difference_low": 0.0, "difference_high": 0.2, "p_value": 0.5},
}  # fmt: skip
CHANGE = {
    "part": "choices",
    "name": "sums",
    "before": 0.2,
    "after": 0.3,
    "difference": 0.1,
    "low": 0.0,
    "high": 0.2,
    "p_value": 0.04,
    "n": 9,
}
LOOK = {"gate/passed": 0, "gate/held": 1, "gate/choice_accuracy": 0.5, "gate/perplexity": 20.0, "gate/forward_kl": 0.2}


def documents() -> dict[str, Any]:
    """What a run folder holds, every part of which the page draws; lists are of lines."""
    turns = {"turns": [{"text": "b", "score": 0.0, "advantage": -0.5, "told": "no"}]}
    steps = [
        {"phase": "practice", "step": step, "score": 0.3, "entropy": 1.5, "groups": 4, "groups_without_signal": 1} for step in range(4)
    ]
    models = ("base", "warm_start", "practice")
    answers = {"suites": [{"suite": "sums", "row": row("base", 0.3) | THOUGHT, "items": [item(2, 1), item(3, 1)]}]}
    return {
        "environment.json": {"commit": "abc", "versions": {"numpy": "2.0"}, "threads": 2},
        "result.json": {
            "recipe": "tiny", "seed": 1, "status": "finished", "tasks": {"train": 500}, "weights": "as released", "paired": [PAIR],
            "evaluation": [row(model, 0.3) | THOUGHT for model in models],
            "collapse": {"words": "collapse", "action": "stop"},
            "retention": [{"model": model, "perplexity": 21.2, **KNOWN} for model in models],
            "retention_paired": [PAIR], "changes": [CHANGE],
        },
        "metrics.jsonl": [*steps, {**steps[-1], **LOOK}],
        "panels.json": {"panels": [asdict(panel) for panel in Gate.panels]},
        "timings.jsonl": [{"phase": "practice", "step": 1, "tokens_per_second": 900.0}],
        "attempts/00001.jsonl.gz": [attempt(1, index) | turns for index in (1, 2)],
        "trees/00001.jsonl.gz": [{"question": "q?", "answer": "a", "nodes": NODES}],
        **{f"evaluation/{model}.json": {"model": model, **answers} for model in models},
    }  # fmt: skip


def write(folder: Path, documents: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configuration.yaml").write_text("recipe: tiny\n")
    for name, document in documents.items():
        texts = [
            json.dumps(each).replace('"HUGE"', HUGE).replace('"NAN"', "NaN") for each in (document if name.count("jsonl") else [document])
        ]
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        content = "".join(text + "\n" for text in texts).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, key) for key, _ in inner] + [place for _, each in inner for place in places(each)]


def scrambled(dice: random.Random) -> dict[str, Any]:
    """The documents with a few values, or names, replaced by odd ones."""
    found = json.loads(json.dumps(documents()))
    for _ in range(dice.choice([1, 2, 5, 20])):
        document = found[dice.choice([*found, "result.json", "result.json"])]
        container, key = dice.choice(places(document) or [(found, "result.json")])
        odd = deepcopy(dice.choice(ODD))
        if isinstance(container, dict) and dice.random() < 0.1:
            container[dice.choice(["pass_at_²", f"pass_at_{HUGE}0" * 12, "step", "\ud800"])] = odd
        else:
            container[key] = odd
    return found


def test_a_page_comes_of_every_folder_whose_values_were_changed_at_random(tmp_path, capsys):
    for seed in range(60):
        run = write(tmp_path / str(seed), scrambled(random.Random(seed)))
        assert write_report([run], tmp_path / "page.html").stat().st_size > 20_000, seed
    assert write_report([tmp_path / str(seed) for seed in range(8)], tmp_path / "page.html").exists()
    for seed in range(0, 60, 6):
        assert main(["report", str(tmp_path / str(seed)), "--pack", str(tmp_path / f"{seed}.zip")]) == 0, capsys.readouterr().err


def page_of(run: Path, tmp_path: Path) -> str:
    return write_report([run], tmp_path / "page.html").read_text()


def test_the_page_names_file_and_path_of_a_value_of_another_type(tmp_path):
    odd = documents()
    odd["result.json"]["evaluation"][1]["baselines"] = [1]
    odd["result.json"]["paired"] = "x"
    odd["evaluation/base.json"]["suites"][0]["items"][1] = 3
    page = page_of(write(tmp_path / "run", odd), tmp_path)
    assert "result.json: paired and 1 other value are of another type than a run writes and left out" in page
    assert "evaluation/base.json: suites[0].items[1] is of another type than a run writes and left out" in page


@pytest.mark.parametrize("panels", [None, [None], [{}], [{"measures": None}], [{"measures": {"gate/perplexity": None}}], "x", {}])
def test_charts_that_are_none_are_left_out(tmp_path, panels):
    run = write(tmp_path / "run", documents() | {"panels.json": {"panels": panels}})
    assert "Mean reward" in page_of(run, tmp_path)


def test_what_is_no_file_is_not_read(tmp_path):
    run = write(tmp_path / "run", documents())
    for name in ("result.json", "metrics.jsonl", "configuration.yaml", "attempts/00001.jsonl.gz"):
        (run / name).unlink()
        os.mkfifo(run / name)
    (run / "environment.json").unlink()
    (run / "environment.json").mkdir()
    (run / "timings.jsonl").unlink()
    (run / "timings.jsonl").symlink_to("/dev/zero")
    page = page_of(run, tmp_path)
    for name in ("result.json", "metrics.jsonl", "environment.json", "attempts/00001.jsonl.gz"):
        assert f"{name} is no file" in page


def test_json_that_is_deep_is_left_out(tmp_path):
    run = write(tmp_path / "run", documents())
    for name, depth in (("result.json", 200_000), ("environment.json", 900)):
        (run / name).write_text('{"a":' * depth + "1" + "}" * depth)
    (run / "metrics.jsonl").write_text("[" * 100_000 + "\n")
    page = page_of(run, tmp_path)
    assert "result.json is not readable" in page and "environment.json is not readable" in page
    assert "metrics.jsonl has 1 unreadable line" in page


def test_a_small_file_that_is_large_when_it_is_unpacked_takes_no_memory(tmp_path, monkeypatch):
    for name, number in {"MAX_BYTES": 200_000, "MAX_STREAM_BYTES": 200_000, "MAX_LINE_BYTES": 20_000}.items():
        monkeypatch.setattr(bounded_reading, name, number)
    run = write(tmp_path / "run", documents())
    (run / "attempts" / "00001.jsonl.gz").write_bytes(gzip.compress(b"1" * 30_000_000))  # one line
    (run / "attempts" / "00002.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 100_000))
    (run / "result.json").write_bytes(b" " * 300_000 + b"{}")
    (run / "metrics.jsonl").write_bytes(b'{"phase": "practice", "step": 1, "score": 0.5}\n' * 10_000)
    (run / "configuration.yaml").write_bytes(b"a: b\n" * 300_000)
    tracemalloc.start()
    try:
        page = page_of(run, tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 10_000_000
    assert "attempts/00001.jsonl.gz has 1 unreadable line" in page
    assert "attempts/00002.jsonl.gz is longer than 0.2 MB: the rest is left out" in page
    assert "result.json is longer than 0.2 MB and left out" in page
    assert "metrics.jsonl is longer than 0.2 MB: the rest is left out" in page


def test_no_more_attempts_are_kept_than_memory_is_meant_for(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "MAX_ATTEMPT_BYTES", 3_000)
    attempts = documents()["attempts/00001.jsonl.gz"]
    run = write(tmp_path / "run", {**documents(), "attempts/00001.jsonl.gz": attempts * 9, "attempts/00002.jsonl.gz": attempts})
    assert "the attempts are longer than 0.003 MB: those after attempts/00001.jsonl.gz are left out" in page_of(run, tmp_path)


def test_a_folder_that_holds_no_run_is_refused_and_nothing_is_written_in_it(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for folder, said in (
        (tmp_path / "model", "holds no run"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "model" / "config.json", "is not a folder"),
    ):
        with pytest.raises(UserError, match=said):
            write_report([folder], folder / "report.html")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]
