"""One task has one score, whoever asks: the harness over a server, the harness over etude's model, and `etude evaluate`."""

import math

import lm_eval
import pytest
from served import NEEDS_KERNELS, serving

from etude.lm_eval.adapter import EtudeLM
from etude.models.load import load_model
from etude.recipes.evaluate import evaluate
from etude.tiny import letters
from experiments.harness_tasks import tasks_in, write_task

N = 30


@pytest.fixture(scope="module")
def folder(finished):
    return finished / "model"


@pytest.fixture(scope="module")
def pair(folder):
    return load_model(str(folder))


@pytest.fixture(scope="module")
def rows():
    return [{name: row[name] for name in ("question", "answer")} for row in letters("test", N, seed=3)]


@pytest.fixture(scope="module")
def manager(tmp_path_factory, rows):
    folder, options = tmp_path_factory.mktemp("tasks"), list("abcdefgh")
    choices = {"output_type": "multiple_choice", "doc_to_choice": options, "doc_to_target": "answer", "target_delimiter": ""}
    write_task(folder, "choose", rows, doc_to_text="{{question}}\n", **choices, metric_list=[{"metric": "acc"}])
    written = {"output_type": "generate_until", "doc_to_target": "answer", "generation_kwargs": {"until": [], "max_gen_toks": 4}}
    write_task(folder, "write", rows, doc_to_text="{{question}}", **written, metric_list=[{"metric": "exact_match"}])
    return tasks_in(folder)


@pytest.fixture
def client(pair):
    with serving(*pair) as made:
        yield made


def measured(model, task, manager, arguments=None, **more):
    found = lm_eval.simple_evaluate(
        model, model_args=arguments, tasks=[task], task_manager=manager, log_samples=True, bootstrap_iters=0, **more
    )
    (score,) = (value for name, value in found["results"][task].items() if name in ("acc,none", "exact_match,none"))
    return float(score), [sample["filtered_resps"] for sample in sorted(found["samples"][task], key=lambda sample: sample["doc_id"])]


def over_http(client, folder, path):
    return {"model": "mine", "base_url": f"{client.base_url}{path}", "tokenizer": str(folder), "num_concurrent": 2, "max_length": 256}


@NEEDS_KERNELS  # without them a server's answers have no log-probs
def test_a_multiple_choice_task_has_one_score(client, pair, folder, manager):
    served, over = measured("local-completions", "choose", manager, over_http(client, folder, "completions"))
    own, within = measured(EtudeLM(pair, dtype="float32"), "choose", manager)
    theirs, expected = measured("hf", "choose", manager, {"pretrained": str(folder), "dtype": "float32"}, device="cpu")
    assert served == own == theirs and 0 < own < 1
    for ways in zip(over, within, expected, strict=True):
        for (logprob, is_greedy), *others in zip(*ways, strict=True):
            assert all(math.isclose(logprob, other, abs_tol=1e-4) and is_greedy == best for other, best in others)


def test_a_task_of_written_answers_has_one_score(client, pair, folder, manager, rows):
    chat = {"apply_chat_template": True}
    served, over = measured("local-chat-completions", "write", manager, over_http(client, folder, "chat/completions"), **chat)
    own, within = measured(EtudeLM(pair, dtype="float32"), "write", manager, **chat)
    theirs, expected = measured("hf", "write", manager, {"pretrained": str(folder), "dtype": "float32"}, device="cpu", **chat)
    found = evaluate(pair, tasks=rows, reward="exact", max_new_tokens=4, **{"evaluation.pass_n": 0, "machine.dtype": "float32"})
    (items,) = found["items"].values()
    assert over == within == expected == [[item["text"]] for item in items]
    assert served == own == theirs == found.accuracy and 0 < own < 1


def test_a_method_of_decoding_has_one_score_too(client, pair, folder, manager):
    chat = {"apply_chat_template": True}
    named = over_http(client, folder, "chat/completions") | {"model": "mine:layer_contrast_static"}
    served, over = measured("local-chat-completions", "write", manager, named, **chat)
    own, within = measured(EtudeLM(pair, dtype="float32", method="layer_contrast_static"), "write", manager, **chat)
    assert served == own and over == within
    assert within != measured(EtudeLM(pair, dtype="float32"), "write", manager, **chat)[1]
