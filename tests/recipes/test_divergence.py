"""How far practice moved a model, from answers of the one that it began as."""

import json

import pytest
import torch

from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.evaluation.divergence import as_rows, forward_divergence, from_rows, sampled, with_start
from etude.tiny import tiny_model, tiny_tokenizer


def test_a_model_that_was_not_moved_has_0_and_another_what_every_token_costs():
    model, other = tiny_model(), tiny_model(seed=1)
    engine = TransformersEngine(model, tiny_tokenizer())
    found = sampled(engine, [(5, 6), (7,)], num_samples=3, max_new_tokens=4, sampling=Sampling(), seed=1)
    answers = from_rows(json.loads(json.dumps(as_rows(with_start(model, found, torch.float32, 1.0)))))
    same = forward_divergence(model, answers, torch.float32, 1.0)
    assert (same["forward_kl"], same["n"], same["answers"]) == (0.0, 2, 6)

    def likelihood(read, example):
        rows = torch.tensor([(*example.prompt, *example.completion)])
        logprobs = read(rows).logits.log_softmax(-1)[0, len(example.prompt) - 1 : -1]
        return float(logprobs[range(len(example.completion)), list(example.completion)].sum().detach())

    by_task = [sum(likelihood(model, each) - likelihood(other, each) for each in row) / len(row) for row in answers]
    moved = forward_divergence(other, answers, torch.float32, 1.0)
    assert moved["forward_kl"] == pytest.approx(sum(by_task) / 2, abs=1e-4)
    assert moved["forward_kl_low"] <= moved["forward_kl"] <= moved["forward_kl_high"]
