"""What became of claims, under tables and in the table of all studies."""

import runpy

from experiments import verdicts
from experiments.pages import PAGES, filled, seen_from

RESULT = {
    "id": "my_study",
    "claim": "one is ahead of other",
    "rule": "the lead is above 0 by runs",
    "verdict": "undecided",
    "because": "+1.0 [-1.0, +3.0] over 3 runs",
    "seeds": 3,
    "about": "this model",
    "power": {
        "lead": {"seeds": 3, "sd": 0.01, "seen": 0.0312, "unit": "points"},
        "slope": {"seeds": 3, "sd": 0.1, "seen": 0.4, "unit": "nats"},
    },
    "cells": {"number": 6, "dirty": 2},
    "verdict_before": "holds",
    "rule_changed": "2026-12-02: by runs, where it was by items",
    "remarks": ["It is a remark."],
}


def test_a_verdict_stands_with_claim_rule_and_what_is_seen():
    assert verdicts.judged(RESULT).splitlines() == [
        "- Claim: one is ahead of other.",
        "- Verdict: **undecided for this model**: +1.0 [-1.0, +3.0] over 3 runs.",
        "- Rule ([how claims are judged](docs/evidence.md)): the lead is above 0 by runs.",
        "- The rule was changed on 2026-12-02: by runs, where it was by items. Verdict before: holds.",
        "- Such a study decides, in 80 % of cases and by the spread of its runs, on a difference of 3.1 points (lead), 0.4 nats (slope).",
        "- 2 of 6 cells name a commit from which the sources differed.",
        "- It is a remark.",
    ]


def test_a_result_without_rule_and_power_says_less():
    few = {name: RESULT[name] for name in ("claim", "verdict", "because")}
    assert len(verdicts.judged(few).splitlines()) == 2


def test_the_table_of_all_studies_has_the_verdict_of_before():
    line = verdicts.verdicts_table([RESULT]).splitlines()[2]
    assert line == "| my study | one is ahead of other | 3 | holds | undecided for this model | 3.1 points, 0.4 nats |"


def test_links_are_seen_from_the_page(tmp_path):
    assert seen_from(tmp_path / "docs" / "page.md", "[a](docs/evidence.md)") == "[a](evidence.md)"
    assert seen_from(tmp_path / "README.md", "[a](docs/evidence.md)") == "[a](docs/evidence.md)"


def test_a_page_shows_the_verdicts_of_the_results_that_are_kept():
    table = verdicts.verdicts_table(verdicts.results())
    own = [page for page in PAGES if "<!-- table: verdicts -->" in page.read_text(encoding="utf8")]
    assert own and all(filled(page.read_text(encoding="utf8"), "verdicts", table) == page.read_text(encoding="utf8") for page in own)


def test_every_study_is_listed_with_its_verdict(monkeypatch, capsys):
    monkeypatch.setattr("experiments.pages.fill", lambda name, table: None)
    runpy.run_module("studies", run_name="__main__")
    said = capsys.readouterr().out
    assert all(f"{row['id']} ({row['seeds']} seed" in said and f": {verdicts.verdict_of(row)}\n" in said for row in verdicts.results())
