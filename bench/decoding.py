"""Seconds of integrative decoding, the drawing of its samples included, beside greedy decoding of the same questions.

    python -m bench.decoding [--json FILE] [--rounds 24] [--k 4 8] [--max-new-tokens 24] [--layout turns]

Eight questions at once, another eight in each round, in one process: greedy by the engine and by transformers' `generate`, and
integrative decoding with each k, in every order once before an order comes again, so that none has the same one before it in each round. No
answer ends before it has all of its tokens, so that all are equally long. A ratio is a way's seconds
by those of the engine's greedy decoding in the same round: median, lowest and highest. `within` is what is allowed, 3 times greedy at k = 4
and 5 times at k = 8, by what was measured: 1 or more keeps within it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import permutations
from random import Random
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from etude.decoding.integrative import integrative
from etude.decoding.joint_inputs import Layout
from etude.decoding.sample_pool import SamplePool
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Machine, max_prompt_tokens, resolve_device
from etude.engine.build import engine_at
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import GREEDY
from etude.errors import UserError
from etude.evaluation.retention import OLD_KNOWLEDGE
from etude.files import read_jsonl
from etude.models.load import load_model
from etude.rollouts.prompts import render_prompts
from etude.tasks.task import Task
from etude.training.run_folder import environment
from experiments.benchmark import Argument, Benchmark
from experiments.tables import markdown
from experiments.turns import spread

BATCH = 8
ALLOWED = {4: 3.0, 8: 5.0}
"""Times greedy."""


def measured(name: str, rounds: int, numbers: Sequence[int], max_new_tokens: int, layout: Layout) -> dict[str, Any]:
    """Measure the seconds of every round and way, and their ratios."""
    if len(numbers) > 4:
        raise UserError(f"--k takes four numbers at most, since ways are run in every order: got {len(numbers)}")
    machine = Machine()
    place = resolve_device(machine)
    model, tokenizer = load_model(name, device=place.device)
    engine = engine_at(place, model, tokenizer, machine)
    engine.end_tokens = frozenset()
    questions = [row["question"] for row in read_jsonl(OLD_KNOWLEDGE / "questions.jsonl")]
    room = max_prompt_tokens(model, max_new_tokens)
    seconds: dict[str, list[float]] = {}
    orders: list[tuple[str, ...]] = []
    for turn in range(rounds + 1):
        tasks = [Task(questions[(turn * BATCH + place) % len(questions)]) for place in range(BATCH)]
        prompts = render_prompts(tokenizer, tasks, room)
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "room_tokens": room, "names": (turn,)}
        ways: dict[str, Callable[[], object]] = {
            "greedy": partial(engine.generate, prompts, max_new_tokens=max_new_tokens, sampling=GREEDY),
            "greedy_transformers": partial(_by_transformers, model, prompts, max_new_tokens),
        }
        ways |= {f"integrative_k{k}": partial(_integrative, engine, tasks, prompts, k, layout, how) for k in numbers}
        if turn and not orders:
            every = list(permutations(ways))
            orders = Random(turn).sample(every, len(every))
        for way in orders.pop() if turn else ways:
            start = time.perf_counter()
            ways[way]()
            if turn:
                seconds.setdefault(way, []).append(time.perf_counter() - start)
    ratios = {way: spread([mine / its for mine, its in zip(own, seconds["greedy"], strict=True)]) for way, own in seconds.items()}
    allowed = {f"integrative_k{k}": most for k, most in ALLOWED.items() if k in numbers}
    within = {f"{way}_within_{most:.0f}x": most / ratios[way]["median"] for way, most in allowed.items()}
    where = environment()
    facts = {"model": name, "batch": BATCH, "max_new_tokens": max_new_tokens, "layout": layout, "rounds": rounds}
    facts |= {"precision": place.precision} | {each: where[each] for each in ("processor", "threads", "commit")}
    return {**within, "ratios": ratios, "seconds": {way: spread(own) for way, own in seconds.items()}, **facts}


def _integrative(
    engine: PrefixEngine, tasks: Sequence[Task], prompts: Sequence[tuple[int, ...]], k: int, layout: Layout, how: Mapping[str, Any]
) -> None:
    pool = SamplePool(engine, tasks, prompts, samples=ReliableDecoding().sampling, logprobs=_nobody_asks, **how)
    integrative(pool, k, layout=layout)
    pool.release()


@torch.inference_mode()
def _by_transformers(model: Any, prompts: Sequence[tuple[int, ...]], tokens: int) -> None:
    rows = [torch.tensor(prompt, device=model.device) for prompt in prompts]
    tokens_BT, mask_BT = (pad_sequence(each, batch_first=True, padding_side="left") for each in (rows, list(map(torch.ones_like, rows))))
    model.generate(input_ids=tokens_BT, attention_mask=mask_BT, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)


def _nobody_asks(pairs: Sequence[Any]) -> list[tuple[float, ...]]:
    raise AssertionError("integrative decoding asks for no likelihoods")


def table(found: Mapping[str, Any]) -> str:
    lines = []
    for way, ratio in found["ratios"].items():
        cells = [found["seconds"][way]["median"], *ratio.values()]
        lines.append([way.replace("_", ", "), *(f"{value:.2f}" for value in cells)])
    said = ", ".join(f"{name} {value:.2f}" for name, value in found.items() if "_within_" in name)
    below = (
        f"{found['batch']} questions at once, {found['max_new_tokens']} tokens an answer, {found['rounds']} rounds, {found['precision']}"
    )
    below = f"{said}. {below}; {found['processor']}, {found['threads']} threads."
    return markdown(["way", "seconds", "times greedy", "lowest", "highest"], lines, below)


ARGUMENTS = {
    "model": Argument("smollm2-135m"),
    "rounds": Argument(24, "beside a first one that is not counted"),
    "k": Argument(list(ALLOWED), "numbers of samples: four at most, since ways are run in every order"),
    "max-new-tokens": Argument(24),
    "layout": Argument("turns", choices=("turns", "one_message")),
}
BENCHMARK = Benchmark(
    "decoding",
    __doc__,
    ARGUMENTS,
    lambda chosen: measured(chosen.model, chosen.rounds, chosen.k, chosen.max_new_tokens, chosen.layout),
    table,
)

if __name__ == "__main__":
    BENCHMARK.main()
