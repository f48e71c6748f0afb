"""Small practice runs: letters to repeat, a random model, seconds."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from etude.recipes.practice import Loop, practice
from etude.tiny import letters

SMALL = {
    "n": 60,
    "warm_start.steps": 20,
    "steps": 4,
    "rollout.tasks_per_step": 6,
    "rollout.num_samples": 4,
    "evaluation.n": 20,
    "evaluation.pass_n": 5,
    "evaluation.num_samples": 2,
    "save_steps": 2,
    "machine.dtype": "float32",
}
"""Overrides of `tiny` for a run of a second that still has groups with signal."""


@pytest.fixture(scope="session")
def small() -> Callable[..., dict[str, Any]]:
    """`small(folder, **options, {overrides})` runs `tiny` with the small settings and returns the result."""

    def run(folder: Path, overrides: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        return practice("tiny", SMALL | (overrides or {}), run=folder, **options)

    return run


@pytest.fixture(scope="session")
def small_arguments() -> list[str]:
    """The same settings on the command line."""
    return ["practice", "tiny", *(word for name, value in SMALL.items() for word in (f"--{name}", str(value)))]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small: Callable[..., dict[str, Any]]) -> Path:
    """The folder of a finished small run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    small(folder)
    return folder


class Killed(Exception):
    """The end of a process, as far as what it wrote is concerned."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """`with killed(owner, name, dies): ...`: what runs within is killed by that call of `owner.name` whose arguments `dies` picks, before
    it does anything.
    """

    @contextmanager
    def within(owner: Any, name: str, dies: Callable[..., bool]) -> Iterator[None]:
        real = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            if dies(*given):
                raise Killed
            return real(*given, **named)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, call)
            yield

    return within


@pytest.fixture
def killed_behind_step_3(killed: Callable[..., AbstractContextManager[None]]) -> AbstractContextManager[None]:
    """As `killed`, where it begins to explore step 4."""
    return killed(Loop, "rollout", lambda loop, step: step == 4)


@pytest.fixture
def letter_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with `train.jsonl` (60 items, the first 40 with worked steps), `shown.jsonl` and `test.jsonl`."""
    monkeypatch.chdir(tmp_path)
    for name, n, worked in (("train", 60, 40), ("shown", 30, 30), ("test", 25, 0)):
        rows = list(letters(name, n, seed=0))
        for row in rows[worked:]:
            del row["worked"]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def towns(tmp_path: Path) -> Path:
    """Pages that say which metal which town mines, and questions on that."""
    draw = random.Random(0)
    metals = ["iron", "gold", "zinc", "lead"]
    facts = [(f"Town{number}", draw.choice(metals)) for number in range(24)]
    pages = [
        f"The people of {town} mine {metal}. And in {town} there is {metal} in the hills and {metal} in the river." for town, metal in facts
    ]
    rows = [
        {"q": f"What do they mine in {town}?", "options": metals, "a": metals.index(metal), "section": town, "type": "mcq"}
        for town, metal in facts
    ]
    for name, own in (("pages", [{"text": page} for page in pages]), ("questions", rows)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/other.txt").write_text("Two wrens met at the mill and sang of the rain, and the miller gave them bread. " * 5)
    (tmp_path / "tale.txt").write_text(
        "\n\n".join(f"Once upon a time there was a wren of {n} years, and it sang to the sun." for n in range(9))
    )
    return tmp_path
