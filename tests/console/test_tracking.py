"""Trackers get the numbers of a run, and a run does not depend on them."""

import pytest
from accelerate import tracking as accelerated

from etude.cli import main
from etude.console.reporter import Silent
from etude.console.tracking import TrackingReporter
from etude.errors import UserError


class Fake(accelerated.GeneralTracker):
    name = "fake"
    requires_logging_directory = True

    def __init__(self, run_name, logging_dir):
        super().__init__()
        self.rows, self.run_name, self.logging_dir, self.is_finished = [], run_name, logging_dir, False
        STARTED.append(self)

    def start(self):
        pass

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.configuration = values

    def log(self, values, step=None, **kwargs):
        self.rows.append((step, values))

    def finish(self):
        self.is_finished = True


STARTED: list[Fake] = []


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    STARTED.clear()
    monkeypatch.setitem(accelerated.LOGGER_TYPE_TO_CLASS, "fake", Fake)
    monkeypatch.setattr("etude.console.tracking.get_available_trackers", lambda: ["fake"])


def test_a_tracker_gets_every_step_and_measurement_in_growing_order(tmp_path):
    sizes = ["--steps", "2", "--n", "40", "--warm_start.steps", "3", "--evaluation.n", "10", "--evaluation.pass_n", "2"]
    assert main(["practice", "tiny", *sizes, "--track", "fake", "--run", str(tmp_path / "mine")]) == 0
    (tracker,) = STARTED
    assert (tracker.run_name, tracker.logging_dir, tracker.is_finished) == ("mine", str(tmp_path / "mine" / "fake"), True)
    assert tracker.configuration["rollout.num_samples"] == 8 and tracker.configuration["tasks.function"] == "etude.tiny:letters"
    steps = [step for step, _ in tracker.rows]
    assert steps == sorted(steps) and [step for step, row in tracker.rows if "practice/score" in row] == [4, 5]
    assert [step for step, row in tracker.rows if "evaluation/tiny/accuracy" in row] == [0, 3, 5]
    assert all(isinstance(value, (int, float)) for _, row in tracker.rows for value in row.values())


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def fails(self, values, step=None, **kwargs):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(Fake, "log", fails)
    sizes = ["--steps", "1", "--n", "40", "--warm_start.steps", "1", "--evaluation.n", "10", "--evaluation.pass_n", "2"]
    assert main(["practice", "tiny", *sizes, "--track", "fake", "--run", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out.count("tracker fake fails and is left out from here: no network") == 1
    assert (tmp_path / "mine" / "result.json").exists()


def test_mistakes_start_no_tracker_and_unknown_ones_and_missing_packages_are_one_sentence(tmp_path):
    assert main(["practice", "tiny", "--track", "fake", "--tasks.path", "none.jsonl", "--run", str(tmp_path / "mine")]) == 2
    assert STARTED == []
    with pytest.raises(UserError, match="unknown tracker 'tensorbord': did you mean 'tensorboard'"):
        TrackingReporter(Silent(), ["tensorbord"], tmp_path, {})
    with pytest.raises(UserError, match=r"--track comet_ml: its package is not installed: pip install comet-ml"):
        TrackingReporter(Silent(), ["comet_ml"], tmp_path, {})
