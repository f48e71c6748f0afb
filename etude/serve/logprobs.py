"""Log-probs as OpenAI's interface writes them."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from etude.engine.continuous import Likely


def chat_logprobs(tokenizer: Any, found: Sequence[Likely]) -> dict[str, Any]:
    """Return log-probs as /v1/chat/completions writes them."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = _text(tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {
        "content": [entry(each.token, each.logprob) | {"top_logprobs": [entry(*pair) for pair in each.top]} for each in found],
        "refusal": None,
    }


def completion_logprobs(tokenizer: Any, found: Sequence[Likely | None], tokens: Sequence[int]) -> dict[str, Any]:
    """Return log-probs as /v1/completions writes them; None is the first token of a prompt, which follows nothing.

    Two tokens may have one text (halves of characters): the likelier one stands for it.
    """
    texts = [_text(tokenizer, token) for token in tokens]
    tops = [None if each is None else {_text(tokenizer, token): value for token, value in reversed(each.top)} for each in found]
    return {
        "tokens": texts,
        "token_logprobs": [None if each is None else each.logprob for each in found],
        "top_logprobs": tops,
        "text_offset": list(accumulate(map(len, texts[:-1]), initial=0)) if texts else [],
    }


def _text(tokenizer: Any, token: int) -> str:
    """Return the text of one token, special ones included."""
    return str(tokenizer.decode([token], skip_special_tokens=False))
