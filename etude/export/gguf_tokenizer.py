"""Writes a byte-level BPE tokenizer and its chat template into a GGUF file.

GGUF names the rule that splits a text before merges are applied, and llama.cpp knows rules by name. The name is found by the rule of the
tokenizer itself, not by the model's family, so that both split alike.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gguf import GGUFWriter, TokenType

from etude.errors import UserError

_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    ("GPT-2",): "gpt-2",
    ("digits", "GPT-2"): "smollm",
    (_QWEN2, "bytes"): "qwen2",
    (_LLAMA_3, "bytes"): "llama-bpe",
}
"""llama.cpp's name of a rule, by its steps: a pattern, single digits, GPT-2's pattern, bytes."""


def add_tokenizer(writer: GGUFWriter, name: str, tokenizer: Any, size: int, ends: Sequence[int]) -> None:
    """Add the tokenizer of the model `name`, which has `size` embeddings and stops at `ends`. Raises UserError for another kind of
    tokenizer.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split_of(name, content))
    tokens, kinds = _tokens(content, size)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]])
    _add_special(writer, tokenizer, ends)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _split_of(name: str, content: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the tokenizer's rule. Raises UserError if it has none here."""
    outer = content["pre_tokenizer"] or {}
    steps = tuple(map(_step, outer.get("pretokenizers", [outer])))
    kind, normalizer = content["model"]["type"], (content["normalizer"] or {"type": "NFC"})["type"]
    if kind != "BPE" or normalizer != "NFC" or steps not in SPLITS:
        found = f"BPE with the steps {', '.join(steps)}" if kind == "BPE" else kind
        raise UserError(
            f"the tokenizer of {name} is {found}, and GGUF files are written here with byte-level BPE that splits as "
            f"{', '.join(SPLITS.values())} do: llama.cpp's own convert_hf_to_gguf.py has more"
        )
    return SPLITS[steps]


def _step(step: Mapping[str, Any]) -> str:
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}:
            return "GPT-2" if use_regex else "bytes"
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return str(pattern)
    return str(step.get("type"))


def _tokens(content: Mapping[str, Any], size: int) -> tuple[list[str], list[TokenType]]:
    """Return the tokens by their ids and the kind of each; embeddings without a token get a name that no text has."""
    tokens, kinds = [f"[PAD{place}]" for place in range(size)], [TokenType.UNUSED] * size
    for token, place in content["model"]["vocab"].items():
        tokens[place], kinds[place] = token, TokenType.NORMAL
    for added in content["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    return tokens, kinds


def _add_special(writer: GGUFWriter, tokenizer: Any, ends: Sequence[int]) -> None:
    """Add what begins and ends texts. The tokenizer's own end token is GGUF's `eos`, another one that the model stops at its `eot`."""
    first, *others = sorted(ends, key=lambda token: token != tokenizer.eos_token_id)
    writer.add_eos_token_id(first)
    if others:
        writer.add_eot_token_id(others[0])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    around = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(around[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(around[-1] == tokenizer.eos_token_id)
