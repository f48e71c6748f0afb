"""A tiny random model and tasks that need no files: a two-layer Llama over characters, and letters to repeat.

`etude practice tiny` runs a whole practice run with them in seconds. It says nothing about language.
"""

import string
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from etude.randomness import seed_for

_SPECIAL = ("<pad>", "<eos>", "<unk>")


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Build a tokenizer with one token for each printable ASCII character and the line break; no chat template."""
    characters = [c for c in string.printable if c.isprintable() or c == "\n"]
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *characters])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def tiny_model(seed: int = 0) -> PreTrainedModel:
    """Build a random Llama with 2 layers of width 64 (about 0.1 M weights)."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def letters(split: str, n: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Yield tasks "repeat b after 4821:" with the answer "b"; the number makes them distinct."""
    generator = np.random.default_rng(seed_for("letters", split, seed))
    for _ in range(n or 100):
        letter = "abcdefgh"[generator.integers(8)]
        number = int(generator.integers(10**6))
        yield {"question": f"repeat {letter} after {number}: {letter}", "answer": letter, "worked": letter, "verifier": "exact"}
