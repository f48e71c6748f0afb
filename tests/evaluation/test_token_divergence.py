"""The exact divergence of two models at every token: by hand, against a plain pass over each piece, and of a model from itself."""

from math import log

import pytest
import torch

from etude.errors import UserError
from etude.evaluation.token_divergence import _divergences, token_divergence

PIECES = [((5,), tuple(range(6, 40))), ((7, 8, 9), (10, 11)), ((7, 8, 9), (10, 12, 1)), ((4, 200), (5,) * 20)]


def test_it_is_the_forward_direction_in_nats_by_hand():
    start, now = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([[0.25, 0.75], [0.25, 0.75]]).log()
    (found,) = _divergences(start + 3.0, now)  # a constant cancels
    assert found.tolist() == pytest.approx([0.5 * log(2) + 0.5 * log(2 / 3), 0.0], abs=1e-6)
    (back,) = _divergences(now, start)
    assert back[0].item() == pytest.approx(0.25 * log(1 / 2) + 0.75 * log(3 / 2), abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "lfm2", "gemma3"])
@pytest.mark.parametrize("batch_tokens", [16, 512])
def test_it_equals_a_plain_pass_over_each_piece(model_of, family, batch_tokens):
    start, now = model_of(family, seed=0), model_of(family, seed=1)
    found = token_divergence(start, now, PIECES, batch_tokens=batch_tokens)
    for (read, predicted), values in zip(PIECES, found, strict=True):
        row = torch.tensor([[*read, *predicted]])
        before, after = (model(input_ids=row).logits[0, len(read) - 1 : -1].log_softmax(-1) for model in (start, now))
        assert values == pytest.approx((before.exp() * (before - after)).sum(-1).tolist(), abs=1e-5)
    assert min(map(min, found)) > 0


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_a_model_is_at_0_from_itself(model_of, family):
    found = token_divergence(model_of(family), model_of(family), PIECES)
    assert [len(values) for values in found] == [34, 2, 3, 20] and all(value == 0.0 for values in found for value in values)


def test_models_of_different_vocabularies_are_refused(model_of):
    with pytest.raises(UserError, match="260 and 300 tokens"):
        token_divergence(model_of(), model_of(vocab_size=300), PIECES)
