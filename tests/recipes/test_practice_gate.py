"""Practice runs that keep what their model knew: the gate, what it holds and falls back to, and replay beside."""

import json
from pathlib import Path

import pytest
import torch
from run_outputs import assert_same, attempts_of, practised
from safetensors.torch import load_file

from etude.callbacks.replay import ReplaySettings, pieces_of
from etude.errors import UserError
from etude.evaluation.settings import Retention
from etude.suites.retention_probe import retention_questions

PROBE = {"retention.probe": True, "retention.n": 4, "retention.text_tokens": 100}
GATE = PROBE | {"gate.every": 1, "gate.max_accuracy_drop": 0.9, "save_steps": 3}


@pytest.fixture
def seen(monkeypatch):
    """`seen(perplexity of each measurement of a gate)`: what the gate sees instead of what there is."""

    def set_to(*values):
        left = iter(values)
        monkeypatch.setattr("etude.training.practice_run.PracticeRun.known_row", lambda *_: {"perplexity": next(left)})
        monkeypatch.setattr("etude.callbacks.gate.passes", lambda settings, before, now: now["perplexity"] < 100)

    return set_to


def weights(folder):
    return load_file(folder / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_gate_that_always_passes_leaves_practice_as_it_was(small, tmp_path):
    plain = small(tmp_path / "plain", PROBE)
    gated = small(tmp_path / "gated", PROBE | {"gate.every": 2, "gate.max_perplexity_rise": 1e9, "gate.max_accuracy_drop": 0.99})
    assert equal(weights(tmp_path / "plain/model"), weights(tmp_path / "gated/model"))
    assert [row["passed"] for row in gated.pop("gate")["measurements"]] == [True, True]
    assert gated == plain
    rows = [{name: value for name, value in row.items() if not name.startswith("gate/")} for row in practised(tmp_path / "gated")]
    assert rows == practised(tmp_path / "plain")


def test_practice_falls_back_to_what_was_held_and_goes_on_with_other_random_numbers(small, tmp_path, seen):
    seen(1, 1, 999, 1)
    result = small(tmp_path / "run", GATE | {"gate.action": "lower_lr"})
    one, two, three, four = practised(tmp_path / "run")
    assert [row["gate/held"] for row in (one, two, three, four)] == [1, 2, 2, 4]
    assert four["learning_rate"] == three["learning_rate"] / 2  # update 3 once more, at half the rate
    assert result["gate"]["falls"] == 1 and not result["gate"]["ended_practice"]
    first, again = ([row["key"] for row in attempts_of(tmp_path / "run") if row["step"] == step] for step in (3, 4))
    assert first != again
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {"warm_start", "step-00004"}
    page = (tmp_path / "run/report.html").read_text()
    assert "rolled back to step 2" in page and page.count('class="fall"') >= 1


def test_what_practice_ends_with_is_what_passed_last(small, tmp_path, seen):
    seen(1, 999)
    result = small(tmp_path / "run", GATE | {"gate.action": "stop"})
    kept = tmp_path / "run/checkpoints"
    assert len(practised(tmp_path / "run")) == 2 and result["gate"]["ended_practice"]
    assert [row["held"] for row in result["gate"]["measurements"]] == [1, 1]
    for last in (kept / "step-00002", tmp_path / "run/model"):
        assert equal(weights(last), weights(kept / "step-00001"))
    moments = (load_file(kept / name / "learner.safetensors") for name in ("step-00001", "step-00002"))
    first, second = ({name: value for name, value in each.items() if name.startswith("o.")} for each in moments)
    assert equal(first, second)


def test_the_last_step_is_looked_at_whatever_its_number(small, tmp_path, seen):
    seen(1, 999)
    result = small(tmp_path / "run", GATE | {"gate.every": 3})
    assert [(row["step"], row["passed"], row["held"]) for row in result["gate"]["measurements"]] == [(3, True, 3), (4, False, 3)]
    assert equal(weights(tmp_path / "run/model"), weights(tmp_path / "run/checkpoints/step-00003"))


def test_the_step_that_spends_the_budget_is_the_last_one_to_a_gate(small, tmp_path, seen):
    seen(1)
    small(tmp_path / "plain", PROBE)
    spends = sum(row["sampled_tokens"] for row in practised(tmp_path / "plain")[:2])
    result = small(tmp_path / "run", GATE | {"gate.every": 9, "token_budget.tokens": int(spends)})
    assert [row["step"] for row in result["gate"]["measurements"]] == [2]


def test_a_first_failure_falls_back_to_the_model_that_practice_began_with(small, tmp_path, seen):
    seen(999, 999, 999)
    result = small(tmp_path / "run", GATE | {"gate.max_rollbacks": 1})
    assert [row["gate/held"] for row in practised(tmp_path / "run")] == [0, 0] and result["gate"]["falls"] == 2
    assert equal(weights(tmp_path / "run/model"), weights(tmp_path / "run/checkpoints/warm_start"))


NEAR = {"gate.every": 2, "gate.divergence_n": 5, "save_steps": 3}
"""A gate that goes by how far the model has moved, and by nothing else."""


def test_a_gate_by_divergence_needs_no_old_knowledge_and_holds_while_it_is_near(small, finished, tmp_path):
    gated = small(tmp_path / "far", NEAR | {"gate.max_divergence": 1e9, "divergence.n": 5})
    assert_same(finished, tmp_path / "far", ("model/model.safetensors", "evaluation"))
    looks = gated["gate"]["measurements"]
    assert [(row["step"], row["passed"], row["held"]) for row in looks] == [(2, True, 2), (4, True, 4)]
    assert all(row["forward_kl"] > 0 for row in looks) and looks[0].keys() == {"step", "forward_kl", "passed", "held"}
    own, shown = (json.loads((tmp_path / "far" / name).read_text()) for name in ("gate_answers.json", "start_answers.json"))
    prompts, evaluated = ({tuple(each["prompt"]) for row in rows for each in row} for rows in (own, shown))
    assert len(prompts) == len(own) == 5 and not prompts & evaluated  # nothing of the evaluation decides in training
    page = (tmp_path / "far/report.html").read_text()
    assert "Divergence from the initial model" in page and f"<td>{looks[0]['forward_kl']:.2f}</td><td>passed</td>" in page


def test_replay_is_counted_and_read_of_texts_and_of_answers(small, letter_files):
    Path("tale.txt").write_text("Once upon a time there was a wren. " * 20)
    how = {"replay.path": ["tale.txt", "shown.jsonl"], "replay.ratio": 0.5, "replay.kl_coef": 0.1, "steps": 2}
    small(letter_files / "run", how)
    for row in practised(letter_files / "run"):
        assert row["replay/tokens"] == round(0.5 * row["sampled_tokens"]) and row["replay_nats"] > 0 and row["replay_divergence"] >= 0
    with pytest.raises(UserError, match=r"path 'none\.jsonl' is not a file"):
        small(letter_files / "other", how | {"replay.path": ["none.jsonl"]})
    assert not (letter_files / "other").exists()


def test_what_is_asked_elsewhere_is_not_replayed(tmp_path, monkeypatch, chat_tokenizer):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"question": "Which is a fruit?", "choices": ["a stone", "a pear"], "answer": "B"},
        {"question": "Who barks?", "answer": "a dog"},
    ]
    Path("known.jsonl").write_text(json.dumps(rows[0]))
    Path("shown.jsonl").write_text("\n".join(json.dumps({**row, "choices": None} if "choices" in row else row) for row in rows))
    how = ReplaySettings(path=["shown.jsonl"], ratio=0.5)
    asked = retention_questions(Retention(choices=["known.jsonl"]), None)
    assert len(pieces_of(how, chat_tokenizer, 500, None, [])) == 2 and len(pieces_of(how, chat_tokenizer, 500, None, asked)) == 1


def test_rows_of_a_text_are_replayed_without_their_other_columns(tmp_path, monkeypatch, chat_tokenizer):
    monkeypatch.chdir(tmp_path)
    Path("notes.csv").write_text("id,text\n7,\u732b\u732b\u732b\n8,dogs bark\n")
    (piece,) = pieces_of(ReplaySettings(path=["notes.csv"], ratio=0.5), chat_tokenizer, 500, None, [])
    assert chat_tokenizer.decode([*piece.prompt, *piece.completion]).endswith("\u732b\u732b\u732b\n\ndogs bark")
