import io
import re

import pytest
from rich.console import Console as RichConsole

from etude.callbacks.gate import Gate, GateSettings
from etude.console.reporter import Console
from etude.training.callback_list import CallbackList

ROW = {
    "suite": "word_problems",
    "model": "warm_start",
    "n": 1000,
    "accuracy": 1.0,
    "accuracy_low": 0.981,
    "accuracy_high": 1.0,
    "sampled_accuracy": 0.79,
    "majority_at_8": 0.85,
    "pass_at_8": 1.0,
    "pass_at_8_low": 1.0,
    "parsable": 1.0,
    "baselines": {"largest_number": 0.1},
}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_of_results_is_never_cut(width, tmp_path):
    out = io.StringIO()
    result = {"recipe": "tiny", "seed": 0, "weights": "random", "evaluation": [ROW], "paired": []}
    Console(RichConsole(file=out, width=width, highlight=False, soft_wrap=True)).concluded(result, tmp_path)
    lines = out.getvalue().splitlines()
    row = next(line for line in lines if "warm start" in line)
    cells = ["word_problems", "warm start", "1000", "100.0% [98.1%, 100.0%]", "79.0%", "85.0%", "100.0%", "100.0%"]
    assert re.split(r"\s{2,}", row.strip()) == cells
    table = lines[lines.index(row) - 2 : lines.index(row) + 2]
    assert any("maj@8" in line and "pass@8" in line for line in lines)
    assert any("rule: largest number" in line for line in table)
    assert max(len(line.rstrip()) for line in table) <= 110


def test_names_from_outside_are_no_markup(tmp_path):
    out = io.StringIO()
    hostile = "[/red] [bold]x[/bold] [link=file:///etc]y"
    row = ROW | {"suite": hostile, "baselines": {"[/b]": 0.1}}
    console = Console(RichConsole(file=out, highlight=False, soft_wrap=True))
    console.concluded({"recipe": hostile, "seed": 0, "weights": hostile, "evaluation": [row], "paired": []}, tmp_path)
    assert out.getvalue().count(hostile) == 4 and "rule: [/b]" in out.getvalue()


def test_the_gate_and_what_it_guards_are_summarised(tmp_path):
    out = io.StringIO()
    models = [ROW | {"model": model, "accuracy": accuracy} for model, accuracy in (("base", 0.1), ("practice", 0.5))]
    known = [{"model": model, "choice_accuracy": accuracy} for model, accuracy in (("base", 0.6), ("practice", 0.55))]
    checks = [{"step": step, "held": held, "passed": step == held} for step, held in ((2, 2), (4, 2), (6, 2))]
    result = {"recipe": "tiny", "seed": 0, "weights": "random", "evaluation": models, "paired": [], "retention": known}
    callbacks = CallbackList([Gate(GateSettings(every=2))])
    result["gate"] = {"measurements": checks, "ended_practice": True}
    Console(RichConsole(file=out, highlight=False, soft_wrap=True)).concluded(result, tmp_path, callbacks.sentences(result))
    assert "base -> practice: accuracy on word_problems 10.0% -> 50.0%, general knowledge 60.0% -> 55.0%" in out.getvalue()
    assert "gate: 3 checks, rolled back 4 -> 2, 6 -> 2; practice ended" in out.getvalue()
