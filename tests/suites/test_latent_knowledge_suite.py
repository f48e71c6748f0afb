"""The suite of what a model knows and does not say."""

import copy
import json

import pytest
import torch

from etude.cli import main
from etude.console.reporter import Silent
from etude.decoding.logit_lens import head_copy, logprobs_by_layer
from etude.decoding.sample_pool import SamplePool
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Machine
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.evaluation.latent_knowledge import gap_closed
from etude.models.load import load_model
from etude.recipes.evaluate import evaluate
from etude.rollouts.order import visits
from etude.suites.latent_knowledge import LATENT_KNOWLEDGE, LatentKnowledge, _leading, _said
from etude.tasks.aliases import with_aliases
from etude.tasks.task import Task

ROWS = [(letter, "bcdea"[place]) for place, letter in enumerate("abcde")]
FLOAT32 = {"machine.dtype": "float32"}


@pytest.fixture
def model(finished):
    return str(finished / "model")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "letters.jsonl"
    rows = [
        {"question": f"repeat {right} after 12: {right}", "answer": f"{right}; {right}{right}", "wrong": wrong} for right, wrong in ROWS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 30])
def test_the_likelihood_of_answers_after_each_layer_is_that_of_whole_passes(model_of, scale):
    for family in ("llama", "qwen3", "gpt2"):
        model = model_of(family, num_hidden_layers=3)
        model.get_output_embeddings().weight *= scale  # at 30 one token has nearly all there is
        prompt, completions = (10, 11, 12), [(20, 21), (22,), (23, 24, 25)]
        norm = [part for part in model.get_decoder().children() if "norm" in type(part).__name__.lower()][-1]
        alike = copy.deepcopy(model.get_output_embeddings())
        by_head = [logprobs_by_layer(model, prompt, completions, head) for head in (None, alike, head_copy(model, torch.bfloat16))]
        for completion, found, by_copy, by_half in zip(completions, *by_head, strict=True):
            states = model(torch.tensor([[*prompt, *completion]]), output_hidden_states=True)
            logits = [model.get_output_embeddings()(norm(each)) for each in states.hidden_states[:-1]] + [states.logits]
            rows = [each[0, len(prompt) - 1 :].log_softmax(-1) for each in logits]
            expected = [sum(float(row[place, token]) for place, token in enumerate(completion)) for row in rows]
            assert found == pytest.approx(expected, abs=1e-4) and by_copy == pytest.approx(expected, abs=1e-4)
            assert by_half == pytest.approx(expected, abs=0.02 * len(completion), rel=0.003) and by_half[-1] == found[-1]
    assert head_copy(model, torch.float32) is None


def test_the_suite_measures_likelihoods_samples_and_greedy_answers(model, file):
    suite = {"path": [file], "max_new_tokens": 3, "k": 4, "methods": ["majority", "integrative_original"], **FLOAT32}
    found = LATENT_KNOWLEDGE.evaluate(model, "latent-knowledge", suite | {"wrong": "wrong", "n": 5, "instruction": ""})
    row, items = found["row"], found["items"]
    assert (row["n"], row["k"], len(items)) == (5, 4, 5)
    assert row["likelihood"] == sum(item["likelihood"] for item in items) / 5
    assert row["pass_at_k"] == sum(item["right_samples"] > 0 for item in items) / 5
    loaded, _ = load_model(model)
    assert len(row["leads_after"]) == loaded.config.num_hidden_layers + 1 and row["leads_after"][-1] == row["likelihood"]
    plain = evaluate(model, {"evaluation.path": [file], "verifier": "aliases", "max_new_tokens": 3, "evaluation.pass_n": 0, **FLOAT32})
    assert row["greedy"] == plain["evaluation"][0]["accuracy"] == sum(item["greedy"] for item in items) / 5
    assert [item["text"] for item in items] == [item["text"] for item in plain["items"]["letters"]]
    assert [each["method"] for each in found["methods"]] == ["majority", "integrative_original"]
    for each in found["methods"]:
        asked = {"evaluation.path": [file], "verifier": "aliases", "max_new_tokens": 3, "evaluation.pass_n": 0, "decoding.k": 4, **FLOAT32}
        assert each["gain"] == pytest.approx(each["accuracy"] - row["greedy"])
        assert each["closed"] == gap_closed(each["accuracy"], row)
        if each["method"] == "integrative_original":  # which draws no samples of its own
            other = evaluate(model, asked | {"decoding.method": each["method"]})["evaluation"][0]
            assert each["accuracy"] == other["decoding_accuracy"]
    assert LATENT_KNOWLEDGE.evaluate(model, "latent-knowledge", suite | {"wrong": "wrong", "n": 5, "instruction": ""}) == found


@torch.no_grad()
def test_an_answer_leads_where_its_likeliest_name_is_likelier_a_byte_than_every_wrong_one(llama, tokenizer):
    tasks = [
        with_aliases(Task("first?", "ab; a", "aliases", metadata={"wrong": ["zz", "y"]})),
        with_aliases(Task("second?", "qrs; tu", "aliases", metadata={"wrong": "vw"})),
    ]
    prompts = [(10, 11, 12), (20, 21)]

    def by_layer(prompt, text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        states = llama(torch.tensor([[*prompt, *ids]]), output_hidden_states=True)
        logits = [*(llama.lm_head(llama.model.norm(each)) for each in states.hidden_states[:-1]), states.logits]
        places = range(len(prompt) - 1, len(prompt) + len(ids) - 1)
        rows = [each[0].log_softmax(-1) for each in logits]
        return [sum(float(row[place, token]) for place, token in zip(places, ids, strict=True)) / len(text.encode()) for row in rows]

    expected = []
    for prompt, right, wrong, other in (
        (prompts[0], ["ab", "a"], ["zz", "y"], ["qrs", "tu"]),
        (prompts[1], ["qrs", "tu"], ["vw"], ["ab", "a"]),
    ):
        best = [[max(layer) for layer in zip(*(by_layer(prompt, text) for text in own), strict=True)] for own in (right, wrong, other)]
        expected.append(tuple(tuple(mine > its for mine, its in zip(own, best[1], strict=True)) for own in (best[0], best[2])))
    assert _leading(llama, tokenizer, tasks, prompts, "wrong", Silent()) == expected


def test_pass_at_k_is_of_the_samples_that_methods_choose_among(llama, tokenizer):
    tasks = [Task("first?", "ab", "aliases"), Task("second?", "b", "aliases"), Task("first?", "ab", "aliases")]
    prompts = [(10, 11, 12), (20, 21), (10, 11, 12)]
    engine, suite = TransformersEngine(llama, tokenizer), LatentKnowledge(path=["x"], max_new_tokens=3, decoding=ReliableDecoding(k=5))
    drawn = []
    plain = engine.generate

    def generate(*given, **named):
        drawn.append(plain(*given, **named))
        return drawn[-1]

    engine.generate = generate
    _said(engine, tasks, prompts, suite)
    how = {"max_new_tokens": 3, "room_tokens": 99, "names": (0, "knows-says"), "logprobs": lambda pairs: []}
    pool = SamplePool(engine, tasks, prompts, samples=suite.decoding.sampling, visits=visits(task.key for task in tasks), **how)
    assert [[each.tokens for each in own] for own in drawn[1]] == [[each.own_tokens for each in own] for own in pool.samples(5)]
    assert [each.tokens for each in drawn[1][0]] != [each.tokens for each in drawn[1][2]]  # asked again


def test_the_command_takes_the_suite_by_its_name(model, file, tmp_path, capsys):
    given = ["--path", file, "--wrong", "wrong", "--n", "4", "--k", "2", "--max_new_tokens", "3", "--methods", "majority"]
    assert main(["evaluate", model, "--suite", "latent-knowledge", *given, "--json", str(tmp_path / "found.json")]) == 0
    said = capsys.readouterr().out
    assert "right answers: likeliest " in said and "majority " in said and "points [" in said
    assert json.loads((tmp_path / "found.json").read_text())["row"]["n"] == 4
    assert main(["evaluate", model, "--suite", "knows_says"]) == 2
    assert "'latent-knowledge'? Choices: domain, latent-knowledge, long, retention" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wrong": "false"}, "letters.jsonl:1 has no wrong answer in the column 'false' .wrong.; it has wrong, aliases: name the column"),
        ({"n": 1}, "n must be at least 2, got 1"),
        ({"methods": ["majorty"]}, "unknown name in methods 'majorty': did you mean 'majority'"),
        ({"path": []}, "there is nothing to ask: set --path"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(model, file, changes, message):
    with pytest.raises(UserError, match=message):
        LATENT_KNOWLEDGE.evaluate(model, LatentKnowledge(**({"path": [file], "machine": Machine(dtype="float32")} | changes)))
