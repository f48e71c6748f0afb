"""What a token is worth to an answer, against a forward pass of everything under a mask of its own."""

import pytest
import torch

from etude.evaluation.long.token_importance import token_importance


def tokens_of(length: int, seed: int) -> list[int]:
    return torch.randint(4, 250, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def slowly(model, text, question, answer, left_out, *, is_seen):
    """The answer's log-prob where what is behind the cut does not read one token of the text."""
    everything = [*text, *question, *answer]
    cut = len(text) + (len(question) if is_seen else 0)
    may_read = torch.ones(len(everything), len(everything), dtype=torch.bool).tril()
    if left_out is not None:
        may_read[cut:, left_out] = False
    with torch.no_grad():
        mask = torch.zeros(len(everything), len(everything)).masked_fill(~may_read, torch.finfo(torch.float32).min)
        logits = model(torch.tensor([everything]), attention_mask=mask[None, None]).logits[0].log_softmax(-1)
    start = len(text) + len(question)
    return sum(float(logits[start + place - 1, token]) for place, token in enumerate(answer))


@pytest.mark.parametrize("is_seen", [False, True])
def test_a_token_is_worth_what_the_answer_loses_without_it(llama, is_seen):
    text, question, answer = tokens_of(13, 0), tokens_of(4, 1), tokens_of(3, 2)
    full, worth_T = token_importance(llama, text, question, answer, is_seen=is_seen, batch_rows=5)
    expected = slowly(llama, text, question, answer, None, is_seen=is_seen)
    assert full == pytest.approx(expected, abs=1e-4)
    lost = [expected - slowly(llama, text, question, answer, place, is_seen=is_seen) for place in range(len(text))]
    torch.testing.assert_close(worth_T, torch.tensor(lost, dtype=torch.double), atol=1e-4, rtol=0)
    assert worth_T.abs().max() > 0.01


def test_an_answer_of_one_token_loses_nothing_behind_a_question_that_was_read_with_everything(llama):
    full, worth_T = token_importance(llama, tokens_of(6, 0), tokens_of(2, 1), tokens_of(1, 2), is_seen=True)
    assert full == pytest.approx(slowly(llama, tokens_of(6, 0), tokens_of(2, 1), tokens_of(1, 2), None, is_seen=True), abs=1e-4)
    assert worth_T.tolist() == [0.0] * 6
