"""Tables by columns, and a benchmark's command line."""

import json
import sys

import pytest

from etude.errors import UserError
from experiments.benchmark import Argument, Benchmark, in_process
from experiments.measures import with_ends
from experiments.runs import over_runs
from experiments.tables import Column, each, each_over_runs, interval, markdown, mean_over_runs, name_of, percent, points, table, value


def test_a_column_is_left_out_where_no_row_has_what_it_needs_and_a_cell_where_its_row_has_not():
    rows = [
        {"id": "first_one", "gain": None},
        {"id": "second", "seconds": 3.26, **with_ends("share", 0.5, (0.25, 1.0)), "each": [0.1, -0.2]},
    ]
    columns = [
        Column("arm", name_of),
        Column("share", interval("share", percent)),
        Column("gain", value("gain", points)),
        Column("seconds", value("seconds", "{:.1f}".format), needs="seconds"),
        Column("each", each("each", points)),
        Column("memory", value("memory"), needs="memory"),
    ]
    assert table(rows, columns, "below").splitlines() == [
        "| arm | share | gain | seconds | each |",
        "|---|---|---|---|---|",
        "| first one |  |  |  |  |",
        "| second | 50.0 % [25.0 %, 100.0 %] |  | 3.3 | +10.0, -20.0 |",
        "",
        "below",
    ]


def test_a_difference_over_runs_is_written_by_its_mean_or_by_every_seed():
    row = over_runs("gain", [0.1, 0.2, 0.3])
    assert mean_over_runs("gain", points)(row) == "+20.0 [-4.8, +44.8]"
    assert each_over_runs("gain", points)(row) == "+10.0, +20.0, +30.0 [-4.8, +44.8]"
    assert mean_over_runs("gain", points)(over_runs("gain", [0.1])) == "+10.0"
    assert mean_over_runs("gain", points)({}) == ""


def measured(chosen):
    if chosen.rounds < 1:
        raise UserError(f"--rounds must be at least 1, got {chosen.rounds}")
    return {"rounds": chosen.rounds, "rows": chosen.rows, "settings": chosen.settings, "remarks": ["too few"] if chosen.few else []}


ARGUMENTS = {"rounds": Argument(3, "how often"), "rows": Argument([1, 8]), "few": Argument(False), "data": Argument(None)}


def run(monkeypatch, *words, **more):
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
    Benchmark(
        "mine", "What it costs.", ARGUMENTS, measured, lambda found: markdown(["rounds"], [[str(found["rounds"])]], ""), **more
    ).main()


def test_a_benchmark_prints_its_table_and_writes_what_it_found_beside_it(monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--rounds", 5, "--rows", 2, 4, "--json", tmp_path / "new" / "found.json")
    assert capsys.readouterr().out.startswith("| rounds |\n|---|\n| 5 |\n")
    assert json.loads((tmp_path / "new" / "found.json").read_text())["rows"] == [2, 4]
    assert "| 5 |" in (tmp_path / "new" / "found.md").read_text()


def test_a_benchmark_says_in_one_sentence_what_is_wrong(monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"bench\.mine: --rounds must be at least 1, got 0"):
        run(monkeypatch, "--rounds", 0)
    with pytest.raises(SystemExit, match=r"bench\.mine: too few"):
        run(monkeypatch, "--few")
    with pytest.raises(SystemExit):
        run(monkeypatch, "--n", 4)
    assert "unrecognized arguments: --n 4" in capsys.readouterr().err
    run(monkeypatch, "--n", 4, takes_settings=True)


def test_a_function_is_called_in_a_process_of_its_own_with_plain_values():
    assert in_process("statistics", "quantiles", [1, 2, 3, 4, 5]) == [1.5, 3.0, 4.5]
