"""The examples of docs/callbacks.md run as they stand, and do what the page says."""

import gzip
import json
import re
import shlex
import sys
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from etude.callbacks import CALLBACKS
from etude.cli import main
from etude.engine.completion import Completion
from etude.learn.advantages import ADVANTAGES
from etude.learn.settings import Learning
from etude.learn.update import advantages_of
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.callback import Callback
from experiments.pages import ROOT

PAGE = (ROOT / "docs/callbacks.md").read_text(encoding="utf8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for line in re.findall(r"^\$ etude (.*)$", PAGE, re.MULTILINE)]
FILES = {match[1]: block for block in PYTHON if (match := re.match(r"# (\w+\.py)\n", block))}


def test_the_table_has_every_callback_in_the_order_of_calls():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(CALLBACKS)


def test_every_hook_is_on_the_page():
    (hooks,) = re.findall(r"## The hooks\n(.*?)\n## ", PAGE, re.DOTALL)
    named = {name for line in hooks.splitlines() if line.startswith("| ") for name in re.findall(r"`(\w+)`", line)}
    assert named == {name for name, value in vars(Callback).items() if callable(value) and not name.startswith("_") and name != "Settings"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the files of the page, which Python can import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, block in FILES.items():
        Path(name).write_text(block, encoding="utf8")
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    return tmp_path


def command_with(name: str) -> list[str]:
    """The command of the page that names a file."""
    (found,) = [words for words in COMMANDS if any(word.startswith(name) for word in words)]
    return found


def block_with(text: str) -> str:
    """The Python block of the page that has a text."""
    (found,) = [block for block in PYTHON if text in block and not block.startswith("# ")]
    return found


def rows_of(run: str, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    rows = map(json.loads, Path(run, file).read_text(encoding="utf8").splitlines())
    return [row for row in rows if row.get("phase", "practice") == "practice"]


def test_the_callback_that_ends_practice_does_so_from_a_file_and_as_an_object(files: Path):
    assert main([*command_with("target_reward.py"), "-q"]) == 0
    exec(block_with("TargetReward("), {})
    rows = rows_of("runs/target")
    means = [row["target_reward/mean"] for row in rows]
    assert 1 < len(rows) < 40, "tiny has 40 steps"
    assert means[-1] >= 0.6 > max(means[:-1])
    assert means[-1] == pytest.approx(sum(row["mean_reward"] for row in rows[-3:]) / 3)
    assert rows_of("runs/target_object") == rows


def test_the_advantage_of_the_table_is_the_reward_less_the_median_of_the_group(files: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ADVANTAGES, "above_median", None)  # taken out again in the end
    exec(block_with('ADVANTAGES["above_median"]'), {})
    kept = sorted(Path("runs/above_median/attempts").iterdir())
    rows = [json.loads(line) for path in kept for line in gzip.decompress(path.read_bytes()).splitlines()]
    groups = [list(group) for _, group in groupby(rows, lambda row: (row["step"], row["task"]))]
    assert {len(group) for group in groups} == {8} and len(groups) == 5 * 16
    for group in groups:
        middle = median(row["score"] for row in group)
        assert [row["advantage"] for row in group] == pytest.approx([row["score"] - middle for row in group])


def test_the_advantage_of_tokens_is_larger_where_they_were_surprising(files: Path):
    made: dict[str, Any] = {}
    exec(FILES["surprise.py"], made)
    attempts = [Attempt.of([7], Completion((1, 2), logprobs, "a", "stop", 0, 0)) for logprobs in ((-0.2, -3.0), (-0.5, 0.0))]
    batch = RolloutBatch(1, [Group(Task("q", "a"), tuple(attempts))], [[Reward(1.0), Reward(0.0)]], {}, {})
    batch.begin_update()
    made["Surprise"](made["SurpriseSettings"](coef=0.5)).before_update(batch)
    (first, second) = advantages_of(batch, Learning(advantage="dr_grpo"))[0]
    assert first == pytest.approx((0.5 * 1.1, 0.5 * 1.5))
    assert second == pytest.approx((-0.5 * 1.25, -0.5))
    assert main([*command_with("surprise.py"), "-q"]) == 0
    assert len(rows_of("runs/surprise")) == 5
