import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import etude
from etude.errors import UserError
from etude.files import read_jsonl, write_atomically
from etude.renamed import renamed_settings
from etude.training.run_folder import RunFolder, differing, environment

CONFIGURATION = {"steps": 3, "learn": {"epochs": 1, "names": ["a"]}}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    run = RunFolder.start(tmp_path / "run", CONFIGURATION, resume=False)
    run.begin(CONFIGURATION, precision="float32")
    return run


def test_a_new_run_writes_nothing_before_it_begins_and_beginning_again_changes_nothing(tmp_path):
    run = RunFolder.start(tmp_path / "run", CONFIGURATION, resume=False)
    assert not run.path.exists()
    run.begin(CONFIGURATION, precision="float32")
    assert yaml.safe_load((run.path / "configuration.yaml").read_text()) == CONFIGURATION
    facts = run.read_json("environment.json")
    assert facts["precision"] == "float32" and facts["versions"]["torch"]
    run.begin({"steps": 4}, precision="bfloat16")
    assert run.read_json("environment.json") == facts
    assert yaml.safe_load((run.path / "configuration.yaml").read_text()) == CONFIGURATION


def test_an_existing_folder_or_file_is_never_overwritten(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (run.path, tmp_path / "file"):
        with pytest.raises(UserError, match="exists already and is never overwritten: go on with --resume"):
            RunFolder.start(path, CONFIGURATION, resume=False)
    (tmp_path / "empty").mkdir()
    RunFolder.start(tmp_path / "empty", CONFIGURATION, resume=False)


def test_a_folder_of_a_run_that_was_killed_before_it_began_is_as_good_as_none(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("lock", "configuration.yaml.partial"):
        (tmp_path / "run" / name).write_text("ste")
    run = RunFolder.start(tmp_path / "run", CONFIGURATION, resume=False)
    run.begin(CONFIGURATION)
    assert yaml.safe_load((run.path / "configuration.yaml").read_text()) == CONFIGURATION


def test_half_written_files_are_removed_on_resume(run):
    run.release()
    for name in ("result.json.partial", "checkpoints/step-00003.writing/model.safetensors", "checkpoints/step-00002/progress.json"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("{}")
    RunFolder.start(run.path, CONFIGURATION, resume=True)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00002"]
    assert not (run.path / "result.json.partial").exists()


def test_a_run_that_is_older_than_a_setting_goes_on_with_its_default_only(run):
    run.release()
    newer = CONFIGURATION | {"probe": True}
    with pytest.raises(UserError, match="was started with probe = None, now it is True"):
        RunFolder.start(run.path, newer, resume=True)
    with pytest.raises(UserError, match="was started with probe = False, now it is True"):
        RunFolder.start(run.path, newer, resume=True, defaults={"probe": False})
    RunFolder.start(run.path, newer, resume=True, defaults={"probe": True})


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("etude.training.run_folder.fcntl.flock", refuse)
    run = RunFolder.start(tmp_path / "run", CONFIGURATION, resume=False)
    run.begin(CONFIGURATION)
    assert (run.path / "configuration.yaml").exists()


def test_a_run_is_resumed_with_the_same_configuration_only(run, tmp_path):
    run.release()
    resumed = RunFolder.start(run.path, CONFIGURATION, resume=True)
    assert resumed.path == run.path
    resumed.release()
    changed = {"steps": 3, "learn": {"epochs": 2, "names": ["a"]}}
    with pytest.raises(UserError, match=r"was started with learn\.epochs = 1, now it is 2"):
        RunFolder.start(run.path, changed, resume=True)
    with pytest.raises(UserError, match="holds no run"):
        RunFolder.start(tmp_path / "other", CONFIGURATION, resume=True)
    run.write_json("result.json", {"status": "finished"})
    with pytest.raises(UserError, match="is finished"):
        RunFolder.start(run.path, CONFIGURATION, resume=True)


def test_settings_of_a_gate_that_an_older_run_had_off_may_differ():
    def before(every, rise):
        old = {"retention.gate.every": every, "retention.gate.max_perplexity_rise": rise, "collapse.action": "off"}
        return renamed_settings({"explore.tasks_per_step": 6} | old)

    def now(**gate):
        return {"rollout.tasks_per_step": 6} | {f"callbacks.gate.{name}": value for name, value in gate.items()}

    assert differing(before(0, 0.1), before(0, 0.02)) == differing(before(0, 0.1), now()) == []
    assert differing(before(5, 0.1), now(every=5, max_perplexity_rise=0.1)) == []
    assert differing(before(5, 0.1), now(every=5, max_perplexity_rise=0.02)) == ["callbacks.gate.max_perplexity_rise"]
    both = ["callbacks.gate.every", "callbacks.gate.max_perplexity_rise"]
    assert differing(before(0, 0.1), before(5, 0.1)) == differing(before(5, 0.1), now()) == both


def test_two_processes_never_write_to_one_run(run):
    code = f"""
from pathlib import Path
from etude.training.run_folder import RunFolder
run = RunFolder.start(Path({str(run.path)!r}), {CONFIGURATION!r}, resume=True)
print("mine now")
"""

    def another() -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert f"is being written by process {os.getpid()} on" in another().stderr
    run.release()
    assert another().stdout == "mine now\n"
    RunFolder.start(run.path, CONFIGURATION, resume=True)  # its lock died with it


def test_the_slower_of_two_new_runs_in_one_folder_is_refused(tmp_path):
    slower, faster = (RunFolder.start(tmp_path / "run", CONFIGURATION, resume=False) for _ in range(2))
    faster.begin(CONFIGURATION)
    with pytest.raises(UserError, match="is being written by process"):
        slower.begin(CONFIGURATION)
    faster.release()
    with pytest.raises(UserError, match="exists already and is never overwritten"):
        slower.begin(CONFIGURATION)


def test_rows_after_a_checkpoint_are_cut_off(run):
    for phase, step in (("warm_start", 1), ("warm_start", 2), ("practice", 1), ("practice", 2), ("practice", 3)):
        run.append("metrics.jsonl", {"phase": phase, "step": step})
    for step in (1, 2, 3):
        run.write_attempts(step, [{"text": "a"}])
    copy = run.path / "attempts" / "00002 (conflicted copy).jsonl.gz"
    copy.write_bytes(b"")
    run.cut_after("practice", 1)
    rows = read_jsonl(run.path / "metrics.jsonl")
    assert [(row["phase"], row["step"]) for row in rows] == [("warm_start", 1), ("warm_start", 2), ("practice", 1)]
    for phase, step in (("practice", 1), ("warm_start", 0)):
        run.cut_after(phase, step)
        assert sorted(path.name for path in (run.path / "attempts").iterdir()) == ["00001.jsonl.gz", copy.name]


def test_any_text_may_stand_in_a_row(run):
    rows = [{"phase": "practice", "step": step, "curriculum/failing_law\u2028tort\u0085\r\n": 0.5} for step in (1, 2)]
    for row in rows:
        run.append("metrics.jsonl", row)
    run.cut_after("practice", 2)
    assert read_jsonl(run.path / "metrics.jsonl") == rows


def commit(run: RunFolder, name: str, order: int, keep: int = 1, spare: str | None = None) -> None:
    partial = run.path / "checkpoints" / f"{name}.writing"
    partial.mkdir(parents=True)
    run.commit_checkpoint(partial, name, {"order": order, "step": max(0, order)}, keep=keep, spare=spare)


def test_checkpoints_are_committed_and_pruned(run):
    commit(run, "warm_start", 0)
    for step in (1, 2, 3):
        commit(run, f"step-{step:05d}", step, keep=2)
    assert [path.name for path in run.checkpoints()] == ["warm_start", "step-00002", "step-00003"]
    commit(run, "step-00004", 4, spare="step-00002")  # which is held until another one is
    assert [path.name for path in run.checkpoints("step-")] == ["step-00002", "step-00004"]
    run.prune("step-", keep=1, spare="step-00004")
    assert [path.name for path in run.checkpoints("step-")] == ["step-00004"]


def test_a_checkpoint_that_was_not_renamed_is_none(run):
    partial = run.path / "checkpoints" / "step-00001.writing"
    partial.mkdir(parents=True)
    (partial / "progress.json").write_text('{"order": 1}')
    (run.path / "checkpoints" / "step-00002").mkdir()
    assert run.checkpoints() == []


def test_numbers_that_are_no_json_are_not_written(run):
    with pytest.raises(ValueError):
        run.append("metrics.jsonl", {"loss": float("nan")})
    with pytest.raises(ValueError):
        run.write_json("result.json", {"loss": float("inf")})
    assert not (run.path / "result.json").exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_atomically(path, json.dumps([1]))

    def fails(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError):
        write_atomically(path, json.dumps([2]))
    assert json.loads(path.read_text()) == [1]


def test_without_git_or_outside_its_own_repository_there_is_no_commit(monkeypatch, tmp_path):
    assert environment()["commit"] is None or len(environment()["commit"].removesuffix("-dirty")) == 40
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["commit"] is None


def test_a_package_inside_somebody_elses_repository_has_not_its_commit(tmp_path):
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    shutil.copytree(Path(etude.__file__).parent, tmp_path / "site-packages" / "etude")
    code = "from etude.training.run_folder import environment; print(environment()['commit'])"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "site-packages", capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "None"


# ---------------------------------------------------------------------- going on


def resumed(run: RunFolder) -> RunFolder:
    run.release()
    return RunFolder.start(run.path, CONFIGURATION, resume=True)


def test_changes_at_a_resume_are_recorded_and_rounding_is_reported(run, monkeypatch):
    assert resumed(run).begin(CONFIGURATION, precision="float32") == []
    monkeypatch.setattr("torch.get_num_threads", lambda: 96)
    again = resumed(run)
    (said,) = again.begin(CONFIGURATION, precision="float32")
    facts = run.read_json("environment.json")
    assert f"threads {facts['threads']} before, 96 now" in said and facts["threads"] != 96
    assert facts["resumed"] == [{}, {"threads": 96}]
    again.release()


def test_a_run_does_not_go_on_with_other_inputs(tmp_path):
    run = RunFolder.start(tmp_path / "run", CONFIGURATION, resume=False)
    run.begin(CONFIGURATION, {"the training tasks": "aa", "the evaluation": "bb"})
    again = resumed(run)
    with pytest.raises(
        UserError, match=r"--resume: the training tasks changed since the run in .*run began: resume with what it began with"
    ):
        again.begin(CONFIGURATION, {"the training tasks": "cc", "the evaluation": "bb"})
    again.begin(CONFIGURATION, {"the training tasks": "aa", "the evaluation": "bb"})
    assert run.read_json("inputs.json") == {"the training tasks": "aa", "the evaluation": "bb"}
    (run.path / "inputs.json").unlink()  # a run from before there were fingerprints takes those of now
    again.begin(CONFIGURATION, {"the training tasks": "cc"})
    assert run.read_json("inputs.json") == {"the training tasks": "cc"}
    again.release()


# ---------------------------------------------------------------------- logs


ROWS = [{"phase": "practice", "step": step, "score": 0.5} for step in range(1, 5)]


@pytest.mark.parametrize("bad", [b'{"phase": "prac', b"\xff\xfe", b"7", b"{}", b'["phase", "step"]', b"[" * 100_000])
@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl"])
def test_a_damaged_line_is_named_and_later_lines_stay(run, bad, name):
    lines = [json.dumps(row).encode() for row in ROWS]
    (run.path / name).write_bytes(b"\n".join([lines[0], bad, *lines[2:]]) + b"\n")
    before = (run.path / name).read_bytes()
    with pytest.raises(UserError, match=rf"{name} is damaged in line 2 .*with 2 lines after it: put the line right, or remove it"):
        run.cut_after("practice", 4)
    assert (run.path / name).read_bytes() == before


@pytest.mark.parametrize("bad", [b'{"phase": "prac', b"\xff\xfe", b"7", b"{}"])
def test_a_bad_last_line_is_dropped_and_what_a_checkpoint_had_seen_of_it_is_said(run, bad):
    lines = [json.dumps(row).encode() for row in ROWS[:3]]
    (run.path / "metrics.jsonl").write_bytes(b"\n".join([*lines, bad]))
    assert run.cut_after("practice", 3) is None
    (run.path / "metrics.jsonl").write_bytes(b"\n".join([*lines, bad]))
    fresh = RunFolder(run.path)
    assert fresh.cut_after("practice", 4) == "metrics.jsonl lacks practice step 4: the run goes on without these numbers"
    fresh.append("metrics.jsonl", ROWS[3])
    assert read_jsonl(run.path / "metrics.jsonl") == ROWS


def test_a_log_is_read_once_and_the_same_as_a_resumed_run_reads_it(run, monkeypatch):
    for row in ROWS[:2]:
        run.append("metrics.jsonl", row)
    assert run.log_rows("metrics.jsonl") == ROWS[:2]
    monkeypatch.setattr("etude.training.run_folder.read_jsonl", lambda *_, **__: pytest.fail("read again"))
    run.append("metrics.jsonl", {**ROWS[2], "names": ("a", 0.1)})
    run.append("metrics.jsonl", ROWS[3])
    assert run.log_rows("metrics.jsonl")[2]["names"] == ["a", 0.1]
    run.cut_after("practice", 3)
    monkeypatch.undo()
    assert run.log_rows("metrics.jsonl") == RunFolder(run.path).log_rows("metrics.jsonl") and len(run.log_rows("metrics.jsonl")) == 3


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[]", "3", '{"order": 3}', '{"step": 3}', '{"order": 3, "step": 4}', '{"order": "x", "step": 3}']
)
def test_a_checkpoint_that_does_not_say_its_step_is_damaged(run, text):
    commit(run, "step-00003", 3)
    (run.checkpoint("step-00003") / "progress.json").write_text(text)
    with pytest.raises(UserError, match=r"checkpoint .*step-00003 is damaged \(.+\): remove this folder and resume again"):
        run.checkpoints()


@pytest.mark.parametrize("text", ["", "[" * 100_000])
def test_a_damaged_page_is_named_however_deep_it_is(run, text):
    (run.path / "evaluation").mkdir()
    (run.path / "evaluation" / "base.json").write_text(text)
    with pytest.raises(UserError, match=r"base\.json is damaged .*remove it and resume"):
        run.read_json("evaluation/base.json")


def test_a_setting_that_is_no_more_is_a_difference_to_an_older_run_or_cell_only_where_it_was_on():
    kept = {"seed": 1, "suite.machine.device": "cpu", "adaptation.suite.machine.threads": 2}
    assert differing(kept, {"seed": 1}) == []
    assert differing(kept | {"machine.device": "cpu"}, {"seed": 1}) == ["machine.device"]
    assert differing(renamed_settings({"explore.reuse": False, "practice.explore.reuse": False}), {}) == []
    assert differing(renamed_settings({"explore.reuse": True}), {}) == ["rollout.reuse"]
