"""Prompts and completions of a fixed shape, as many benchmarks ask for; and a cell a shape, so that finished ones are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import reasoning_gym

from experiments.cells import Options, Table, compute


@dataclass(frozen=True)
class Shape:
    """What is asked for at once."""

    prompts: int = 8
    samples: int = 8
    tokens: int = 48
    prompt_tokens: int = 70

    @property
    def all_tokens(self) -> int:
        return self.prompts * self.samples * self.tokens

    def __str__(self) -> str:
        return f"{self.prompts} x {self.samples} x {self.tokens}, prompts of {self.prompt_tokens}"


def prompts_of(shape: Shape, tokenizer: Any, seed: int) -> list[list[int]]:
    """Make prompts of a task's problems, one after another, cut to so many tokens; no two begin alike for long."""
    problems = reasoning_gym.create_dataset("number_sorting", seed=seed % 2**31, size=10_000)
    prompts, number = [], 0
    for _ in range(shape.prompts):
        text: list[int] = []
        while len(text) < shape.prompt_tokens:
            item = problems[number]
            numbers = ", ".join(item["metadata"]["original_numbers"])
            text += tokenizer(f"{numbers}: {item['question']}\n{item['answer']}\n")["input_ids"]
            number += 1
        prompts.append(text[: shape.prompt_tokens])
    return prompts


class Plan(Table, Protocol):
    """A table with a cell a shape."""

    @property
    def shapes(self) -> Mapping[str, Shape]: ...


def found_of(plan: Plan, seed: int, out: Path) -> dict[str, Any]:
    """Compute every shape's cell where it is not there yet; return all in order, with settings, commits and hardware."""
    options = Options(out, None, hours=1e9, only=[], seeds=[seed], is_tiny=False)
    computed = {(cell["id"], cell["seed"]): cell for cell in compute([(name, seed) for name in plan.shapes], plan, options)}
    rows = [computed[name, seed] for name in plan.shapes]
    return {
        "shapes": rows,
        "settings": plan.settings(next(iter(plan.shapes)), seed) | {"shape": list(plan.shapes), "seed": seed},
        "commit": "; ".join(sorted({str(row["commit"]) for row in rows})),
        "hardware": "; ".join(sorted({row["hardware"] for row in rows})),
    }
