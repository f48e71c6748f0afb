"""The section `Use` of a model card: lines of Python that run in the model's folder, its prompt format, and commands that serve it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LONGEST = 300
"""Maximum length of a question in a card, in characters."""


@dataclass(frozen=True)
class PromptExample:
    """Prompt format of a saved model, with an example."""

    question: str
    """An example question."""
    max_new_tokens: int
    system: str | None = None
    instruction: str | None = None
    template: Literal["base", "run", "none"] = "base"
    """Whose chat template is saved: the base model's own, which has neither system message nor instruction, the run's, or none."""

    @property
    def prompt(self) -> str:
        """Return the question with its instruction."""
        return self.question + (f"\n\n{self.instruction}" if self.instruction else "")

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the messages for the chat template."""
        if self.template == "run":
            return [{"role": "user", "content": self.question}]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt}]

    @property
    def text(self) -> str:
        """Return the prompt without a template."""
        return ("" if self.system is None else f"{self.system}\n") + self.prompt + "\n"


def usage_section(asked: PromptExample, *, is_adapter: bool = False) -> str:
    """Render the section `Use` of a card."""
    loads, served = (_ADAPTER_LOADS, _SERVED_ADAPTER) if is_adapter else (_LOADS, _SERVED)
    return "\n".join([loads, "", "```python", *_lines(asked, is_adapter), "```", "", _form(asked), "", *served])


_LOADS = "transformers from 4.57 on loads this folder, where it knows the base model's architecture. In the folder:"
_ADAPTER_LOADS = "PEFT loads this folder on the base that `adapter_config.json` names. In the folder:"
_SERVED = [
    "To serve it (float32, as it was saved; vLLM takes another precision unless told):",
    "",
    "```sh",
    "vllm serve . --dtype float32",
    "transformers serve .  # pip install 'transformers[serving]'",
    "```",
]
_SERVED_ADAPTER = [
    "To serve it on its base, the one that `adapter_config.json` names:",
    "",
    "```sh",
    "vllm serve BASE --dtype float32 --enable-lora --lora-modules practised=.",
    "```",
]


def _lines(asked: PromptExample, is_adapter: bool) -> Sequence[str]:
    kind = "AutoPeftModelForCausalLM" if is_adapter else "AutoModelForCausalLM"
    libraries = ["from peft import AutoPeftModelForCausalLM", "from transformers import AutoTokenizer"]
    options = f"max_new_tokens={asked.max_new_tokens}, do_sample=False"
    prompt = (
        f"tokenizer({asked.text!r}, return_tensors='pt')"
        if asked.template == "none"
        else f"tokenizer.apply_chat_template({asked.messages!r}, add_generation_prompt=True, return_tensors='pt', return_dict=True)"
    )
    return [
        *(libraries if is_adapter else [f"from transformers import {kind}, AutoTokenizer"]),
        "tokenizer = AutoTokenizer.from_pretrained('.')",
        f"model = {kind}.from_pretrained('.')",
        f"prompt = {prompt}",
        f"answer = model.generate(**prompt, {options})[0, prompt['input_ids'].shape[1] :]",
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ]


def _form(asked: PromptExample) -> str:
    """Describe the format of the prompt."""
    parts = [*(["system message"] if asked.system is not None else []), *(["instruction"] if asked.instruction else [])]
    if asked.template == "none":
        return "The model has no chat template: a prompt is the text and a line break."
    if asked.template == "run":
        adds = f", with the {' and the '.join(parts)}" if parts else ""
        return f"The base model has no chat template. The one here writes the question and a line break{adds}, as practice prompted it."
    adds = f" Practice prompted it with the {' and the '.join(parts)} above." if parts else ""
    return f"The chat template is the base model's.{adds}"
