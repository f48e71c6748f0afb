"""Small models that can be exported: random weights, and a byte-level BPE tokenizer with merges, as GGUF and others know it."""

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from etude.export.gguf_tokenizer import SPLITS as RULES
from etude.models.save import save_model

TEMPLATE = "{% for m in messages %}<user>{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
SIZES = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "eos_token_id": 1, "pad_token_id": 0, "initializer_range": 0.2}
"""Rows of whole blocks of 32 weights; more embeddings than tokens, as models often have."""
LLAMA_3 = {
    **{"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4, "original_max_position_embeddings": 32},
    **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
}
FAMILIES = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama-untied": ("llama", {}),
    "llama-3": ("llama", {"rope_parameters": LLAMA_3}),
    "mistral": ("mistral-window", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 128}),  # as transformers takes it to be where it reads GGUF
}
"""Families that GGUF files are written of: a family of `model_of`, and changes of its configuration."""
TEXT = "It's what they'll say: we don't count 12 or 345 bends of a river, we've seen 6789.\n\nThe river's wide, the valley is narrow.\n"
TEXTS = [TEXT, "  two  spaces, a tab\t, \n\n lines ", "wörld 日本 😀 3.14", "<user>I'm here\n<assistant>", "DON'T they're 1234567"]


_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
SPLITS = {
    "gpt-2": _GPT_2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT_2]),
    **{
        name: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(steps[0]), "isolated"), _BYTES])
        for steps, name in RULES.items()
        if steps[-1] == "bytes"
    },
}
"""Rules of splitting a text, by llama.cpp's names."""


def bpe_tokenizer(split: str = "gpt-2") -> PreTrainedTokenizerFast:
    """Train a tokenizer of 400 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = SPLITS[split]
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<user>", "<assistant>"]
    how: dict[str, Any] = {"special_tokens": special, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    tokenizer.train_from_iterator([TEXT] * 10, trainers.BpeTrainer(vocab_size=400, **how))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", additional_special_tokens=special[2:])
    fast.chat_template = TEMPLATE
    return fast


def save_family(model_of: Any, family: str, folder: Path, **changes: Any) -> Path:
    """Save a random model of a family with the tokenizer."""
    kind, own = FAMILIES[family]
    return save_model(model_of(kind, **{**SIZES, **own, **changes}), bpe_tokenizer(), folder)
