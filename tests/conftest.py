"""Tiny random models of several architectures and a byte-level tokenizer, all made in code; a server that judges as it is told."""

import gc
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

pytest_plugins = ["small_runs"]

SPECIAL = ["<pad>", "<eos>", "<user>", "<assistant>"]
VOCABULARY = 256 + len(SPECIAL)
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
_FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"head_dim": 16}),  # biases
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16, "tie_word_embeddings": True}),  # wide enough for the engine's kernels
    "gpt2": (GPT2LMHeadModel, GPT2Config, {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),  # learned positions
    "lfm2": (Lfm2ForCausalLM, Lfm2Config, {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}),
    "mamba": (MambaForCausalLM, MambaConfig, {"state_size": 4}),
    "qwen3-moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "mistral-window": (MistralForCausalLM, MistralConfig, {"sliding_window": 6}),
    "gemma3": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it


LONG = (
    "test_faults.py",
    "test_kills.py",
    "test_practice_feedback.py",
    "test_pages.py",
    "test_studies.py",
    "test_bench.py",
    "test_public_api.py",
)
"""Files that take longest, which begin first, so that no worker is left alone with one of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays: looking through it takes 0.2 s of every collection


def make_model(family: str = "llama", seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random model in float32 with grouped-query attention, the same for the same seed."""
    kind, config, extra = _FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config(**{**_SHAPE, **extra, **changes})).eval()


def make_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """One token for each byte, behind the special tokens."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", additional_special_tokens=SPECIAL[2:])
    fast.chat_template = chat_template
    return fast


@pytest.fixture(scope="session")
def model_of() -> Callable[..., PreTrainedModel]:
    return make_model


@pytest.fixture
def llama() -> PreTrainedModel:
    return make_model("llama")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(TEMPLATE)


class JudgeServer(ThreadingHTTPServer):
    """An OpenAI-compatible server on this machine: `answer(body)` gives the text of a reply, or a status and what else is sent."""

    daemon_threads = True
    request_queue_size = 64  # where there are more at once a connection is tried again a second later

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__(("127.0.0.1", 0), _JudgeHandler)
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        """The judge's questions, without the one that asks whether it is there."""
        return [body["messages"][-1]["content"] for body in self.asked if len(body["messages"]) == 2]


class _JudgeHandler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.headers.append(dict(self.headers))
        found = self.server.answer(body) if self.path == "/v1/chat/completions" else (404, "no such path", {})
        status, sent, headers = found if isinstance(found, tuple) else (200, completion(found), {})
        self.send_response(status)
        for name, value in {"Content-Length": str(len(sent.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent.encode())

    def log_message(self, *_: Any) -> None:
        pass


def completion(text: Any) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[dict[str, Any]], Any]], JudgeServer]]:
    """`judge_server(answer)` is a running server; trying again takes no time."""
    monkeypatch.setattr("etude.llm_client.endpoint.WAIT_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = []

    def start(answer: Callable[[dict[str, Any]], Any]) -> JudgeServer:
        running.append(JudgeServer(answer))
        threading.Thread(target=running[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
