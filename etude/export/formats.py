"""The formats of other programs in which a model can be exported, by name; without torch, so that they are listed and checked without it.

| format | what is written | by | run by |
|---|---|---|---|
| gguf | one file | this package's writer, on the package `gguf` of llama.cpp | llama.cpp |
| int8 | a Hugging Face folder of 8-bit weights | compressed-tensors | vLLM, transformers |
| onnx | a folder | onnxruntime-genai's model builder | onnxruntime-genai |
| openvino | a folder | openvino-genai, from GGUF | openvino-genai |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from etude.errors import UserError, check_known, unknown

Answer = Callable[[Sequence[Sequence[int]], int], list[list[int]]]
"""Prompts and the longest answer, as token ids → the greedy answers, with the token that ends them."""


@dataclass(frozen=True)
class Format:
    """A format: what it can hold, what it needs, and how it is run."""

    name: str
    summary: str
    """What it is, in a few words."""
    quantizations: tuple[str, ...]
    """Kinds of weights; the first one is the default."""
    needs: tuple[str, ...]
    """Modules that writing needs."""
    runtime: str
    """The module of `etude.export.runtimes` that answers with it."""
    runtime_needs: tuple[str, ...]
    extra: str
    """The extra of etude that has all of these."""
    commands: tuple[str, ...]
    """Shell commands that serve what was written at `{place}`."""
    lines: tuple[str, ...]
    """Lines of Python that answer with what was written at `{place}`."""
    ending: str = ""
    """The ending of a format that is one file; empty: it is a folder."""

    def export(self, model: str, out: Path, quantization: str) -> None:
        """Write a model to `out`, which must not exist."""
        self.check_installed()
        import_module(f"etude.export.{self.name}").export(model, out, quantization)

    def open(self, place: Path, *, longest_tokens: int, ends: frozenset[int], threads: int) -> Answer:
        """Load what was written, for prompts and answers of `longest_tokens` together.

        Answers end with one of `ends`; without any, they have all of their tokens. Raises UserError if the runtime is not installed.
        """
        self.check_runtime()
        module: Any = import_module(f"etude.export.runtimes.{self.runtime}")
        answer: Answer = module.open_runtime(place, longest_tokens=longest_tokens, ends=ends, threads=threads)
        return answer

    def check_installed(self) -> None:
        """Raise UserError if a package that writing needs is missing."""
        self._check(f"--format {self.name}", self.needs)

    def check_runtime(self) -> None:
        """Raise UserError if a package that running needs is missing."""
        self._check(f"running {self.name}", self.runtime_needs)

    def _check(self, what: str, modules: Sequence[str]) -> None:
        if missing := [name for name in modules if find_spec(name) is None]:
            raise UserError(f"{what} needs {' and '.join(missing)}: pip install 'etude[{self.extra}]'")

    def chosen(self, quantization: str | None) -> str:
        """Return a quantization of this format, by default the first. Raises UserError for one that it does not have."""
        if quantization is not None:
            check_known(f"quantization of {self.name}", quantization, self.quantizations)
        return quantization or self.quantizations[0]

    def commands_at(self, place: str) -> list[str]:
        """Return the shell commands that serve what lies at `place`."""
        return [line.replace("{place}", place) for line in self.commands]

    def lines_at(self, place: str) -> list[str]:
        """Return the lines of Python that answer with what lies at `place`."""
        return [line.replace("{place}", place) for line in self.lines]


_MESSAGES = 'messages = [{"role": "user", "content": "Hello"}]'
_GGUF = (
    "import xllamacpp  # llama.cpp; pip install xllamacpp",
    "",
    "settings = xllamacpp.CommonParams()",
    'settings.model.path = "{place}"',
    _MESSAGES,
    "server = xllamacpp.Server(settings)",
    'answer = server.handle_chat_completions({"messages": messages, "max_tokens": 64, "temperature": 0})',
    'print(answer["choices"][0]["message"]["content"])',
)
_INT8 = (
    "from transformers import AutoModelForCausalLM, AutoTokenizer  # pip install transformers compressed-tensors",
    "",
    'tokenizer, model = AutoTokenizer.from_pretrained("{place}"), AutoModelForCausalLM.from_pretrained("{place}")',
    _MESSAGES,
    'prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)',
    'answer = model.generate(**prompt, max_new_tokens=64, do_sample=False)[0, prompt["input_ids"].shape[1] :]',
    "print(tokenizer.decode(answer, skip_special_tokens=True))",
)
_ONNX = (
    "import json",
    "",
    "import onnxruntime_genai as og  # pip install onnxruntime-genai",
    "",
    'model = og.Model("{place}")',
    "tokenizer = og.Tokenizer(model)",
    _MESSAGES,
    "prompt = tokenizer.encode(tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True))",
    "settings = og.GeneratorParams(model)",
    "settings.set_search_options(max_length=len(prompt) + 64, do_sample=False)",
    "generator = og.Generator(model, settings)",
    "generator.append_tokens(prompt)",
    "while not generator.is_done():",
    "    generator.generate_next_token()",
    "print(tokenizer.decode(generator.get_sequence(0)[len(prompt) :]))",
)
_OPENVINO = (
    "import openvino_genai  # pip install openvino-genai",
    "",
    'model = openvino_genai.LLMPipeline("{place}", "CPU")',
    'print(model.generate("Hello", max_new_tokens=64, do_sample=False, apply_chat_template=True))',
)

FORMATS = {
    each.name: each
    for each in (
        Format(
            name="gguf",
            summary="a GGUF file for llama.cpp",
            quantizations=("q8_0", "q4_0", "q4_1", "f16", "bf16", "f32"),
            needs=("gguf",),
            runtime="llama_cpp",
            runtime_needs=("xllamacpp",),
            extra="llama-cpp",
            commands=("llama-server -m {place}",),
            lines=_GGUF,
            ending=".gguf",
        ),
        Format(
            name="int8",
            summary="8-bit weights and activations for vLLM and transformers",
            quantizations=("w8a8",),
            needs=("compressed_tensors",),
            runtime="transformers_generate",
            runtime_needs=("compressed_tensors",),
            extra="int8",
            commands=("vllm serve {place}", "transformers serve {place}  # pip install 'transformers[serving]' compressed-tensors"),
            lines=_INT8,
        ),
        Format(
            name="onnx",
            summary="an ONNX graph for onnxruntime-genai",
            quantizations=("int8", "int4", "fp32"),
            needs=("onnxruntime_genai", "onnx", "onnx_ir"),
            runtime="onnxruntime_genai",
            runtime_needs=("onnxruntime_genai",),
            extra="onnx",
            commands=(),
            lines=_ONNX,
        ),
        Format(
            name="openvino",
            summary="an OpenVINO graph for openvino-genai",
            quantizations=("q8_0", "q4_0", "f16"),
            needs=("openvino_genai",),
            runtime="openvino_genai",
            runtime_needs=("openvino_genai",),
            extra="openvino",
            commands=(),
            lines=_OPENVINO,
        ),
    )
}


def find_format(name: str) -> Format:
    """Return a format by its name. Raises UserError for an unknown one."""
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]
