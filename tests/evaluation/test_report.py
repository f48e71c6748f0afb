"""The page of a run: what it says, what it survives, and that nothing a model wrote can act on it."""

import base64
import gzip
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER, NEEDS_BROWSER, Browser

from etude.callbacks.gate import Gate
from etude.errors import UserError
from etude.evaluation.report import MAX_ATTEMPTS, MAX_RUNS, write_report

HOSTILE = "<script>alert(1)</script></script><!-- <img src=x onerror=alert(2)> & \u2028 'quoted' \"too\""
MakeRun = Callable[..., Path]
KNOWN = {"choice_accuracy": 0.613, "choice_accuracy_low": 0.5, "choice_accuracy_high": 0.71, "choices_n": 80}


def row(model: str, accuracy: float) -> dict[str, Any]:
    return {
        "model": model, "suite": "chain_sum", "n": 100,
        "accuracy": accuracy, "accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1,
        "sampled_accuracy": accuracy - 0.02, "pass_at_8": 0.9, "majority_at_8": 0.55,
        "pass_n": 50, "parsable": 0.98, "mean_tokens": 31.6, "truncated": 0.01,
        "unscored": 0, "baseline_constant": 0.05, "baselines": {"first_number": 0.17, "hostile_<b>": 0.01},
    }  # fmt: skip


def attempt(step: int, index: int) -> dict[str, Any]:
    """Every third attempt is right, every third wrong, every third unscored."""
    return {
        "step": step, "task": f"task{index // 3}", "question": f"What is {index // 3} + 1?", "answer": str(index // 3 + 1),
        "index": index % 3,
        "text": HOSTILE if index == 0 else f"I say {index}", "score": (1.0, 0.0, None)[index % 3], "parsable": 1, "message": "",
        "finish": "stop", "tokens": 4, "advantage": 0.5,
    }  # fmt: skip


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as lines:
        lines.writelines(json.dumps(each) + "\n" for each in rows)


def item(index: int, score: int | None) -> dict[str, Any]:
    return {
        "task": f"item{index}",
        "question": f"Item {index}?",
        "answer": str(index),
        "text": HOSTILE if index == 1 else f"It is {index}",
        "score": score,
    }


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A small run folder: three steps of twelve attempts, two suites' worth of evaluation, hostile text wherever text can be."""

    def make(name: str = "run", *, after: float = 0.6, steps: int = 3, per_step: int = 12) -> Path:
        folder = tmp_path / name
        (folder / "evaluation").mkdir(parents=True)
        (folder / "configuration.yaml").write_text(f"name: {HOSTILE}\n")
        (folder / "environment.json").write_text(json.dumps({"commit": HOSTILE, "versions": {"numpy": "2.0"}}))
        metrics = [{"phase": "warm_start", "step": step, "loss": 2.0 - step / 10} for step in range(3)]
        metrics += [
            {"phase": "practice", "step": step, "score": 0.3 + step / 10, "entropy": None, "groups": 4, "groups_without_signal": step % 4}
            for step in range(steps)
        ]
        write_lines(folder / "metrics.jsonl", metrics)
        write_lines(folder / "timings.jsonl", [{"phase": "practice", "step": step, "tokens_per_second": 900.0} for step in range(steps)])
        for step in range(steps):
            write_lines(folder / "attempts" / f"{step:05d}.jsonl.gz", [attempt(step, index) for index in range(per_step)])
        for model in ("base", "warm_start", "practice"):
            suite = {"suite": "chain_sum", "row": {}, "items": [item(i, 1 if model == "practice" else 0) for i in range(40)]}
            (folder / "evaluation" / f"{model}.json").write_text(json.dumps({"model": model, "suites": [suite]}))
        paired = {
            "suite": "chain_sum", "first": "warm_start", "second": "practice", "n": 100, "only_first": 5, "only_second": 25,
            "difference": 0.2, "difference_low": 0.09, "difference_high": 0.3, "p_value": 0.0003,
        }  # fmt: skip
        result = {
            "recipe": "practice", "seed": 1, "status": "finished", "tasks": {"train": 500, "overlap": 0},
            "weights": "as released", "paired": [paired],
            "evaluation": [row("base", 0.1), row("warm_start", 0.4), row("practice", after)],
            "retention": [{"model": "base", "perplexity": 21.237, "text_tokens": 900}, {"model": "practice", "perplexity": 24.5, **KNOWN}],
            "retention_paired": [{"first": "base", "second": "practice", "nats": 0.143, "nats_low": -0.01, "nats_high": 0.3}],
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return make


class Page(HTMLParser):
    """The text that a reader sees, the scripts, and every tag with its attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: str | None = None
        self.feed(path.read_text("utf-8"))
        self.text = re.sub(r"[\s\u202f]+", " ", " ".join(self.seen))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.open = None

    def handle_data(self, data: str) -> None:
        if self.open == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.open is None:
            self.seen.append(data)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == "attempts-data"))


def test_page_tells_the_result_and_what_the_model_knew_before_in_sentences_and_tables(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    path, again = (write_report([run], tmp_path / name) for name in ("report.html", "again.html"))
    assert path.read_bytes() == again.read_bytes()
    page = Page(path)
    assert "Practice raised greedy accuracy on chain_sum: from 40.0 % (warm start) to 60.0 %, +20.0 points" in page.text
    assert "95 % interval [+9.0, +30.0], n = 100, p < 0.001." in page.text
    assert "60.0 % [50.0, 70.0]" in page.text and "first number best 17.0 %" in page.text
    assert "not finished" not in page.text and "missing" not in page.text
    assert "The first 30 of 40 evaluation items" in page.text
    text = page.text.replace("\u2013", "none").replace("\u2212", "-")
    assert "base 21.24 none none none none none practice" in text
    assert "practice 24.50 +0.143 [-0.010, +0.300] 61.3 % [50.0, 71.0] none none 80" in text


def test_the_page_shows_skill_against_general_knowledge_and_the_gates_checks(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    result = json.loads((folder / "result.json").read_text())
    result["retention"] = [{"model": model, **KNOWN, "choice_accuracy": known} for model, known in (("base", 0.6), ("practice", 0.5))]
    (folder / "result.json").write_text(json.dumps(result))
    seen = {"phase": "practice", "score": 0.5, "gate/choice_accuracy": 0.55, "gate/held": 1}
    write_lines(
        folder / "metrics.jsonl", [{**seen, "step": 1, "gate/passed": 1}, {**seen, "step": 2, "gate/passed": 0}, {"gate/passed": "?"}]
    )
    (folder / "panels.json").write_text(json.dumps({"panels": [asdict(panel) for panel in Gate.panels]}))
    page = Page(write_report([folder], tmp_path / "page.html"))
    assert (
        "Checks during practice" in page.text
        and "New skill against general knowledge" in page.text
        and "rolled back to step 1" in page.text
    )
    labels = [attributes.get("aria-label") or "" for _, attributes in page.tags]
    assert any("base: 0.1 at 0.6; practice: 0.6 at 0.5" in label for label in labels)
    rings = [tag for tag, attributes in page.tags if attributes.get("class") == "fall"]
    assert rings == ["circle"] * 3  # two looks, and one fall by step
    for said in ("reward: majority_vote", "feedback: agreement"):  # as a run says it now, and as one of before did
        (folder / "configuration.yaml").write_text(f"{said}\n")
        voted = Page(write_report([folder], tmp_path / "voted.html"))  # its scores are no accuracy
        assert len([tag for tag, attributes in voted.tags if attributes.get("class") == "fall"]) == len(rings) - 2
    plain = Page(write_report([make_run("plain")], tmp_path / "plain.html"))
    assert (
        "Checks during practice" not in plain.text and plain.text.count("Accuracy on the new task") == 1
    )  # one model alone was asked the questions


@pytest.mark.parametrize(("p_value", "difference", "verb"), [(0.2, 0.02, "did not measurably change"), (0.01, -0.2, "lowered")])
def test_sentence_claims_no_more_than_the_test(make_run: MakeRun, tmp_path: Path, p_value: float, difference: float, verb: str) -> None:
    run = make_run()
    result = json.loads((run / "result.json").read_text())
    result["paired"][0] |= {"p_value": p_value, "difference": difference}
    (run / "result.json").write_text(json.dumps(result))
    assert f"Practice {verb} greedy accuracy" in Page(write_report([run], tmp_path / "report.html")).text
    low = Page(write_report([make_run("low", after=0.15)], tmp_path / "low.html"))
    assert "a trivial baseline (17.0 %) does at least as well as practice (15.0 %)" in low.text


def test_baselines_of_which_none_is_ever_right_stand_in_one_row(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    shown = Page(write_report([run], tmp_path / "report.html")).text
    assert "baseline: first number" in shown and "baseline: each of" not in shown
    result = json.loads((run / "result.json").read_text())
    for row in result["evaluation"]:
        row |= {"baseline_constant": 0.0, "baselines": {"first_number": 0.0, "sum": 0.0}, "baseline_rewards": {}}
    (run / "result.json").write_text(json.dumps(result))
    shown = Page(write_report([run], tmp_path / "zero.html")).text
    assert "baseline: each of 3 rules" in shown and "baseline: first number" not in shown


def test_hostile_text_is_text_and_nothing_else(make_run: MakeRun, tmp_path: Path) -> None:
    path = write_report([make_run()], tmp_path / "report.html")
    raw, page = path.read_text("utf-8"), Page(path)
    assert "<script>alert" not in raw and "onerror=alert(2)>" not in raw and "<b>" not in raw
    assert [attributes.get("type") for attributes, _ in page.scripts] == ["application/json", None]
    assert not any(tag == "img" or name.startswith("on") for tag, attributes in page.tags for name in attributes)
    island = page.scripts[0][1]
    assert not set("<>&\u2028\u2029") & set(island)
    assert page.attempts[0]["attempts"][0]["text"] == HOSTILE
    assert page.text.count("<script>alert(1)</script>") >= 5  # configuration, environment and three models' answers


def test_turns_are_shown_as_text_and_odd_ones_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    turns = [{"text": HOSTILE, "score": 0.0, "advantage": -0.5, "told": HOSTILE}, {"text": "b", "score": None, "told": None}, "odd"]
    rows = [attempt(3, index) | {"turns": value} for index, value in enumerate((turns, "none", None))]
    write_lines(run / "attempts" / "00003.jsonl.gz", rows)
    path = write_report([run], tmp_path / "report.html")
    page = Page(path)
    assert "<script>alert" not in path.read_text("utf-8") and not set("<>&\u2028\u2029") & set(page.scripts[0][1])
    revised, *others = page.attempts[0]["attempts"][-3:]
    assert revised["turns"] == [
        {"text": HOSTILE, "told": HOSTILE, "score": 0.0, "advantage": -0.5},
        {"text": "b", "told": "", "score": None, "advantage": None},
    ]
    assert [each["turns"] for each in others] == [[], []]


def node(number: int, parent: int | None, text: str, **more: Any) -> dict[str, Any]:
    told = {"tokens": 3, "mean_logprob": -0.5, "drawn": 1, "visits": 1, "mean": 0.5, "value": None, "finish": None}
    return {"number": number, "parent": parent, "text": text} | told | more


def tree(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"task": "t", "question": HOSTILE, "answer": "4", "nodes": list(nodes)}


def test_one_tree_of_each_of_three_steps_is_drawn_with_escaped_text(make_run: MakeRun, tmp_path: Path) -> None:
    run, right = make_run(), {"value": 1.0, "finish": "stop"}
    telling = tree(
        node(0, None, "", drawn=0), node(1, 0, HOSTILE, drawn=3), node(2, 1, "two", **right), node(3, 1, "four", value=0.0, finish="length")
    )
    plain = tree(node(0, None, "", drawn=0), node(1, 0, "only", **right), *(node(n, 0, "more", **right) for n in range(2, 9)))
    damaged = tree(node(0, None, ""), {"number": 1, "parent": 7})
    for step, rows in {1: [plain, telling], 2: [damaged], 3: [], 9: [plain]}.items():
        write_lines(run / "trees" / f"{step:05d}.jsonl.gz", rows)
    path = write_report([run], tmp_path / "report.html")
    raw, page = path.read_text("utf-8"), Page(path)
    assert raw.count('<svg class="tree"') == 2 and "<script>alert" not in raw
    assert "step 1:" in page.text and "step 9:" in page.text and "step 2:" not in page.text
    first = raw[raw.index('<svg class="tree"') :].partition("</svg>")[0]
    assert re.findall(r'fill-opacity="([\d.]+)"', first) == ["0.5", "0.5", "1.0", "0.0"]
    assert first.count("✓") == 1 and first.count("✗") == 1
    widths = [float(width) for width in re.findall(r'stroke-width="([\d.]+)"', first)]
    assert widths[0] == 5 and widths[1] == widths[2] < 5


@pytest.mark.parametrize("several", [False, True])
def test_headings_skip_no_level_and_what_scrolls_has_a_name_and_keyboard_access(make_run: MakeRun, tmp_path: Path, several: bool) -> None:
    runs = [make_run("a"), make_run("b")] if several else [make_run()]
    (runs[0] / "environment.json").write_text(json.dumps({"changed_settings": {"steps": "3 (40)"}}))
    write_lines(runs[0] / "trees" / "00001.jsonl.gz", [tree(node(0, None, "", drawn=0), node(1, 0, "two", value=1.0, finish="stop"))])
    page = Page(write_report(runs, tmp_path / "report.html"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    boxes = [attributes for _, attributes in page.tags if attributes.get("class") == "scroll"]
    assert len(boxes) >= 3 and all(box.get("role") == "region" and box.get("aria-label") and box.get("tabindex") == "0" for box in boxes)


def test_page_allows_its_own_script_alone_and_asks_for_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    page = Page(write_report([make_run()], tmp_path / "report.html"))
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1][1].encode()).digest()).decode()
    assert policy is not None and "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    links = [value or "" for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "action")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", page.scripts[1][1])


def test_unfinished_run_is_shown_as_far_as_it_got(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for name in ("result.json", "evaluation/practice.json", "timings.jsonl", "environment.json"):
        (run / name).unlink()
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"phase": "practice", "st')
    whole = (run / "attempts" / "00002.jsonl.gz").read_bytes()
    (run / "attempts" / "00002.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "not finished (status: unknown)" in page.text and "has reached step 2" in page.text
    assert "result.json is missing" in page.text and "evaluation/practice.json is missing" in page.text
    assert "metrics.jsonl has 1 unreadable line" in page.text and "attempts/00002.jsonl.gz breaks off" in page.text
    assert len(page.attempts[0]["attempts"]) >= 24


def test_of_an_unfinished_run_no_stage_is_missed_that_its_settings_skip(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for name in ("result.json", "evaluation/practice.json"):
        (run / name).unlink()
    assert "evaluation/preference.json is missing" in Page(write_report([run], tmp_path / "report.html")).text
    (run / "configuration.yaml").write_text("warm_start:\n  path: []\n  steps: 9\npreferences:\n  path:\n  - a\n  steps: 0\nsteps: 0\n")
    text = Page(write_report([run], tmp_path / "report.html")).text
    assert "evaluation/practice.json is missing" in text and "preference.json" not in text


def test_a_run_that_has_only_begun_still_gives_a_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    page = Page(write_report([tmp_path / "run"], tmp_path / "new" / "report.html"))
    assert "configuration.yaml is missing" in page.text and "No evaluation has been written yet" in page.text


def test_odd_values_do_not_break_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    odd = attempt(0, 1) | {"text": "\ud800 lone", "score": float("nan"), "answer": None, "advantage": None, "message": None}
    write_lines(run / "attempts" / "00003.jsonl.gz", [odd])
    write_lines(
        run / "metrics.jsonl", [{"phase": "practice", "step": 0, "score": float("inf"), "loss": 5.0}, {"phase": "practice", "score": 1}]
    )
    result = json.loads((run / "result.json").read_text())
    result["evaluation"][2] |= {"accuracy_low": None, "sampled_accuracy": None, "mean_tokens": None, "baselines": None}
    (run / "result.json").write_text(json.dumps(result))
    page = Page(write_report([run], tmp_path / "report.html"))
    assert page.attempts[0]["attempts"][-1]["outcome"] == "unscored"
    assert "NaN" not in page.scripts[0][1]


def test_the_page_names_what_differs_from_the_recipe(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    assert "Changed from the recipe" not in Page(write_report([run], tmp_path / "plain.html")).text
    (run / "environment.json").write_text(json.dumps({"changed_settings": {"steps": "3 (40)", "system": f"{HOSTILE} (null)"}}))
    page = Page(write_report([run], tmp_path / "report.html"))
    assert (
        "Changed from the recipe" in page.text
        and "3 (40)" in page.text
        and "<script>alert(1)</script>" in page.text.split("Changed from")[1]
    )


def test_several_runs_stand_side_by_side(make_run: MakeRun, tmp_path: Path) -> None:
    path = write_report([make_run("a/run"), make_run("b/run", after=0.8)], tmp_path / "report.html")
    page = Page(path)
    assert "a/run: Practice raised" in page.text and "b/run: Practice raised" in page.text
    assert "60.0 % [50.0, 70.0]" in page.text and "80.0 % [70.0, 90.0]" in page.text
    assert [run["name"] for run in page.attempts] == ["a/run", "b/run"]
    assert any(attributes.get("id") == "attempts-run" for _, attributes in page.tags)
    labels = [attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"]
    assert any(label.startswith("Mean reward") and "a/run" in label and "b/run" in label for label in labels)


@pytest.mark.parametrize("word", ["<&", "語"], ids=["escaped", "wide"])
def test_page_of_more_than_ten_thousand_long_attempts_stays_small(make_run: MakeRun, tmp_path: Path, word: str) -> None:
    run = make_run(steps=25, per_step=0)
    for step in range(25):
        rows = [attempt(step, index) | {"text": f"{index} " + word * 1000 + "end"} for index in range(500)]
        write_lines(run / "attempts" / f"{step:05d}.jsonl.gz", rows)
    path = write_report([run], tmp_path / "report.html")
    (shown,) = Page(path).attempts
    steps = sorted({each["step"] for each in shown["attempts"]})
    assert path.stat().st_size < 15_000_000
    assert shown["total"] == 12_500 and len(shown["attempts"]) == MAX_ATTEMPTS
    assert steps[0] == 0 and steps[-1] == 24 and any(5 < step < 20 for step in steps)
    assert "characters left out" in shown["attempts"][0]["text"] and shown["attempts"][0]["text"].endswith("end")


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours such as `#fbfaf8` (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_and_curves_stand_out_from_what_they_lie_on(make_run: MakeRun, tmp_path: Path) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    text = write_report([make_run()], tmp_path / "report.html").read_text()
    schemes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)]
    assert len(schemes) == 2  # light and dark
    for colours in schemes:
        pairs = [(name, ground) for name in ("ink", "soft", "link") for ground in ("paper", "card", "wash")]
        pairs += [(name, ground) for name in ("right", "wrong", "unscored") for ground in (f"{name}-wash", "card")]
        assert {(name, ground) for name, ground in pairs if contrast(colours[name], colours[ground]) < 4.5} == set()
        assert {name for name in colours if re.fullmatch(r"c\d", name) and contrast(colours[name], colours["card"]) < 3} == set()


@pytest.fixture
def page_of(make_run: MakeRun, tmp_path: Path) -> Callable[[list[dict[str, Any]]], Page]:
    """`page_of(steps)` is the page of a run with these metrics of practice, and no timings."""

    def page(steps: list[dict[str, Any]]) -> Page:
        run = make_run()
        write_lines(run / "metrics.jsonl", [{"phase": "practice", "step": number, **step} for number, step in enumerate(steps)])
        (run / "timings.jsonl").unlink()
        return Page(write_report([run], tmp_path / "report.html"))

    return page


def test_curves_have_gaps_where_values_are_missing(page_of: Callable[..., Page]) -> None:
    page = page_of([{"loss": value} for value in (1.0, 2.0, None, 4.0, None, 6.0, 7.0)])
    (path,) = [attributes["d"] for tag, attributes in page.tags if tag == "path" and (attributes["d"] or "").count("M") > 1]
    assert path is not None and (path.count("M"), path.count("L"), path.count("h0")) == (3, 2, 1)


def chart_labels(page: Page) -> list[str]:
    """Of the curves, which are by step."""
    labels = [attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"]
    return [label for label in labels if " by step." in label]


def test_panels_are_there_where_their_metrics_are(page_of: Callable[..., Page]) -> None:
    shares = {"parsable": 0.5, "truncated": 0.25, "clip_share": 0.0}
    warm_start = {"phase": "warm_start", "step": 0, "imitate_loss": 2.0}
    labels = chart_labels(page_of([warm_start, {"policy_loss": 0.5} | dict.fromkeys(shares, 1.0), {"policy_loss": -0.5} | shares]))
    assert [label.split(" by step.")[0] for label in labels] == [
        "Loss (value of the objective)",
        "Parsable (share of sampled attempts)",
        "Truncated (share of sampled attempts)",
        "Clipped (share of completion tokens)",
        "Loss (value of the objective)",
    ]
    assert "loss: 2 at step 0" in labels[0] and "loss: 0.5 at step 1, -0.5 at step 2" in labels[-1]


def test_panels_of_rate_divergence_tokens_and_time_have_units_and_running_totals(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    steps = [{"phase": "practice", "step": step, "learning_rate": 1e-5 * step, "kl_behaviour": 0.01 * step} for step in (1, 2)]
    write_lines(run / "metrics.jsonl", [{**row, "sampled_tokens": 100 * row["step"]} for row in steps])
    seconds = {"rollout_seconds": 20.0, "feedback_seconds": 10.0, "learn_seconds": 30.0, "tokens_per_second": 9.0}
    write_lines(run / "timings.jsonl", [{"phase": "practice", "step": step, **seconds} for step in (1, 2)])
    assert chart_labels(Page(write_report([run], tmp_path / "report.html"))) == [
        "Divergence (nats per token) by step. from the policy that sampled: 0.01 at step 1, 0.02 at step 2.",
        "Learning rate (per optimiser step) by step. learning rate: 1e-05 at step 1, 2e-05 at step 2.",
        "Tokens sampled (tokens since the first step) by step. tokens sampled: 100 at step 1, 300 at step 2.",
        "Time (minutes of sampling, feedback and learning) by step. minutes since the first step: 1 at step 1, 2 at step 2.",
    ]


def test_panels_whose_values_never_change_are_one_line(page_of: Callable[..., Page]) -> None:
    page = page_of([{"loss": 1.0 + step, "clip_share": 0.0, "pass_at_1": 0.5, "pass_at_2": 0.75} for step in range(3)])
    assert [label.split(" (")[0] for label in chart_labels(page)] == ["Loss"]
    assert "Flat, the same at every step: Correct attempts 50 %; pass@k (k = 1 50 %, k = 2 75 %); Clipped 0 %." in page.text


def test_equal_runs_are_flat_together_and_different_ones_are_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b")]
    for other, is_drawn in ((1.0, False), (2.0, True)):
        for run, value in zip(runs, (1.0, other), strict=True):
            write_lines(run / "metrics.jsonl", [{"phase": "practice", "step": step, "loss": value} for step in range(3)])
        page = Page(write_report(runs, tmp_path / "report.html"))
        assert any(label.startswith("Loss") for label in chart_labels(page)) == is_drawn
        assert ("Loss 1;" in page.text) != is_drawn


def hovers(page: Page) -> list[dict[str, Any]]:
    """What the script shows of the points of every chart."""
    return [json.loads(attributes["data-curves"] or "") for _, attributes in page.tags if "data-curves" in attributes]


def test_charts_hold_step_and_value_of_every_point_for_the_script(page_of: Callable[..., Page]) -> None:
    (hover,) = hovers(page_of([{"pass_at_1": value} for value in (0.25, None, 0.5)]))[:1]
    (line,) = hover["lines"]
    assert hover["before"] == "step" and line["name"] == "attempts that are right"
    assert [point[2:] for point in line["points"]] == [[0, "25\u202f%"], [2, "50\u202f%"]]


def test_data_of_a_long_curve_is_thinned_and_says_so(page_of: Callable[..., Page]) -> None:
    (thinned,) = hovers(page_of([{"loss": float(step)} for step in range(1000)]))
    assert thinned["before"] == "around step" and len(thinned["lines"][0]["points"]) <= 300


def test_hostile_names_of_panels_stay_text_in_the_chart_data(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    panels = [{"title": HOSTILE, "unit": "", "measures": {name: HOSTILE}} for name in ("score", "groups")]
    (run / "panels.json").write_text(json.dumps({"panels": [panels[0], {**panels[1], "title": f"flat {HOSTILE}"}]}))
    path = write_report([run], tmp_path / "report.html")
    page = Page(path)
    assert "<script>alert" not in path.read_text("utf-8") and len(page.scripts) == 2
    assert any(line["name"] == HOSTILE for hover in hovers(page) for line in hover["lines"])
    assert "(no unit)" in page.text and "flat <script>alert(1)</script>" in page.text


def test_a_legend_names_no_curve_that_is_not_there(page_of: Callable[..., Page]) -> None:
    page = page_of([{"pass_at_1": 0.1, "pass_at_2": 0.2}, {"pass_at_1": 0.3, "pass_at_2": 0.4}])
    assert "k = 2" in page.text and "k = 4" not in page.text
    assert chart_labels(page)[1:] == [
        "pass@k (share of groups) by step. k = 1: 0.1 at step 0, 0.3 at step 1; k = 2: 0.2 at step 0, 0.4 at step 1."
    ]


@pytest.mark.parametrize(("largest", "top"), [(0.004, "0.4 %"), (1.0, "100 %")])
def test_charts_of_small_shares_are_zoomed(page_of: Callable[..., Page], largest: float, top: str) -> None:
    page = page_of([{"clip_share": 0.0}, {"clip_share": largest}])
    curves = page.text[page.text.index("Clipped (share") : page.text.index("The first 30")]
    assert "0 %" in curves and top in curves and ("100 %" in curves) == (top == "100 %")


def test_long_curves_are_thinned(page_of: Callable[..., Page]) -> None:
    page = page_of([{"loss": 1.0 / (1 + step)} for step in range(10_000)])
    assert all((attributes["d"] or "").count("L") <= 300 for tag, attributes in page.tags if tag == "path")


def test_wrong_arguments_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")
    with pytest.raises(UserError, match=f"1 to {MAX_RUNS} runs, got 0"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def dom(page: Path, fragment: str, profile: Path, *, width: int = 1280) -> str:
    """The page's document after its script ran, in a headless browser so many pixels wide."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        f"--user-data-dir={profile}",
        "--dump-dom",
        f"{page.as_uri()}#{fragment}",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.browser
@NEEDS_BROWSER
def test_browser_filters_attempts_and_shows_hostile_text_as_text(make_run: MakeRun, tmp_path: Path) -> None:
    revised = make_run("c", steps=1, per_step=0)
    turns = [{"text": HOSTILE, "score": 0.0, "advantage": -0.5, "told": "no"}, {"text": "b", "score": 1.0, "advantage": 0.5, "told": None}]
    write_lines(revised / "attempts" / "00001.jsonl.gz", [attempt(1, 0) | {"turns": turns}])
    page = write_report([make_run("a"), make_run("b", per_step=6), revised], tmp_path / "report.html")
    third = dom(page, "run=2", tmp_path / "profile")
    assert (
        "Turn 1, score 0, advantage \u22120.5" in third
        and "Turn 2, score 1, advantage +0.5" in third
        and third.count(">Feedback to the model<") == 1
    )
    everything = dom(page, "", tmp_path / "profile")
    assert "36 of 36 attempts match, in 12 groups; the first 10 groups are shown. These are all attempts of the run." in everything
    assert everything.count('<section class="group" tabindex="-1">') == 10 and everything.count('<article class="attempt">') == 30
    first = everything.split('<section class="group" tabindex="-1">')[1]
    assert first.count(">Question<") == 1 and re.findall(r'class="mark (\w+)"', first) == ["right", "wrong", "unscored"]
    assert everything.count(">Download CSV<") == 3
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in everything and "<script>alert" not in everything
    assert '<option value="right">right (12)</option>' in everything
    wrong = dom(page, "outcome=wrong&step=1", tmp_path / "profile")
    assert (
        "4 of 36 attempts match, in 4 groups" in wrong
        and "1 of 3 attempts match" in wrong
        and wrong.count('class="mark wrong">✗ wrong') == 4
    )
    assert "1 of 18 attempts match" in dom(page, "run=1&step=2&text=i+SAY+5", tmp_path / "profile")


@pytest.mark.browser
@NEEDS_BROWSER
def test_tables_fit_a_wide_screen_and_scroll_on_a_phone(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    result = json.loads((run / "result.json").read_text())
    for each in result["evaluation"]:
        each |= dict.fromkeys(("accuracy", "accuracy_high", "sampled_accuracy", "pass_at_8", "majority_at_8", "parsable", "truncated"), 1.0)
        each |= {
            "mean_tokens": 1031.6,
            "n": 1000,
            "pass_n": 500,
            "unscored": 1000,
            "baselines": {"commonest_answer_of_training_items": 0.3},
        }
    (run / "result.json").write_text(json.dumps(result))
    page = write_report([run], tmp_path / "report.html")
    assert 'class="scroll wide"' not in dom(page, "", tmp_path / "profile", width=1280)
    assert 'class="scroll wide" role="region" aria-label="Accuracy of every model"' in dom(page, "", tmp_path / "profile", width=500)


TIP = "[...document.querySelectorAll('.tip')].filter((tip) => !tip.hidden).map((tip) => tip.innerText)"


@pytest.mark.browser
@NEEDS_BROWSER
def test_values_appear_under_the_pointer_and_by_keys(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    rows = [{"phase": "practice", "step": step, "pass_at_1": step / 8, "pass_at_group": 0.5 + step / 8} for step in (1, 2, 3)]
    write_lines(run / "metrics.jsonl", rows)
    chart = "[data-part='Practice: Correct attempts'] > svg"
    with Browser(tmp_path / "profile") as browser:
        page = browser.page(write_report([run], tmp_path / "report.html").as_uri(), width=390)
        assert page.evaluate(TIP) == []
        page.point_at(chart, across=198 / 360)  # the middle of the axis of steps 1 to 3
        assert page.evaluate(TIP) == ["step 2\nattempts that are right: 25\u202f%\ngroups with a right attempt: 75\u202f%"]
        assert page.evaluate("document.querySelectorAll('.ring').length") == 2
        inside = "tip.getBoundingClientRect().left >= 0 && tip.getBoundingClientRect().right <= innerWidth"
        assert page.evaluate(f"[...document.querySelectorAll('.tip:not([hidden])')].every((tip) => {inside})")
        page.point_at("h1")
        assert page.evaluate(TIP) == []
        page.evaluate(f"document.querySelector({json.dumps(chart)}).focus()")  # shows the last step
        page.press("ArrowLeft")
        page.press("Home")
        assert page.evaluate(TIP)[0].startswith("step 1\nattempts that are right: 12.5")
        page.press("Escape")
        assert page.evaluate(TIP) == []
