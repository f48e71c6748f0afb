"""The server as the openai client uses it."""

import concurrent.futures
import signal
import socket
import subprocess
import sys
import time

import openai
import pytest
import requests
import torch
from served import NEEDS_KERNELS, serving

from etude.cli import main
from etude.engine.sampling import GREEDY
from etude.engine.transformers import TransformersEngine
from etude.rollouts.prompts import render_prompt
from etude.serve.settings import ServeSettings
from etude.tasks.task import Task


def is_idle(scheduler):
    """Return whether nothing runs or waits, at last: a reply may come before its rows are removed."""
    deadline = time.monotonic() + 5
    while (scheduler.running or scheduler.waiting) and time.monotonic() < deadline:
        time.sleep(0.02)
    return scheduler.running == scheduler.waiting == 0


ASKED = [{"role": "user", "content": "What is a lamp?"}]


def test_models_are_listed_with_their_ways_of_decoding(client):
    names = [model.id for model in client.models.list()]
    assert names[0] == "mine" and {"mine:majority", "mine:integrative"} <= set(names)
    assert client.models.retrieve("mine:snapkv@0.5").id == "mine:snapkv@0.5"
    with pytest.raises(openai.NotFoundError, match="unknown model 'other': this server has mine, mine:METHOD"):
        client.models.retrieve("other")


def test_a_greedy_answer_is_the_engines(client):
    prompt = render_prompt(client.served.tokenizer, Task("What is a lamp?"))
    ((own,),) = TransformersEngine(client.served.model, client.served.tokenizer).generate([prompt], max_new_tokens=12, sampling=GREEDY)
    reply = client.chat.completions.create(model="mine", messages=ASKED, max_tokens=12, temperature=0, logprobs=True, top_logprobs=2)
    (choice,) = reply.choices
    assert choice.message.content == own.text and choice.finish_reason == own.finish
    assert [each.logprob for each in choice.logprobs.content] == pytest.approx(own.logprobs, abs=1e-5)
    assert all(each.top_logprobs[0].logprob == each.logprob and len(each.top_logprobs) == 2 for each in choice.logprobs.content)
    assert reply.usage.prompt_tokens == len(prompt) and reply.usage.completion_tokens == len(own.tokens)


def test_a_seed_gives_the_same_texts_and_samples_differ(client):
    def texts(seed, **more):
        reply = client.chat.completions.create(model="mine", messages=ASKED, max_tokens=10, n=3, seed=seed, **more)
        return [choice.message.content for choice in reply.choices]

    assert texts(5) == texts(5) != texts(6)
    assert len(set(texts(5))) == 3
    assert texts(5, top_p=0.5, extra_body={"top_k": 3}) == texts(5, top_p=0.5, extra_body={"top_k": 3}) != texts(5)


def test_a_stream_has_the_same_text_its_usage_and_its_end(client):
    how = {"model": "mine", "messages": ASKED, "max_tokens": 20, "seed": 3, "n": 2}
    whole = client.chat.completions.create(**how)
    texts, ends, usage = {0: "", 1: ""}, {}, None
    for chunk in client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}, logprobs=True):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]
    assert [ends[place] for place in range(2)] == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_stop_texts_are_cut_in_a_stream_too(client):
    how = {"model": "mine", "prompt": "abc", "max_tokens": 30, "seed": 1}
    text = client.completions.create(**how).choices[0].text
    stop = text[6:8]
    (cut,) = client.completions.create(**how, stop=[stop, "absent"]).choices
    assert cut.text == text[: text.find(stop)] and cut.finish_reason == "stop"
    pieces = [choice.text for chunk in client.completions.create(**how, stop=stop, stream=True) for choice in chunk.choices]
    assert "".join(pieces) == cut.text


def test_completions_take_texts_and_token_ids_and_echo_their_log_probs(client):
    tokens = [[40, 41, 42, 43], [50, 51, 52]]
    reply = client.completions.create(model="mine", prompt=tokens, max_tokens=1, temperature=0, echo=True, logprobs=1)
    for own, choice in zip(tokens, reply.choices, strict=True):
        logprobs = choice.logprobs
        assert logprobs.token_logprobs[0] is None and len(logprobs.token_logprobs) == len(own) + 1 == len(logprobs.top_logprobs)
        assert all(
            max(top.values()) >= logprob for top, logprob in zip(logprobs.top_logprobs[1:], logprobs.token_logprobs[1:], strict=True)
        )
        assert "".join(logprobs.tokens).startswith(client.served.tokenizer.decode(own))
    found = client.served.model(torch.tensor([tokens[0]])).logits[0].log_softmax(-1)
    expected = [found[place, token].item() for place, token in enumerate(tokens[0][1:])]
    assert reply.choices[0].logprobs.token_logprobs[1:4] == pytest.approx(expected, abs=1e-5)
    silent = client.completions.create(model="mine", prompt=tokens, max_tokens=0, echo=True, logprobs=0)
    assert silent.choices[0].logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-5)
    two = client.completions.create(model="mine", prompt=["ab", "cd"], max_tokens=3, n=2, seed=0)
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]


def test_ways_of_decoding_and_cache_policies_answer_by_name_and_by_settings(client):
    how = {"messages": ASKED, "max_tokens": 6, "seed": 0}
    named = client.chat.completions.create(model="mine:majority", **how)
    settings = client.chat.completions.create(model="mine", extra_body={"decoding": {"method": "majority", "k": 4}}, **how)
    assert named.choices[0].message.content == settings.choices[0].message.content
    kept = client.chat.completions.create(model="mine:snapkv@1.0", temperature=0, **how)
    plain = client.chat.completions.create(model="mine", temperature=0, **how)
    assert kept.choices[0].message.content == plain.choices[0].message.content
    few = client.chat.completions.create(model="mine", extra_body={"kv_cache": {"policy": "streaming", "budget_tokens": 8}}, **how)
    assert few.choices[0].finish_reason in ("stop", "length")
    chunks = list(client.chat.completions.create(model="mine:majority", stream=True, **how))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == named.choices[0].message.content


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"temperature": -1}, "temperature must be 0 (greedy), or 0.001 or more, got -1"),
        ({"top_p": 0}, "top_p must be in (0, 1], got 0"),
        ({"max_tokens": 61}, "max_tokens is 61: this server answers with 60 at most"),
        ({"n": 17}, "17 samples: this server gives 16 a request at most"),
        ({"stop": [""]}, "stop has an empty text"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "user", "content": "x" * 400}]}, "the prompt has"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be"),
        ({"presence_penalty": 1.0}, "presence_penalty: Input should be 0"),
        ({"logit_bias": {"5": 1}}, "logit_bias: Extra inputs are not permitted"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools: Extra inputs are not permitted"),
        ({"model": "mine:nothing"}, "unknown model 'mine:nothing'"),
        ({"extra_body": {"decoding": {"method": "mojority"}}}, "decoding: "),
        ({"extra_body": {"decoding": {"method": "majority", "width": 3}}}, "decoding: "),
        ({"extra_body": {"decoding": {"method": "abstain", "embedder": "/etc"}}}, "decoding.embedder: the server's"),
        (
            {"extra_body": {"kv_cache": {"policy": "quest", "offload": "file", "folder": "/tmp"}}},
            "kv_cache.folder and kv_cache.offload",
        ),
        ({"extra_body": {"kv_cache": {"policy": "snapkv"}}}, "kv_cache: "),
        ({"model": "mine:majority", "n": 2}, "decoding.method majority gives one answer"),
        ({"model": "mine:majority", "logprobs": True}, "there are no log-probs of answers by decoding.method majority"),
    ],
)
def test_a_wrong_request_is_one_sentence(client, more, sentence):
    given = {"model": "mine", "messages": ASKED, "max_tokens": 4} | more
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(**given)
    assert raised.value.status_code in (400, 404) and sentence in raised.value.body["message"] and "\n" not in raised.value.body["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 3}', b'{"a":' * 500 + b"1" + b"}" * 500])
def test_a_body_that_is_no_request_is_refused_and_the_server_goes_on(client, content):
    reply = requests.post(f"{client.base_url}chat/completions", data=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400 and reply.json()["error"]["message"]
    assert client.completions.create(model="mine", prompt="a", max_tokens=1).choices


def test_a_message_that_is_no_unicode_is_refused(client):
    data = b'{"model": "mine", "messages": [{"role": "user", "content": "\\ud800"}]}'
    reply = requests.post(f"{client.base_url}chat/completions", data=data, headers={"content-type": "application/json"})
    assert reply.status_code == 400 and "is not valid Unicode" in reply.json()["error"]["message"]


def test_large_bodies_other_hosts_and_unknown_routes_are_refused(client):
    url = f"{client.base_url}completions"
    assert requests.post(url, data=b"x" * (2 * 2**20 + 1)).status_code == 413
    assert requests.post(url, data=iter([b"x" * 2**20] * 3)).status_code == 413
    assert requests.get(f"{client.base_url}models", headers={"host": "evil.example"}).status_code == 400
    assert requests.get(f"{client.base_url}nothing").status_code == 404
    assert requests.get(f"{client.base_url}completions").status_code == 405


def test_a_key_is_asked_for_where_there_is_one(model_of, chat_tokenizer, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(model_of("qwen3"), chat_tokenizer, ServeSettings(api_key_env="MY_KEY", max_new_tokens=8)) as client:
        with pytest.raises(openai.AuthenticationError, match="the key is wrong or missing"):
            client.models.list()
        assert client.with_options(api_key="secret").models.list().data
        assert requests.get(str(client.base_url).replace("/v1/", "/health")).json() == {"status": "ok"}


def test_a_model_has_its_own_system_message_and_instruction(model_of, chat_tokenizer):
    with serving(model_of("qwen3"), chat_tokenizer, system="Be brief.", instruction="One word.") as client:
        reply = client.chat.completions.create(model="mine", messages=ASKED, max_tokens=1)
        task = Task(({"role": "system", "content": "Be brief."}, *ASKED), instruction="One word.")
        assert reply.usage.prompt_tokens == len(render_prompt(chat_tokenizer, task))


@NEEDS_KERNELS
def test_many_clients_get_what_each_gets_alone_and_nothing_is_left(client):
    def ask(number, **more):
        how = {"model": "mine", "prompt": "ab" * (1 + number % 9), "max_tokens": 5 + number % 20, "seed": number, **more}
        return client.completions.create(**how).choices[0].text

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(60)))
    assert together == [ask(number) for number in range(60)]
    assert is_idle(client.served.scheduler)


@NEEDS_KERNELS
def test_a_client_that_leaves_ends_its_decoding(model_of, chat_tokenizer):
    with serving(model_of("qwen3"), chat_tokenizer, ServeSettings(max_new_tokens=200, max_rows=16)) as client:
        slow = client.served.scheduler.batch.step
        client.served.scheduler.batch.step = lambda: (time.sleep(0.02), slow())[1]
        stream = client.completions.create(model="mine", prompt="a", max_tokens=200, seed=0, stream=True, temperature=5.0)
        next(iter(stream))
        stream.close()
        for _ in range(2):
            with pytest.raises(openai.APITimeoutError):
                client.with_options(timeout=0.3).completions.create(model="mine", prompt="a", max_tokens=200, seed=0, temperature=5.0)
        assert is_idle(client.served.scheduler)


def test_too_many_requests_are_told_to_come_back(model_of, chat_tokenizer):
    with serving(model_of("qwen3"), chat_tokenizer, ServeSettings(max_waiting=1, max_rows=1, max_samples=1, max_new_tokens=100)) as client:

        def ask(number):
            try:
                return client.completions.create(model="mine", prompt="a", max_tokens=100, seed=number, temperature=5.0).choices[0].text
            except openai.RateLimitError as error:
                return error.body["message"]

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            found = list(pool.map(ask, range(12)))
        assert any("1 requests wait already: try again later" in text for text in found)
        assert client.completions.create(model="mine", prompt="a", max_tokens=1).choices


def test_metrics_count_requests_and_tokens(client):
    client.completions.create(model="mine", prompt=[[40, 41]], max_tokens=3, seed=0)
    assert is_idle(client.served.scheduler)  # an answer arrives a moment before its sample leaves the batch
    text = requests.get(str(client.base_url).replace("/v1/", "/metrics")).text
    assert 'etude_requests_total{path="/v1/completions",status="200"} 1.0' in text
    assert "etude_prompt_tokens_total 2.0" in text and "etude_running_samples 0.0" in text


def test_a_model_whose_batches_cannot_be_joined_is_served_one_request_at_a_time(model_of, chat_tokenizer):
    with serving(model_of("mamba"), chat_tokenizer) as client:
        how = {"model": "mine", "prompt": "abc", "max_tokens": 5, "seed": 1, "n": 2}
        whole = [choice.text for choice in client.completions.create(**how).choices]
        streamed = {0: "", 1: ""}
        for chunk in client.completions.create(**how, stream=True):
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
        assert list(streamed.values()) == whole


def test_other_machines_need_a_key():
    with pytest.raises(Exception, match=r"host 0\.0\.0\.0 is reached from other machines: set api_key_env"):
        ServeSettings(host="0.0.0.0")


def test_a_signal_ends_the_server_after_its_answers_and_tells_what_it_cuts_off(tmp_path):
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    server = subprocess.Popen([sys.executable, "-m", "etude", "serve", "tiny-random", "--port", "0", "--max_new_tokens", "32"], **how)
    address = server.stdout.readline().split()[0]
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
    stream = client.completions.create(model="tiny-random", prompt="a", max_tokens=32, seed=0, stream=True)
    first = next(iter(stream))
    server.send_signal(signal.SIGTERM)
    last = [first, *stream][-1]
    assert last.choices[0].finish_reason in ("stop", "length")
    out, err = server.communicate(timeout=30)
    assert server.returncode == 143 and err == "etude: stopped by SIGTERM\n" and out == ""


def test_what_runs_too_long_after_the_end_is_told_that_it_ends(model_of, chat_tokenizer):
    with serving(model_of("qwen3"), chat_tokenizer, ServeSettings(max_new_tokens=200)) as client:
        slow = client.served.scheduler.batch.step
        client.served.scheduler.batch.step = lambda: (time.sleep(0.05), slow())[1]
        stream = client.completions.create(model="mine", prompt="a", max_tokens=200, seed=0, stream=True, temperature=5.0)
        chunks = iter(stream)
        next(chunks)
        client.served.scheduler.close(0.2)
        with pytest.raises(openai.APIError, match="the server is shutting down"):
            list(chunks)
        with pytest.raises(openai.InternalServerError, match="the server is shutting down"):
            client.completions.create(model="mine", prompt="a", max_tokens=1)


def test_a_taken_port_and_a_missing_key_are_one_sentence(tmp_path, monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "tiny-random", "--port", str(port)]) == 2
    assert f"can't listen on 127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err
    assert main(["serve", "tiny-random", "--host", "0.0.0.0"]) == 2
    assert "set api_key_env" in capsys.readouterr().err
    assert main(["serve", "tiny-random", "--api_key_env", "NO_SUCH_KEY"]) == 2
    assert "the environment variable NO_SUCH_KEY is not set" in capsys.readouterr().err
