"""The model that lm-evaluation-harness asks: what it says is what the harness's own model of transformers says."""

import copy
import json

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from etude.decoding.answering import answers
from etude.decoding.search_settings import AnswerSearch
from etude.decoding.settings import ReliableDecoding
from etude.decoding.way import Way
from etude.engine.sampling import GREEDY, Sampling
from etude.errors import UserError
from etude.lm_eval.__main__ import main
from etude.lm_eval.adapter import EtudeLM
from etude.randomness import seed_for
from etude.rollouts.thinking import Thought
from etude.tasks.task import Task
from experiments.harness_tasks import tasks_in, write_task

CONTEXTS = ["What is a lamp? ", "What is a lamp? ", "Name a river.", "x" * 300, ""]
CONTINUATIONS = [" A light.", "Nothing", " Rhine", " y", "The sea is wide."]
MESSAGES = [{"role": "user", "content": "What is a lamp?"}]


@pytest.fixture(scope="module")
def pair(model_of, chat_tokenizer):
    return model_of("qwen3"), chat_tokenizer


@pytest.fixture(scope="module")
def theirs(pair):
    return HFLM(pretrained=pair[0], tokenizer=pair[1], batch_size=3, device="cpu")


def asked(kind, *arguments):
    """Return a request of the harness."""
    return Instance(kind, {}, arguments, 0)


def ours(pair, **settings):
    return EtudeLM(pair, **{"machine.dtype": "float32"} | settings)


def tokens_asked(lm, context, continuation):
    """Return the log-likelihood of tokens that no text need have."""
    return lm._loglikelihood_tokens([(None, list(context), list(continuation))], disable_tqdm=True)


def texts_of(lm, *prompts, **kwargs):
    return lm.generate_until([asked("generate_until", prompt, {"max_gen_toks": 8, **kwargs}) for prompt in prompts], disable_tqdm=True)


def test_log_likelihoods_are_the_harnesss_own(pair, theirs):
    lm = ours(pair)
    ((own,),) = lm.engine.generate([tuple(range(40, 50))], max_new_tokens=3, sampling=GREEDY)
    requests = [asked("loglikelihood", *each) for each in zip(CONTEXTS, CONTINUATIONS, strict=True)]
    for some in (lambda each: each.loglikelihood(requests, disable_tqdm=True), lambda each: tokens_asked(each, range(40, 50), own.tokens)):
        expected, found = some(theirs), some(lm)
        assert [logprob for logprob, _ in found] == pytest.approx([logprob for logprob, _ in expected], abs=1e-4)
        assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]
    assert [is_greedy for _, is_greedy in found] == [True]


@pytest.mark.parametrize("max_length", [None, 20])
def test_log_likelihoods_of_whole_texts_are_the_harnesss_own(pair, max_length):
    requests = [asked("loglikelihood_rolling", text) for text in ("The sea is wide. " * 30, "a", "A lamp gives light.")]
    theirs = HFLM(pretrained=pair[0], tokenizer=pair[1], device="cpu", max_length=max_length)
    found = ours(pair, **{} if max_length is None else {"max_length": max_length}).loglikelihood_rolling(requests, disable_tqdm=True)
    assert found == pytest.approx(theirs.loglikelihood_rolling(requests, disable_tqdm=True), abs=1e-3)


def test_greedy_answers_and_chat_prompts_are_the_harnesss_own(pair, theirs):
    lm = ours(pair)
    chat = lm.apply_chat_template(MESSAGES)
    assert chat == theirs.apply_chat_template(MESSAGES) and copy.deepcopy(chat).messages == tuple(MESSAGES)
    prefilled = [*MESSAGES, {"role": "assistant", "content": "It"}]
    assert lm.apply_chat_template(prefilled, False) == theirs.apply_chat_template(prefilled, False)
    prompts = [chat, "Name a river.", "x" * 300]
    expected = texts_of(theirs, *prompts)
    assert texts_of(lm, *prompts) == expected
    stop = expected[0][2:4]
    assert texts_of(lm, *prompts, until=[stop, "<eos>"]) == texts_of(theirs, *prompts, until=[stop, "<eos>"])
    assert texts_of(lm, *prompts, until=[stop, "<eos>"])[0] == expected[0].partition(stop)[0]


def test_a_cache_policy_changes_log_likelihoods_as_it_changes_answers(pair):
    requests = [asked("loglikelihood", *each) for each in zip(CONTEXTS[:3], CONTINUATIONS, strict=False)]
    whole = ours(pair).loglikelihood(requests, disable_tqdm=True)
    kept = {"kv_cache.policy": "snapkv", "kv_cache.keep_ratio": 1.0}
    assert ours(pair, **kept).loglikelihood(requests, disable_tqdm=True) == [(pytest.approx(each, abs=1e-4), best) for each, best in whole]
    lm = ours(pair, **{"kv_cache.policy": "streaming", "kv_cache.budget_tokens": 8, "kv_cache.every_tokens": 1})
    prompt = tuple(lm.tok_encode("What is a lamp? Name a river."))
    ((own,),) = lm.engine.generate([prompt], max_new_tokens=6, sampling=GREEDY)
    ((logprob, is_greedy),) = tokens_asked(lm, prompt, own.tokens)
    assert logprob == pytest.approx(sum(own.logprobs), abs=1e-3) and is_greedy
    ((full, _),) = tokens_asked(ours(pair), prompt, own.tokens)
    assert abs(full - logprob) > 0.01


WAYS = {
    "majority": ({"method": "majority", "k": 3}, {"decoding": ReliableDecoding("majority", k=3)}, GREEDY),
    "integrative": ({"method": "integrative", "k": 2}, {"decoding": ReliableDecoding("integrative", k=2)}, GREEDY),
    "search": ({"search": "samples", "num_samples": 3}, {"search": AnswerSearch("samples"), "search_samples": 3}, Sampling(0.9)),
    "thought": ({"thought.budget_tokens": 6}, {"thought": Thought(budget_tokens=6)}, GREEDY),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_way_of_answering_is_etudes(pair, way):
    given, settings, sampling = WAYS[way]
    lm = ours(pair, **given)
    most = settings["thought"].most_tokens(6) if way == "thought" else 8
    names = (0, "lm_eval", 0)
    items = [(Task(tuple(MESSAGES)), tuple(lm.tok_encode(lm.apply_chat_template(MESSAGES))))]
    ((own,),) = answers(lm.engine, items, Way(sampling, most, **settings), keys=[[seed_for(*names, 0)]], names=names, logprobs=None)
    kwargs = {} if sampling.is_greedy else {"do_sample": True, "temperature": 0.9}
    assert texts_of(lm, lm.apply_chat_template(MESSAGES), **kwargs) == [own.text]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"methd": "majority"}, "unknown setting --methd: did you mean --method"),
        ({"method": "mojority"}, "unknown decoding.method 'mojority'"),
        ({"k": 3}, "settings without effect .decoding.k: decoding.method is none"),
        ({"num_samples": 3}, "settings without effect .num_samples: search.method is none"),
        ({"thought.cue": "So"}, "settings without effect .thought.cue: thought.budget_tokens is not set"),
        ({"kv_cache.keep_ratio": 0.5}, "settings without effect .kv_cache.keep_ratio: kv_cache.policy is full"),
        ({"method": "majority", "search": "beam"}, "decoding.method majority and search.method beam exclude each other"),
        ({"search": "beam", "kv_cache.policy": "snapkv", "kv_cache.keep_ratio": 0.5}, "search.method beam goes on from pieces"),
        ({"trust_remote_code": True}, "unknown setting --trust_remote_code"),
    ],
)
def test_a_model_that_cannot_be_is_one_sentence(pair, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        ours(pair, **settings)


@pytest.mark.parametrize("settings", [{"method": "majority"}, {"search": "beam"}, {"thought.budget_tokens": 4}])
def test_what_only_writes_texts_has_no_log_likelihoods(pair, settings):
    for kind, arguments in (("loglikelihood", ("a", " b")), ("loglikelihood_rolling", ("a b",))):
        with pytest.raises(UserError, match="writes texts and has no log-likelihoods: leave it out"):
            getattr(ours(pair, **settings), kind)([asked(kind, *arguments)], disable_tqdm=True)


@pytest.mark.parametrize(
    ("settings", "kwargs", "sentence"),
    [
        ({}, {"num_beams": 4}, "generation_kwargs num_beams is nothing that etude's engine knows"),
        ({}, {"do_sample": True, "temperature": -1.0}, "temperature must be 0"),
        ({}, {"max_gen_toks": 256}, "leaves no room for a prompt"),
        ({"search": "beam"}, {"do_sample": False}, "at temperature 0 all are equal.* --gen_kwargs do_sample=true,temperature=1"),
        ({"search": "beam"}, {"until": ["\n"]}, "until .* and search.method beam exclude each other.* --gen_kwargs until="),
        ({"thought.budget_tokens": 4}, {"until": ["\n"]}, "thought.budget_tokens and until .* exclude each other"),
        (
            {"method": "integrative"},
            {},
            "decoding.method integrative asks the model again, in its chat template: add --apply_chat_template",
        ),
        ({"search": "refine"}, {}, "search.method refine asks the model again"),
    ],
)
def test_a_task_that_cannot_be_answered_so_is_one_sentence(pair, settings, kwargs, sentence):
    with pytest.raises(UserError, match=sentence):
        texts_of(ours(pair, **settings), "Name a river.", **kwargs)


def test_a_base_model_has_no_chat_template(model_of, tokenizer):
    with pytest.raises(UserError, match="has no chat template: leave --apply_chat_template out"):
        ours((model_of("llama"), tokenizer)).apply_chat_template(MESSAGES)


def test_the_harnesss_command_knows_the_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest"])  # which the command replaces
    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)  # it would stay for other tests
    rows = [{"q": f"{letter}?", "options": ["yes", "no"], "a": 0} for letter in "abc"]
    read = {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{options}}", "doc_to_target": "{{a}}"}
    write_task(tmp_path, "letters", rows, **read, metric_list=[{"metric": "acc"}])
    own = tasks_in(tmp_path)  # reading the harness's thousands of tasks takes seconds
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda **_: own)
    given = ["--tasks", "letters", "--output_path", str(tmp_path / "found.json"), "--model_args"]
    assert main([*given, "pretrained=tiny-random,kv_cache.policy=snapkv,kv_cache.keep_ratio=0.5"]) == 0
    (path,) = tmp_path.rglob("found*.json")
    found = json.loads(path.read_text())
    assert found["n-samples"]["letters"]["effective"] == 3 and found["config"]["model"] == "etude"
    assert "|letters|" in capsys.readouterr().out
    assert main([*given, "pretrained=tiny-random,k=2"]) == 2
    assert "etude: settings without effect (decoding.k: decoding.method is none): leave them out" in capsys.readouterr().err
