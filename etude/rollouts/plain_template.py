"""A chat template for models without one: each message is its text and a line break, as `render_prompt` formats it.

With it, `tokenizer.apply_chat_template(messages, add_generation_prompt=True)` gives the tokens of `render_prompt` in any program, including
the token that begins a text. A system message is added before messages that have none. An instruction is a paragraph after the last
question, unless the template is given another one: `apply_chat_template(messages, instruction="")`.
"""

import copy
import json
from typing import Any

from etude.rollouts.prompts import render_prompt
from etude.tasks.task import Task

_LINES = '{%- for message in messages -%}{{- message["content"] -}}INSTRUCTION{{- "\\n" -}}{%- endfor -%}'
_SYSTEM = '{%- if not messages or messages[0]["role"] != "system" -%}{{- SYSTEM + "\\n" -}}{%- endif -%}'
_INSTRUCTION = (
    '{%- if loop.last and message["role"] == "user" and instruction | default(WORDS) -%}'
    '{{- "\\n\\n" + instruction | default(WORDS) -}}{%- endif -%}'
)
_FIRST = '(messages[0]["content"] if messages and messages[0]["role"] == "system" else SYSTEM)'
_SPACE = '{%- if not FIRST.startswith(" ") -%}{{- " " -}}{%- endif -%}'
"""For tokenizers that put a space before a text, but not after a token that begins one."""
_TRIED: tuple[tuple[dict[str, str], ...], ...] = (
    ({"role": "user", "content": "Sort: 3, 1\n2 é <x>"},),
    ({"role": "user", "content": " a"},),
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?\n"}),
    ({"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}, {"role": "user", "content": "1"}),
)


def plain_template(tokenizer: Any, system: str | None = None, instruction: str | None = None) -> str | None:
    """Return the template with which `tokenizer`, which has none, gives the same tokens; None if there is no such template."""
    plain = copy.copy(tokenizer)
    plain.chat_template = None
    before, after = plain("a")["input_ids"], plain("a", add_special_tokens=False)["input_ids"]
    begins = before[: len(before) - len(after)]
    if before[len(begins) :] != after:  # the tokenizer appends something to every text
        return None
    opening = "".join(_written(token) for token in plain.convert_ids_to_tokens(begins))
    first = 'messages[0]["content"]' if system is None else _FIRST.replace("SYSTEM", _text(system))
    said = "" if system is None else _SYSTEM.replace("SYSTEM", _text(system))
    for space in ("", _SPACE):
        template = opening + space.replace("FIRST", 'messages[0]["content"]') + _lines(None)
        if all(_by(template, plain, messages) == render_prompt(plain, Task(messages)) for messages in _TRIED):
            return opening + space.replace("FIRST", first) + said + _lines(instruction)
    return None


def _lines(instruction: str | None) -> str:
    return _LINES.replace("INSTRUCTION", _INSTRUCTION.replace("WORDS", _text(instruction)) if instruction else "")


def _written(token: str) -> str:
    return "{{- " + _text(token) + " -}}"


def _text(words: str) -> str:
    """Return the words as a string of the template language."""
    return json.dumps(words, ensure_ascii=False)


def _by(template: str, plain: Any, messages: tuple[dict[str, str], ...]) -> tuple[int, ...]:
    tokens = plain.apply_chat_template(list(messages), chat_template=template, add_generation_prompt=True, return_dict=False)
    return tuple(tokens)
