"""A corpus in which documents on the heart hide among others, made in code."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etude.errors import UserError
from etude.knowledge.documents import Corpus, read_documents
from etude.knowledge.quality import Quality
from etude.knowledge.scoring import score_all
from etude.knowledge.selection import Selection, select

HEART = ["heart", "blood", "artery", "vein", "valve", "atrium", "pulse", "aorta", "oxygen", "muscle", "chamber", "pressure", "vessel"]
SHIP = ["ship", "sea", "captain", "island", "sail", "crew", "harbour", "wind", "storm", "anchor", "voyage", "pirate", "treasure"]
QUESTION = "Which chamber of the heart receives blood that comes from the lungs through the pulmonary veins?"
HOW = Selection(budget_tokens=4000, domain_labels=["heart"], replay_tokens=300, samples=200, workers=0, block_bytes=3000)
CORPUS, DOMAIN = Corpus(path=["corpus.jsonl"], label_column="about"), Corpus(path=["domain.jsonl"])


def page(words, draw):
    """Sentences of the words, with small words between."""
    return " ".join(
        f"The {draw.choice(words)} of the {draw.choice(words)} is with the {draw.choice(words)} and {draw.random():.3f}." for _ in range(6)
    )


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path):
    draw = random.Random(0)
    rows = [{"text": page(HEART, draw), "about": "heart"} for _ in range(30)] + [
        {"text": page(SHIP, draw), "about": "ship"} for _ in range(300)
    ]
    draw.shuffle(rows)
    write(tmp_path / "corpus.jsonl", rows)
    write(tmp_path / "domain.jsonl", [{"text": page(HEART, draw)} for _ in range(100)])
    return tmp_path


def count(texts):
    return [len(text.split()) for text in texts]


def run(data, out, corpus=CORPUS, how=HOW, questions=None, count_tokens=count, **more):
    return select(corpus, DOMAIN, how, out, count_tokens=count_tokens, questions=questions or {}, data=data, tell=lambda _: None, **more)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("method", ["classifier", "importance"])
def test_hidden_documents_are_found_and_random_ones_are_not(method, data, tmp_path):
    found = run(data, tmp_path / method, how=replace(HOW, method=method))["judged"]
    control = run(data, tmp_path / "random", how=replace(HOW, method="random", budget_tokens=2000))["judged"]
    assert found["precision"] == 1.0 and found["recall"] >= 0.8 and found["recall_n"] == 30
    assert control["precision"] < 0.3 and control["precision_low"] < 30 / 330 < control["precision_high"]


def test_the_budget_is_kept_with_the_best(data, tmp_path):
    whole = run(data, tmp_path / "whole")
    half = run(data, tmp_path / "half", how=replace(HOW, budget_tokens=600))
    assert half["selected"]["tokens"] <= 600 < half["selected"]["tokens"] + 60 and whole["selected"]["tokens"] > 600
    best, rest = rows_of(tmp_path / "half/selected.jsonl"), rows_of(tmp_path / "whole/selected.jsonl")
    least = min(row["score"] for row in best)
    assert all(row["score"] <= least for row in rest if row["origin"] not in {row["origin"] for row in best})
    assert sum(row["tokens"] for row in best) == sum(count([row["text"] for row in best])) == half["selected"]["tokens"]


def test_replay_text_is_sampled_from_documents_outside_the_domain(data, tmp_path):
    report = run(data, tmp_path / "out")
    replayed = rows_of(tmp_path / "out/replay.jsonl")
    assert 240 < report["replay"]["tokens"] <= 300 and all(row["score"] < report["least"] for row in replayed)
    assert not {row["origin"] for row in replayed} & {row["origin"] for row in rows_of(tmp_path / "out/selected.jsonl")}


def test_planted_leaks_and_copies_are_left_out_and_reported(data, tmp_path):
    rows = rows_of(data / "corpus.jsonl")
    hearts = [row for row in rows if row["about"] == "heart"]
    edited = QUESTION.replace("lungs", "lung").replace("Which", "What")
    leaking = [{"text": f"{hearts[0]['text']} {QUESTION}", "about": "heart"}, {"text": f"{hearts[1]['text']} {edited}", "about": "heart"}]
    copies = [{"text": f"{row['text']} Again.", "about": "heart"} for row in hearts[2:12]]
    write(data / "corpus.jsonl", [*rows, *leaking, *copies])
    how = replace(HOW, min_score=-1e9, budget_tokens=100_000)
    report = run(data, tmp_path / "out", how=how, questions={"lungs": QUESTION, "short": "What is it?"})
    n = len(rows)
    assert [(leak["origin"], leak["question"]) for leak in report["leaks"]] == [(f"corpus.jsonl:{n + place}", "lungs") for place in (1, 2)]
    assert report["leaks"][0]["share"] == 1.0 and 0.5 <= report["leaks"][1]["share"] < 1.0
    assert {copy["origin"] for copy in report["copies"]} == {f"corpus.jsonl:{n + place}" for place in range(3, 13)}
    assert report["unchecked_questions"] == ["short"]
    texts = [row["text"] for row in rows_of(tmp_path / "out/selected.jsonl")]
    assert not any("pulmonary" in text or text.endswith("Again.") for text in texts)


def test_lower_ranked_documents_fill_the_room_that_duplicates_leave(data, tmp_path):
    rows = rows_of(data / "corpus.jsonl")
    write(data / "corpus.jsonl", [*rows, *({"text": f"{row['text']} Again.", "about": row["about"]} for row in rows)])
    report = run(data, tmp_path / "out", how=replace(HOW, method="random", budget_tokens=6000, replay_tokens=0))
    assert report["copies"] and 6000 - 60 < report["selected"]["tokens"] <= 6000


def test_of_a_copy_and_the_better_one_that_it_is_like_one_stays(data, tmp_path):
    """The best document comes last in the corpus, and first as a copy that scores least: what stays has the better rank."""
    draw = random.Random(1)
    pages = [page(SHIP, draw) for _ in range(6)]

    class Falling:
        def __call__(self, texts):
            return np.array([9.0 if "best" in text else -float(pages.index(text.removesuffix(" copy."))) for text in texts])

    rows = [{"text": f"{pages[5]} copy."}, *({"text": text} for text in pages[:5]), {"text": f"{pages[5]} best."}]
    write(data / "corpus.jsonl", rows)
    how = replace(HOW, method="perplexity", min_score=-1e9, budget_tokens=590, replay_tokens=0)  # two of the six
    report = run(data, tmp_path / "out", how=how, scorer=Falling, count_tokens=lambda texts: [3 * n for n in count(texts)])
    taken = [row["origin"] for row in rows_of(tmp_path / "out/selected.jsonl")]
    assert [copy["like"] for copy in report["copies"]] == ["corpus.jsonl:1"] and taken == ["corpus.jsonl:1", "corpus.jsonl:2"]


def test_a_document_longer_than_the_budget_makes_way_for_the_next(data, tmp_path):
    write(
        data / "corpus.jsonl", [{"text": " ".join(page(HEART, random.Random(n)) for n in range(4))}, {"text": page(SHIP, random.Random(9))}]
    )
    report = run(data, tmp_path / "out", how=replace(HOW, method="all", budget_tokens=100, replay_tokens=0))
    assert report["selected"]["documents"] == 1 and rows_of(tmp_path / "out/selected.jsonl")[0]["origin"] == "corpus.jsonl:2"


def test_rows_without_text_are_counted(data, tmp_path):
    lines = (data / "corpus.jsonl").read_text()
    (data / "corpus.jsonl").write_text('{"text": \n{"text": "short", "about": "ship"}\n' + lines)
    report = run(data, tmp_path / "out")
    assert report["documents"] == 332 and report["flaws"] == {"no text": 1, "length": 1}


def test_workers_and_the_current_folder_do_not_change_the_selection(data, tmp_path, monkeypatch):
    run(data, tmp_path / "one")
    (tmp_path / "here").mkdir()
    for name in ("multiprocessing.py", "selectors.py"):
        (tmp_path / "here" / name).write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()\nraise SystemExit")
    monkeypatch.chdir(tmp_path / "here")
    run(data, tmp_path / "two", how=replace(HOW, workers=2))
    assert not (tmp_path / "was_run").exists()
    for name in ("selected.jsonl", "replay.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_finished_selection_is_read_and_refused_by_name_under_other_settings(data, tmp_path):
    report = run(data, tmp_path / "out")
    with pytest.raises(UserError, match=r"holds a selection of other settings \(how.budget_tokens\)"):
        run(data, tmp_path / "out", how=replace(HOW, budget_tokens=5000))
    assert run(data, tmp_path / "out", how=replace(HOW, workers=2))
    with pytest.raises(UserError, match=r"of other settings \(questions\)"):
        run(data, tmp_path / "out", questions={"new": QUESTION})
    (data / "corpus.jsonl").unlink()
    assert run(data, tmp_path / "out") == report, "it is not made again"


def test_a_corpus_that_changed_between_two_goes_is_refused(data, tmp_path):
    run(data, tmp_path / "out")
    (tmp_path / "out/selection.json").unlink()
    text = (data / "corpus.jsonl").read_text()
    (data / "corpus.jsonl").write_text(text.replace("The", "A", 1))
    with pytest.raises(UserError, match=r"block 0 was scored from other documents, the first of them now corpus\.jsonl:1"):
        run(data, tmp_path / "out")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"min_score": 1e9}, r"nothing was selected: of 330 documents 0 break a rule, 330 score below 1e\+09"),
        ({"budget_tokens": 3}, "and the others are longer than budget_tokens 3"),
    ],
)
def test_an_empty_selection_says_why(how, sentence, data, tmp_path):
    with pytest.raises(UserError, match=sentence):
        run(data, tmp_path / "out", how=replace(HOW, **how))


@pytest.mark.parametrize(
    ("name", "rows", "sentence"),
    [
        ("corpus", 1, "the corpus has 1 documents with text: give at least 2"),
        ("domain", 9, "the examples of the domain are 9 documents with text: give at least 10"),
    ],
)
def test_too_few_documents_are_refused(name, rows, sentence, data, tmp_path):
    write(data / f"{name}.jsonl", rows_of(data / f"{name}.jsonl")[:rows])
    with pytest.raises(UserError, match=sentence):
        run(data, tmp_path / "out")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (Selection(method="best"), "unknown selection.method 'best'"),
        (Selection(similarity=0.0), "selection.similarity must be above 0 and at most 1, got 0.0"),
        (Selection(budget_tokens=0), "selection.budget_tokens must be at least 1"),
    ],
)
def test_wrong_settings_are_named(how, sentence):
    with pytest.raises(UserError, match=sentence):
        how.check("selection")


KILLED = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_selection import HOW, run
from dataclasses import replace
if __name__ == "__main__":
    run(Path({data!r}), Path({out!r}), how=replace(HOW, workers=2, block_bytes=600))
"""


def test_a_killed_selection_resumes_to_the_same_files_and_leaves_no_process(data, tmp_path):
    run(data, tmp_path / "whole", how=replace(HOW, block_bytes=600))
    script = tmp_path / "script.py"
    script.write_text(KILLED.format(here=os.path.dirname(__file__), data=str(data), out=str(tmp_path / "out")))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
    blocks = tmp_path / "out" / "blocks"
    while process.poll() is None and len(list(blocks.glob("*.safetensors")) if blocks.exists() else []) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    deadline = time.monotonic() + 10
    while _is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(process.pid)
    kept = {path.name: path.stat().st_mtime_ns for path in blocks.glob("*.safetensors")}
    assert subprocess.run([sys.executable, str(script)], env=environment).returncode == 0
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in blocks.glob("*.safetensors")}.items()
    for name in ("selected.jsonl", "replay.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class Dies:
    """A scorer that kills its process."""

    def __call__(self, texts):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_ends_in_one_sentence(data, tmp_path):
    with pytest.raises(UserError, match=r"was killed, perhaps for its memory: lower selection.workers \(now 1\)"):
        score_all(read_documents(CORPUS, data), Dies(), Quality(), tmp_path / "blocks", domain_labels=[], workers=1, block_bytes=3000)


def _is_alive(group: int) -> bool:
    """Whether a process of the group is there that has not ended."""
    for status in os.listdir("/proc"):
        if status.isdigit():
            try:
                fields = Path(f"/proc/{status}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False
