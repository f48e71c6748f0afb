import copy

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from etude.rollouts.plain_template import plain_template
from etude.rollouts.prompts import render_feedback, render_prompt
from etude.tasks.task import Task
from etude.tiny import tiny_tokenizer

SYSTEM, SAYS, ASKS = (
    {"role": role, "content": text} for role, text in [("system", "Be."), ("assistant", "So."), ("user", "Why? é\n{{ x }}")]
)
TASKS = [
    Task("Sort: 3, 1"),
    Task(" a"),
    Task((SYSTEM, ASKS)),
    Task((ASKS, SAYS, ASKS)),
    Task("Sort: 3, 1", instruction='Say "so"\nand {% stop %}.'),
    Task((SYSTEM, ASKS), instruction="Now."),
]


def words(pre_tokenizer=None, normalizer=None, single="<s> $A") -> PreTrainedTokenizerFast:
    """A tokenizer of characters, as SentencePiece's are converted."""
    tokens = ["<s>", "</s>", "<unk>", "▁", "\n", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges=[], unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.decoder = normalizer, decoders.Metaspace()
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


LEGACY = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
TOKENIZERS = {
    "characters": tiny_tokenizer,
    "metaspace": lambda: words(pre_tokenizers.Metaspace(prepend_scheme="first")),
    "metaspace everywhere": lambda: words(pre_tokenizers.Metaspace(prepend_scheme="always")),
    "prepended": lambda: words(normalizer=LEGACY),
    "without a beginning": lambda: words(pre_tokenizers.Metaspace(prepend_scheme="first"), single="$A"),
}


def told(tokenizer, **asked):
    copied = copy.copy(tokenizer)
    copied.chat_template = plain_template(tokenizer, **asked)
    assert copied.chat_template is not None
    return copied


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("asked", [{}, {"system": "Old.", "instruction": "Old."}])
def test_with_the_template_a_task_has_the_tokens_that_it_had_without(name, asked):
    tokenizer = TOKENIZERS[name]()
    for task in TASKS:
        if asked and (isinstance(task.prompt, str) or task.prompt[0]["role"] != "system"):
            continue  # the template's system message stands there
        assert render_prompt(told(tokenizer, **asked), task) == render_prompt(tokenizer, task)
    assert render_feedback(told(tokenizer, **asked), "Wrong.") == render_feedback(tokenizer, "Wrong.")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_plain_messages_are_asked_as_the_run_asked_them(name):
    tokenizer = TOKENIZERS[name]()
    system, instruction = 'Be "brief" \\ {{ x }}', "Say so.\n\tNow: {% if %}"
    asked = told(tokenizer, system=system, instruction=instruction)
    expected = render_prompt(tokenizer, Task(({"role": "system", "content": system}, ASKS), instruction=instruction))
    assert tuple(asked.apply_chat_template([ASKS], add_generation_prompt=True, return_dict=False)) == expected
    other = render_prompt(tokenizer, Task((SYSTEM, ASKS), instruction="Other."))
    found = asked.apply_chat_template([SYSTEM, ASKS], add_generation_prompt=True, return_dict=False, instruction="Other.")
    assert tuple(found) == other


def test_what_no_template_can_say_has_none():
    assert plain_template(words(pre_tokenizers.Metaspace(prepend_scheme="first"), single="<s> $A </s>")) is None
