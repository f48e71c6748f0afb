"""Generates tasks with reasoning-gym, a library of about a hundred families of problems (Stojanovski et al. 2025, arXiv 2505.24760), and of
etude's own family `instructions` (`etude.tasks.instructions`).

Item i of a family is sampled from Random(seed + i), so neighbouring seeds share all items but one. Each (split, seed) therefore gets its
own seed space: the 2^32 seeds beginning with (hash(split, seed) mod 2^20) times 2^32. Items are distinguished by their canonical key.
Sampling continues until there are n distinct items, so a smaller sample is the beginning of a larger one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from itertools import count
from typing import Any

from etude.errors import UserError, unknown
from etude.randomness import seed_for
from etude.tasks.family_scores import encode, library
from etude.tasks.instructions.family import FAMILY, check_instruction_parameters, sample_instructions
from etude.tasks.task import Task
from etude.tasks.templates import fill_template

_CHUNK = 256
_NOT_A_FAMILY = "composite"


def family_names() -> list[str]:
    """Return the names of all families, sorted."""
    datasets = library().factory.DATASETS
    return sorted({*datasets, FAMILY} - {_NOT_A_FAMILY})


def sample_entries(family: str, parameters: Mapping[str, Any], *, split: str, seed: int) -> Iterator[dict[str, Any]]:
    """Yield entries (`question`, `answer`, `metadata`) of a family of reasoning-gym without end, repetitions included.

    `parameters` are fields of the family's own configuration. Raises UserError for an unknown family or parameter, and for a value that
    the family refuses.
    """
    check_parameters(family, parameters)
    first = seed_space(split, seed)
    for chunk in count():
        try:
            yield from _chunk(family, parameters, first + chunk * _CHUNK)
        except UserError:
            raise
        except ValueError as error:
            # a few families pass their seed to NumPy, which takes 32 bits: they have fewer and smaller spaces
            if chunk > 0 or first < 2**32 or "Seed must be between" not in str(error):
                raise UserError(f"family {family!r} cannot make an item: {error}") from error
            yield from _small_seeds(family, parameters, split, seed)
            return


def seed_space(split: str, seed: int, *, num_spaces: int = 2**20, size: int = 2**32) -> int:
    """Return the first seed of the seed space of a split and a seed."""
    return (seed_for("reasoning_gym", split, seed) % num_spaces) * size


def sample_tasks(
    family: str,
    parameters: Mapping[str, Any],
    *,
    split: str,
    seed: int,
    question: str | None = None,
    worked_format: str | None = None,
) -> Iterator[Task]:
    """Yield tasks of a family without end, repetitions included. Raises UserError like `sample_entries`, and for formats without effect."""
    if family != FAMILY:
        entries = enumerate(sample_entries(family, parameters, split=split, seed=seed))
        yield from (_task(family, entry, f"{family}[{index}]", question, worked_format) for index, entry in entries)
    elif question is None and worked_format is None:
        yield from sample_instructions(parameters, split=split, seed=seed)
    else:
        raise UserError(f"tasks.question and tasks.worked_format have no effect on the family {family}: leave them out")


def load_family(
    family: str,
    parameters: Mapping[str, Any],
    *,
    split: str,
    n: int,
    seed: int,
    question: str | None = None,
    worked_format: str | None = None,
) -> list[Task]:
    """Generate n distinct tasks of a family, each scored by the family's own scorer.

    The demonstration is the answer, unless `worked_format` is given. `question` is a format string over the entry's metadata that replaces
    the family's question. Raises UserError if the family has fewer than n distinct items: if n samples in a row (at least 256) contain no
    new one.
    """
    tasks: dict[str, Task] = {}
    patience = max(_CHUNK, n)
    last_new = 0
    sampled = sample_tasks(family, parameters, split=split, seed=seed, question=question, worked_format=worked_format)
    for index, task in enumerate(sampled):
        if len(tasks) == n:
            break
        if task.key not in tasks:
            tasks[task.key] = task
            last_new = index
        elif index - last_new >= patience:
            raise UserError(
                f"family {family!r} has too few distinct items: {len(tasks)} in {index + 1} draws, asked for n={n}. "
                "Ask for fewer, or widen its parameters"
            )
    return list(tasks.values())


def curriculum_levels(family: str, n: int) -> list[dict[str, Any]]:
    """Return the parameters of the first n difficulty levels of a family's own curriculum, from easy to hard.

    Only parameters that differ from the family's defaults at some level are listed. Raises UserError if the family has fewer levels.
    """
    check_parameters(family, {})
    factory = library().factory
    curriculum = factory.create_curriculum(family) if factory.has_curriculum(family) else None
    most = 0 if curriculum is None else 1 + max(len(attribute.levels) - 1 for attribute in curriculum.attributes.values())
    if curriculum is None or n > most:
        raise UserError(f"family {family!r} has {most} levels of its own, {n} were asked for: write them down as a list of parameters")
    found = []
    for level in range(most):
        curriculum.set_global_level(level)
        configuration = curriculum.generate_configuration()
        found.append({each.name: getattr(configuration, each.name) for each in fields(configuration) if each.name not in ("seed", "size")})
    default = factory.DATASETS[family][1]()
    changed = [name for name in found[0] if any(level[name] != getattr(default, name) for level in found)]
    return [{name: level[name] for name in changed} for level in found[:n]]


def check_parameters(family: str, parameters: Mapping[str, Any]) -> None:
    """Raise UserError if the family does not exist or has no such parameter."""
    if family == FAMILY:
        check_instruction_parameters(parameters)
        return
    datasets = library().factory.DATASETS
    if family not in datasets or family == _NOT_A_FAMILY:
        raise unknown("family", family, family_names())
    known = {field.name for field in fields(datasets[family][1])} - {"seed", "size"}
    for name in parameters:
        if name not in known:
            raise unknown(f"parameter of {family}", name, known)


def _chunk(family: str, parameters: Mapping[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    create = library().create_dataset
    try:
        dataset = create(family, **_with_choices(family, parameters), seed=seed, size=_CHUNK)
    except (AssertionError, TypeError) as error:
        raise UserError(f"parameters of family {family!r} are refused: {error or parameters}") from error
    for index in range(_CHUNK):
        yield dataset[index]


def _small_seeds(family: str, parameters: Mapping[str, Any], split: str, seed: int) -> Iterator[dict[str, Any]]:
    first = seed_space(split, seed, num_spaces=2**12, size=2**20)
    for chunk in range(2**20 // _CHUNK):
        yield from _chunk(family, parameters, first + chunk * _CHUNK)


def _with_choices(family: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with enumeration values instead of their texts."""
    defaults = {field.name: field.default for field in fields(library().factory.DATASETS[family][1]) if field.default is not MISSING}
    values = dict(parameters)
    for name, value in parameters.items():
        default = defaults.get(name)
        if isinstance(default, Enum) and not isinstance(value, Enum):
            choices = {str(member.value): member for member in type(default)}
            if str(value) not in choices:
                raise unknown(f"{name} of {family}", str(value), choices)
            values[name] = choices[str(value)]
    return values


def _task(family: str, entry: Mapping[str, Any], origin: str, question: str | None, worked_format: str | None) -> Task:
    answer = None if entry["answer"] is None else str(entry["answer"])
    names = {**entry["metadata"], "question": entry["question"]}
    return Task(
        prompt=entry["question"] if question is None else fill_template("question", question, names),
        answer=answer,
        verifier="reasoning_gym",
        worked=answer if worked_format is None else fill_template("worked_format", worked_format, {**names, "answer": answer}),
        metadata={"family": family, "entry": encode(dict(entry))},
        origin=origin,
    )
