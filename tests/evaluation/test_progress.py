"""How far a run has come, as its files tell it: what it is doing, its time so far and the time left."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from etude.evaluation.report.progress import Progress, progress_of
from etude.evaluation.report.run_folder import read_run
from etude.evaluation.report.writing_process import is_written
from etude.settings.yaml_text import write_yaml
from etude.training.run_folder import RunFolder

PRACTICE = {"adaptation": None, "warm_start": {"optimizer": {"steps": 77}, "steps": 4}, "preferences": {"steps": 0}, "steps": 12}
Far = Callable[..., Progress]


@pytest.fixture
def far(tmp_path: Path) -> Far:
    """`far(configuration, seconds={phase: [of each step]}, measured=[models])` is how far a run with these files has come, written by this
    process.
    """

    def make(
        configuration: Mapping[str, Any] = PRACTICE,
        *,
        seconds: Mapping[str, Sequence[float]] | None = None,
        tokens: int | None = None,
        measured: Sequence[str] = (),
        result: Mapping[str, Any] | None = None,
    ) -> Progress:
        folder = RunFolder(tmp_path)
        (tmp_path / "configuration.yaml").write_text(write_yaml(dict(configuration)))
        folder.lock()
        for phase, times in (seconds or {}).items():
            for step, time in enumerate(times, 1):
                folder.append("metrics.jsonl", {"phase": phase, "step": step} | ({"tokens": tokens} if tokens else {}))
                folder.append("timings.jsonl", {"phase": phase, "step": step, "learn_seconds": time})
        for model in measured:
            folder.write_json(f"evaluation/{model}.json", {"model": model})
        if result:
            folder.write_json("result.json", result)
        found = progress_of(tmp_path, read_run(tmp_path, "run", 10))
        folder.release()
        return found

    return make


def test_a_run_without_a_step_waits_for_the_measurement_before_it(far: Far) -> None:
    begun = far()
    assert (begun.state, begun.said, begun.timed, begun.total) == ("waiting", "measuring the base model", "", None)
    assert far(measured=["base"]).said == "warm start"


def test_steps_are_counted_in_their_stage(far: Far) -> None:
    found = far(seconds={"warm_start": [1.0] * 3}, measured=["base"])
    assert (found.state, found.said) == ("running", "warm start, step 3 of 4")


def test_after_the_last_step_of_a_stage_its_model_is_measured(far: Far) -> None:
    found = far(seconds={"warm_start": [1.0] * 4}, measured=["base"])
    assert found.said == "measuring the model after warm start" and (found.done, found.total) == (4, 4)
    done = far(seconds={"practice": [1.0] * 12}, measured=["warm_start", "practice"])
    assert done.said == "writing the result" and (done.done, done.total) == (12, 12)


def test_time_left_is_that_of_the_last_ten_steps_and_leaves_the_first_one_out(far: Far) -> None:
    """100 s, then 60 s each: five of ten steps are left."""
    found = far(PRACTICE | {"steps": 10}, seconds={"practice": [100.0] + 4 * [60.0]}, measured=["base", "warm_start"])
    assert found.seconds == pytest.approx(340) and found.seconds_left == pytest.approx(300)
    assert found.timed == "6 min of steps, about 5 min left at this pace."


def test_old_steps_have_no_part_in_the_pace(far: Far) -> None:
    found = far(PRACTICE | {"steps": 16}, seconds={"practice": [1.0] * 3 + [5.0] * 10}, measured=["base", "warm_start"])
    assert found.seconds_left == pytest.approx(15)


def test_two_steps_tell_nothing_of_the_time_left(far: Far) -> None:
    assert far(seconds={"practice": [100.0, 60.0]}, measured=["base", "warm_start"]).seconds_left is None


def test_an_adaptation_is_counted_in_tokens(far: Far) -> None:
    """Three steps of 100 of 1,000 tokens, the last two in 20 s each: 700 tokens at 0.2 s."""
    study = {"study": {"order": "knowledge_then_tasks", "tokens": 1000}}
    found = far(study, seconds={"knowledge": [50.0, 20.0, 20.0]}, tokens=100, measured=["base"])
    assert found.said == "training on knowledge, 300 of 1,000 tokens" and found.seconds_left == pytest.approx(140)


def test_practice_waits_for_its_adaptation(far: Far, tmp_path: Path) -> None:
    configuration = PRACTICE | {"adaptation": "anatomy"}
    assert far(configuration).said == "the adaptation before practice"
    (tmp_path / "knowledge").mkdir()
    (tmp_path / "knowledge" / "report.html").write_text("")
    assert far(configuration).said == "measuring the base model"


def test_a_finished_run_says_how_much_was_done_and_no_time_left(far: Far) -> None:
    found = far(seconds={"practice": [1.0] * 7}, measured=["base", "warm_start", "practice"], result={"status": "finished"})
    assert (found.state, found.said, found.timed) == ("finished", "step 7 of 12", "7 s of steps.")


def test_a_run_is_written_as_long_as_its_process_holds_the_lock(tmp_path: Path) -> None:
    assert is_written(tmp_path) is None
    folder = RunFolder(tmp_path)
    folder.lock()
    assert is_written(tmp_path) is True
    folder.release()  # the process named there lives on
    assert is_written(tmp_path) is False


def test_a_killed_process_writes_no_run_and_another_machines_can_not_be_seen(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from etude.training.run_folder import RunFolder\n"
    script += f"folder = RunFolder(Path({str(tmp_path)!r})); folder.lock(); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert is_written(tmp_path) is True
        process.kill()
    assert is_written(tmp_path) is False
    (tmp_path / "lock").write_text(f"process {os.getpid()} on another-{platform.node()}")
    assert is_written(tmp_path) is None


@pytest.mark.parametrize("text", ["", "process 0 on {}", "process 99999999999999999999 on {}", "\x00\xff", "process 1 on {}"])
def test_other_texts_in_a_lock_raise_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text.format(platform.node()))
    assert is_written(tmp_path) in (None, False)


def test_odd_files_have_a_progress_too(tmp_path: Path) -> None:
    (tmp_path / "configuration.yaml").write_text("steps: many\nwarm_start: 3\n")
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"phase": "practice", "step": "three"}) + "\n" + json.dumps({"phase": [], "step": 3})
    )
    assert progress_of(tmp_path, read_run(tmp_path, "run", 10)).state == "unseen"
