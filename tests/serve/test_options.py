"""Options of requests that are etude's own: searches and thoughts, by settings and by the model's name."""

import openai
import pytest
import requests
from served import SMALL, serving

from etude.decoding.search import search_answers
from etude.decoding.search_settings import AnswerSearch
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.randomness import seed_for
from etude.rollouts.prompts import render_prompt
from etude.rollouts.thinking import Thinking
from etude.rollouts.thought import forced
from etude.serve.aliases import ANSWER_SEARCHES, METHODS, POLICIES, THOUGHT
from etude.tasks.task import Task

ASKED = [{"role": "user", "content": "What is a lamp?"}]
TASK = Task(({"role": "user", "content": "What is a lamp?"},))
STEPS = {"end": "tokens", "max_tokens": 3}


def ask(client, model="mine", **given):
    options = {name: given.pop(name) for name in ("search", "thought", "decoding", "kv_cache") if name in given}
    return client.chat.completions.create(**{"model": model, "messages": ASKED, "max_tokens": 6, "seed": 7, "extra_body": options} | given)


def text_of(reply):
    (choice,) = reply.choices
    return choice.message.content


def engine_and_prompt(client):
    return TransformersEngine(client.served.model, client.served.tokenizer), render_prompt(client.served.tokenizer, TASK)


def test_no_name_means_two_ways():
    names = [*METHODS, *ANSWER_SEARCHES, *POLICIES, THOUGHT]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("method", ["samples", "beam", "mcts", "tree", "vine"])
def test_a_search_gives_the_answer_of_the_engine_by_name_and_by_settings(client, method):
    engine, prompt = engine_and_prompt(client)
    how = {"max_new_tokens": 6, "sampling": Sampling(), "num_samples": 4, "names": (7, "serve"), "room_tokens": engine.positions - 6}
    (own,) = search_answers(engine, [(TASK, prompt)], AnswerSearch(method), **how)
    named = ask(client, f"mine:{method}")
    assert text_of(named) == own.text and named.usage.completion_tokens == own.sampled_tokens
    assert text_of(ask(client, search={"method": method})) == own.text
    chunks = list(ask(client, f"mine:{method}", stream=True))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == own.text


def test_settings_of_a_search_are_read(client):
    most = ask(client, search={"method": "samples", "num_samples": 12}).usage.completion_tokens
    assert ask(client, search={"method": "samples", "num_samples": 2}).usage.completion_tokens < most
    assert ask(client, search={"method": "mcts", "budget_tokens": 12, "steps": STEPS}).usage.completion_tokens <= 12
    one_path = {"width": 1, "beams": 1, "steps": STEPS}
    assert ask(client, "mine:beam", search=one_path).usage.completion_tokens <= 6
    plain = text_of(ask(client, temperature=0))
    assert text_of(ask(client, temperature=0, search={"method": "refine", "turns": 1})) == plain


def test_a_search_by_a_step_model_needs_one(model_of, chat_tokenizer):
    by_steps = {"method": "samples", "num_samples": 6, "choose": "step_model"}

    def longest():
        return lambda pairs: [float(len(node.own_tokens)) for _, node in pairs]

    with serving(model_of("qwen3"), chat_tokenizer, step_value=longest) as client:
        texts = [choice.message.content for choice in ask(client, n=6, temperature=3.0).choices]
        assert len(chat_tokenizer(text_of(ask(client, temperature=3.0, search=by_steps)))["input_ids"]) >= max(map(len, texts)) / 4
    with serving(model_of("qwen3"), chat_tokenizer) as client, pytest.raises(openai.BadRequestError, match="has no step model"):
        ask(client, search=by_steps)


def test_a_thought_is_as_long_as_the_request_says(client):
    engine, prompt = engine_and_prompt(client)
    keys = [seed_for(7, "serve", sample) for sample in range(2)]
    own = forced(engine, [prompt] * 2, Thinking(cue="So", answer_tokens=4), 8, sampling=Sampling(), keys=keys)
    option = {"budget_tokens": 8, "cue": "So", "answer_tokens": 4}
    found = ask(client, n=2, max_tokens=20, thought=option)
    assert [choice.message.content for choice in found.choices] == [each.text for each in own]
    assert found.usage.completion_tokens == sum(each.own_tokens for each in own)
    (greedy,) = forced(engine, [prompt], Thinking(), 5, sampling=GREEDY, keys=[0])
    assert text_of(ask(client, "mine:thought@5", temperature=0, max_tokens=60)) == greedy.text
    assert client.completions.create(model="mine:thought@5", prompt="ab", seed=0).choices  # whose own default is 16 tokens


def test_a_stop_text_that_ends_every_answer_is_none_for_a_search(client):
    assert text_of(ask(client, "mine:beam", stop=["<eos>"])) == text_of(ask(client, "mine:beam"))


def test_words_that_are_no_unicode_are_refused(client):
    data = b'{"model": "mine", "messages": [{"role": "user", "content": "a"}], "search": {"method": "refine", "words": "\\ud800"}}'
    reply = requests.post(f"{client.base_url}chat/completions", data=data, headers={"content-type": "application/json"})
    assert reply.status_code == 400 and "search: words is not valid Unicode" in reply.json()["error"]["message"]


MOST = SMALL.max_samples * SMALL.max_new_tokens


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"search": {"method": "baem"}}, "search: unknown search.method 'baem': did you mean 'beam'"),
        ({"search": {"method": "beam", "widht": 2}}, "search: unknown setting 'widht': did you mean 'width'"),
        ({"search": {"method": "beam", "width": 2.5}}, "search: width: expected a whole number, got 2.5"),
        ({"search": {"method": "beam", "steps": 3}}, "search: steps is a section"),
        ({"search": {"method": "beam", "turns": 3}}, "search.turns has no effect here: leave it out"),
        ({"search": {"method": "beam", "num_samples": 3}}, "search.num_samples has no effect here"),
        ({"search": {"method": "samples", "num_samples": 1}}, "search.num_samples must be at least 2, got 1"),
        ({"model": "mine:beam", "temperature": 0}, "at temperature 0 all are equal: set temperature above 0"),
        ({"model": "mine:beam", "n": 2}, "search.method beam gives one answer: leave n out"),
        ({"model": "mine:beam", "stop": ["x"]}, "stop and search.method beam exclude each other"),
        ({"model": "mine:beam", "logprobs": True}, "there are no log-probs of answers by search.method beam"),
        ({"model": "mine:beam", "decoding": {"method": "majority"}}, "decoding.method majority and search.method beam exclude each other"),
        (
            {"model": "mine:beam", "kv_cache": {"policy": "snapkv", "keep_ratio": 0.5}},
            "search.method beam and kv_cache.policy snapkv exclude each other",
        ),
        (
            {"model": "mine:vine", "max_tokens": 60},
            f"search.method vine samples up to 102 answers of 60 tokens, and this server {MOST} tokens",
        ),
        (
            {"search": {"method": "mcts", "simulations": 10**9, "budget_tokens": 5}},
            f"search.method mcts samples up to 4000000000 answers of 6 tokens, and this server {MOST} tokens",
        ),
        ({"decoding": {"method": "majority", "k": 10**9}}, "decoding.method majority samples up to 1000000000 answers"),
        ({"decoding": {"method": "majority", "layers": [1]}}, "decoding.layers has no effect here"),
        ({"decoding": {"k": 2}}, "decoding.k has no effect here"),
        ({"decoding": {"method": "layer_contrast_static", "layers": [99]}}, "99"),
        ({"thought": {"budget_tokens": 60}}, "thought.budget_tokens 60 takes up to 90 tokens with its answer, and max_tokens is 6"),
        ({"model": "mine:thought@60", "max_tokens": 60}, "with its answer, and the most of this server is 60: think less"),
        ({"thought": {"budget_tokens": -1}}, "thought.budget_tokens must be at least 0"),
        ({"thought": {"cue": "So"}}, "thought.cue has no effect here"),
        ({"model": "mine:thought@5", "stop": ["x"], "max_tokens": 60}, "thought.budget_tokens and stop exclude each other"),
        ({"model": "mine:thought@x"}, "mine:thought@TOKENS"),
        ({"model": "mine:thought@" + "9" * 5000}, "unknown model"),
        ({"kv_cache": {"keep_ratio": 0.5}}, "kv_cache.keep_ratio has no effect here"),
    ],
)
def test_an_option_that_cannot_be_is_one_sentence(client, given, sentence):
    with pytest.raises(openai.APIStatusError) as raised:
        ask(client, **given)
    said = raised.value.body["message"]
    assert raised.value.status_code in (400, 404) and sentence in said and "\n" not in said
    assert ask(client, max_tokens=1).choices
