"""Requests join and leave a batch at any token, and each gets what it would get alone."""

import numpy as np
import pytest
import torch

from etude.engine.continuous import Request
from etude.engine.detokenizer import Detokenizer
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.kernels.decoding import kernels_for

pytestmark = pytest.mark.skipif(not kernels_for(torch.device("cpu"), torch.float32), reason="there is no C++ compiler")
SAMPLINGS = (Sampling(), GREEDY, Sampling(temperature=0.7, top_p=0.9), Sampling(top_k=20))


class Kept:
    """A receiver that keeps what it gets."""

    def __init__(self):
        self.tokens, self.texts, self.ends, self.errors = {}, {}, {}, []

    def token(self, sample, text, found):
        self.tokens.setdefault(sample, []).append(found)
        self.texts[sample] = self.texts.get(sample, "") + text

    def end(self, sample, text, finish, num_tokens):
        self.texts[sample] = self.texts.get(sample, "") + text
        self.ends[sample] = (finish, num_tokens)

    def fail(self, error):
        self.errors.append(error)


@pytest.fixture
def engine(model_of, tokenizer):
    made = TransformersEngine(model_of("qwen3"), tokenizer)
    made.end_tokens = frozenset(range(4, 30))
    return made


def requests_of(number):
    generator = np.random.default_rng(0)
    return [
        Request(
            tuple(generator.integers(30, 260, int(generator.integers(1, 40))).tolist()),
            keys=tuple(range(10 * place, 10 * place + 1 + place % 3)),
            max_new_tokens=int(generator.integers(1, 30)),
            sampling=SAMPLINGS[place % 4],
            receiver=Kept(),
            top_logprobs=(None, 0, 3)[place % 3],
        )
        for place in range(number)
    ]


def served(engine, requests, most_rows=7, cancelled=()):
    """Serve requests that arrive two at a time, at every third token."""
    batch, waiting, step = engine.continuous(most_rows=most_rows, most_new_tokens=30), list(requests), 0
    while waiting or len(batch):
        while waiting and step % 3 == 0 and batch.has_room(waiting[:1]):
            batch.admit([waiting.pop(0)])
        if len(batch):
            batch.step()
        step += 1
        for place in cancelled:
            if requests[place].receiver.tokens and len(requests[place].receiver.tokens[0]) >= 2:
                requests[place].is_cancelled = True
    return step


def test_every_request_gets_what_it_gets_alone(engine):
    requests = requests_of(20)
    served(engine, requests)
    for request in requests:
        how = {"max_new_tokens": request.max_new_tokens, "sampling": request.sampling, "keys": [request.keys]}
        (alone,) = engine.generate([request.prompt], **how)
        kept = request.receiver
        assert [kept.ends[sample] for sample in range(len(alone))] == [(each.finish, len(each.tokens)) for each in alone]
        assert [kept.texts[sample] for sample in range(len(alone))] == [each.text for each in alone]
        if request.top_logprobs is None:
            assert all(found is None for found in kept.tokens[0])
            continue
        for sample, each in enumerate(alone):
            assert [found.token for found in kept.tokens[sample]] == list(each.tokens)
            assert all(len(found.top) == request.top_logprobs for found in kept.tokens[sample])
            if request.sampling in (Sampling(), GREEDY):
                assert [found.logprob for found in kept.tokens[sample]] == pytest.approx(each.logprobs, abs=1e-5)
        best = [found for found in kept.tokens[0] if found.top]
        assert all(found.top[0][1] >= found.logprob for found in best)


def test_prompts_take_the_places_of_ended_ones_until_a_longer_one_comes(engine):
    engine.end_tokens = frozenset()
    batch = engine.continuous(most_rows=4, most_new_tokens=30)

    def admit(length, tokens=2):
        prompt = tuple(30 + place % 200 for place in range(length))
        batch.admit([Request(prompt, keys=(0,), max_new_tokens=tokens, sampling=GREEDY, receiver=Kept())])
        return batch._context.prompts

    def end():
        while len(batch) > 1:
            batch.step()

    admit(100, 30)
    first = admit(40)
    for length in (100, 9, 40, 70):
        end()
        assert admit(length) is first
    end()
    longer = admit(600)
    assert longer is not first and longer.blocks.rows == 4
    end()
    assert admit(600) is longer


def test_a_cancelled_request_leaves_and_changes_no_other(engine):
    whole, some = requests_of(12), requests_of(12)
    for request in (*whole, *some):
        request.max_new_tokens = 30
    served(engine, whole)
    served(engine, some, cancelled=(3, 5))
    for place, (first, second) in enumerate(zip(whole, some, strict=True)):
        if place in (3, 5):
            assert all(finish in ("cancelled", "stop") for finish, _ in second.receiver.ends.values())
            continue
        assert second.receiver.texts == first.receiver.texts and second.receiver.ends == first.receiver.ends


def test_stop_texts_end_a_sample_before_them(engine):
    (request,) = requests_of(1)
    request.max_new_tokens, request.sampling = 30, Sampling()
    served(engine, [request])
    text = request.receiver.texts[0]
    (again,) = requests_of(1)
    again.max_new_tokens, again.sampling, again.stop = 30, Sampling(), (text[5:7], "absent")
    served(engine, [again])
    assert again.receiver.texts[0] == text[: text.find(text[5:7])] and again.receiver.ends[0][0] == "stop"


def test_an_error_ends_all_requests_of_the_batch(engine):
    requests = requests_of(2)
    batch = engine.continuous(most_rows=8, most_new_tokens=30)
    batch.admit(requests)
    batch.fail(MemoryError("full"))
    assert [str(request.receiver.errors[0]) for request in requests] == ["full", "full"] and len(batch) == 0
    batch.admit(requests_of(1))
    assert len(batch) == 1


def test_text_comes_in_whole_characters_without_beginnings_of_stop_texts(tokenizer):
    def pieces_of(text, stop=()):
        told = Detokenizer(lambda tokens: tokenizer.decode(list(tokens)), stop)
        pieces = [told.put(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
        return [piece for piece in pieces if piece], told.rest(), told.is_stopped

    assert pieces_of("aé本b") == (["a", "é", "本", "b"], "", False)
    assert pieces_of("a E END b", ["END"]) == (["a", " ", "E "], "", True)
    assert pieces_of("a EN", ["END"]) == (["a", " "], "EN", False)
    assert pieces_of("ab", ["b"]) == (["a"], "", True)


def test_half_a_character_at_the_end_is_told_as_what_it_is(tokenizer):
    told = Detokenizer(lambda tokens: tokenizer.decode(list(tokens)))
    first, *_ = tokenizer("é", add_special_tokens=False)["input_ids"]
    assert told.put(first) == "" and told.rest() == "\ufffd"


def test_where_prompts_cannot_join_there_is_no_such_batch(model_of, tokenizer):
    assert TransformersEngine(model_of("mamba"), tokenizer).continuous(most_rows=2, most_new_tokens=4) is None
