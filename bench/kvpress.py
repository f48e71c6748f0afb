"""What kvpress' presses do of what is asked of a policy, beside etude's of the same name: real memory, second turns, padding, hybrids.

    python -m bench.kvpress [--tokens 2048] [--policies NAME ...] [--json FILE]

Both sides answer the same questions about the same model and text (`bench/peers/policies.py`), kvpress in an environment of its own
(`make bench-peers`), at a quarter of the tokens, in float32:

    turn, turns  bytes in memory behind a prompt, and behind a second one as long, as shares of all keys and values: 25 % is what is asked
                 for. Under recall everything lies in a file, beside what is counted
    padded       KL of a row's next token alone and in a left-padded batch with a longer row: 0 is what is asked for; in brackets that of
                 another text
    hybrid       bytes on a model with attention in every other layer (LFM2, random weights; kvpress does not name it among its models)
    left         what is on the model's modules behind the policy's block that was not there before, or is another

A second prompt goes to kvpress' press for what comes later (`CompressionRatioDecodingPress`) where it takes the method. What a side can't
do is said in its own words. What is kept by lot is left out.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice, product
from typing import Any

import torch
from transformers import Lfm2Config, Lfm2ForCausalLM

from etude.errors import UserError
from etude.evaluation.retention import OLD_KNOWLEDGE
from etude.kv_cache.policies import POLICIES
from etude.models.load import load_model
from experiments.benchmark import Argument, Benchmark
from experiments.cells import made_here
from experiments.peer import Peer, Running

MODEL, RATIO = "smollm2-135m", 0.25
SIDES = {"etude": Peer("etude_policies.py"), "kvpress": Peer("kvpress_policies.py", ".venv-kvpress")}
QUESTIONS = ("turn", "turns", "padded", "hybrid")
ASKED = tuple(name for name in POLICIES if name != "random")
LEAST = 256
"""Tokens of a text."""


def compared(tokens: int, policies: Sequence[str], model: str = MODEL, sides: Mapping[str, Peer] = SIDES) -> dict[str, Any]:
    """Ask both sides every question about every policy. Raises UserError for a length that the model can't read."""
    loaded, tokenizer = load_model(model)
    text = tokenizer((OLD_KNOWLEDGE / "text.txt").read_text(encoding="utf8"))["input_ids"]
    most = loaded.config.max_position_embeddings
    if not LEAST <= tokens <= most:
        raise UserError(f"--tokens is {tokens}: give {LEAST} to {most}, the positions of {model}")
    rows = {name: dict[str, Any]() for name in policies}
    found: dict[str, Any] = {"tokens": tokens, "ratio": RATIO, "rows": rows, "versions": {}}
    with tempfile.TemporaryDirectory() as folder:
        folders = {"plain": f"{folder}/plain", "hybrid": f"{folder}/hybrid"}
        for name, own in (("plain", loaded), ("hybrid", hybrid(loaded.config.vocab_size))):
            own.save_pretrained(folders[name])
            tokenizer.save_pretrained(folders[name])
        settings = {"models": folders, "tokens": list(islice(cycle(text), tokens)), "threads": torch.get_num_threads()}
        for side, peer in sides.items():
            with Running(peer, settings) as running:
                found["versions"][side] = running.about
                for policy, question in product(policies, QUESTIONS):
                    answered = running.ask({"question": question, "method": policy, "ratio": RATIO})
                    answered.pop("peak_bytes")
                    rows[policy].setdefault(side, {})[question] = answered
    return found | made_here()


def hybrid(words: int) -> Any:
    """Return a random model with attention in every other layer and convolutions in the others."""
    kinds = ["conv", "full_attention"] * 2
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": len(kinds), "vocab_size": words}
    torch.manual_seed(0)
    return Lfm2ForCausalLM(Lfm2Config(**shape, num_attention_heads=4, num_key_value_heads=2, layer_types=kinds)).eval()


def table(found: Mapping[str, Any]) -> str:
    """Write one line a policy, both sides in each cell; below it, in its own words, what a side can't do."""
    lines = ["| policy | held, a turn | two turns | padded, nats | a hybrid | left on the model |", "|---|---|---|---|---|---|"]
    for policy, sides in found["rows"].items():
        cells = [[cell(own) for own in sides.values()] for cell in CELLS]
        lines.append(f"| {policy} | {' | '.join(' / '.join(own) for own in cells)} |")
    lines += [
        "",
        f"{' / '.join(found['versions'])}, at {found['ratio']:.0%} of {found['tokens'] // 2:,} tokens and of as many again; -: can't.",
    ]
    for side, about in found["versions"].items():
        versions = [f"{name} {version}" for name, version in about["versions"].items()]
        needs = [f"asks for {each}" for each in about.get("needs", ())]
        needs += [f"importing it replaces {len(about['replaced'])} of transformers' attention functions"] if about.get("replaced") else []
        lines.append(f"{side}: {'; '.join([', '.join(versions), *needs])}.")
    lines += [f"{found['hardware']}.", ""]
    errors: dict[str, list[str]] = {}
    for (policy, sides), question in product(found["rows"].items(), QUESTIONS):
        for side, own in sides.items():
            if "error" in own[question]:
                errors.setdefault(f"{side}, {question}: `{own[question]['error']}`", []).append(policy)
    return "\n".join([*lines, *(f"- {said} ({', '.join(policies)})" for said, policies in errors.items()), ""])


def _share(question: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda own: f"{own[question]['share']:.0%}" if "share" in own[question] else "-"


CELLS: tuple[Callable[[Mapping[str, Any]], str], ...] = (
    _share("turn"),
    _share("turns"),
    lambda own: f"{abs(own['padded']['kl']):.1e} ({own['padded']['apart']:.1f})" if "kl" in own["padded"] else "-",
    _share("hybrid"),
    lambda own: ", ".join(own["turn"]["left"]) or ("-" if "error" in own["turn"] else "nothing"),
)


ARGUMENTS = {
    "tokens": Argument(2048, "of the text: two turns"),
    "policies": Argument(list(ASKED), choices=ASKED),
}
BENCHMARK = Benchmark("kvpress", __doc__, ARGUMENTS, lambda chosen: compared(chosen.tokens, chosen.policies), table)

if __name__ == "__main__":
    BENCHMARK.main()
