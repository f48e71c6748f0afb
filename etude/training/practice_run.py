"""The run of practice: its data, model, engine and reward, and the slots that callbacks read and write."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from etude.device.machine import device_facts, max_prompt_tokens, resolve_device
from etude.engine.build import engine_at
from etude.engine.protocols import PrefixEngine
from etude.evaluation.divergence import StartSampling
from etude.evaluation.measure import Verify
from etude.evaluation.retention import Probe, measure_retention
from etude.learn.learner import Learner, Loss, Stream
from etude.models.adapters import add_lora, check_targets
from etude.models.load import load_model
from etude.randomness import seed_for
from etude.rewards.verifier_reward import VerifierReward
from etude.rollouts.attempts import Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.prompts import render_prompt
from etude.rollouts.sampler import Sampler, judge_groups
from etude.settings.configuration import to_plain_values
from etude.suites.retention_probe import logprobs_of, probe_for
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.data import LoadTasks, RunData, check_golds, load_data
from etude.training.inputs import inputs_of
from etude.training.learners import is_base, needs_reference, practice_learner
from etude.training.ledger import Ledger
from etude.training.reward import RunReward, random_rate
from etude.training.rollout_metrics import first_half, of_the_policy, sampled_entropy
from etude.training.run import Run, rows_of
from etude.training.run_folder import read_progress
from etude.training.samplers import sampler_for
from etude.training.saving import save_asked
from etude.training.settings import PracticeSettings


@dataclass
class PracticeRun(Run):
    """A run of practice.

    Slots that callbacks share: `judge`, `replay_factor`, `sampler.sampling`, `sampler.step_value`, `reward.majority_vote.min_vote_share`,
    `learner.temperature`, `learner.rate_factor`, `learner.entropy_bonus`.
    """

    settings: PracticeSettings
    verifiers: VerifierReward = field(kw_only=True)
    """Scores answers by the tasks' verifiers."""
    base: str = field(default="", init=False)
    """The model that training begins with, by name."""
    engine: PrefixEngine = field(init=False)
    data: RunData = field(init=False)
    judge: Verify = field(init=False)
    """Scores the answers of evaluations: the verifiers, unless a callback demands more."""
    reward: RunReward = field(init=False)
    sampler: Sampler = field(init=False)
    learner: Learner = field(init=False)
    probe: Probe | None = field(default=None, init=False)
    positions: int = field(default=0, init=False)
    """The model's context length in tokens."""
    room_tokens: int = field(default=0, init=False)
    """Longest prompt in tokens, so that an answer of rollout.max_new_tokens follows."""
    history: list[dict[str, Any]] = field(default_factory=list, init=False)
    """The metrics of practice's steps so far."""
    replay_factor: float = field(default=1.0, init=False)
    """Factor on the ratio of replay."""

    # ------------------------------------------------------------------ prepare

    def load(self, *, reserved: int, own_tasks: LoadTasks) -> None:
        """Load tasks and model; nothing is written. `reserved` training tasks are for callbacks, which may load `own_tasks`."""
        settings = self.settings
        self.data = load_data(settings, self.name, self.data_folder, reserved=reserved, own_tasks=own_tasks)
        if warning := self.verifiers.prepare([*self.data.train, *self.data.measured]):
            self.reporter.say(warning)
        check_golds([*self.data.train, *self.data.measured], self.verifiers.judge)
        self.judge = self.verifiers.judge
        self.place = resolve_device(settings.machine, self.folder.read_json("environment.json") or {})
        self.reward = RunReward.of(settings, self.verifiers, self.place, has_steps_left=self._has_steps_left())
        self.base = settings.model
        self.model, self.tokenizer = load_model(self.base, device=self.place.device)
        check_targets(self.model, settings.learn.lora)
        self.positions = max_prompt_tokens(self.model, 0)
        longest = max(settings.rollout.max_new_tokens, settings.evaluation.max_new_tokens or 0, settings.evaluation.thought.longest)
        self.room_tokens = max_prompt_tokens(self.model, settings.rollout.max_new_tokens)
        self.data.render(settings, self.tokenizer, max_prompt_tokens(self.model, longest), self.positions, self.verifiers.judge)
        self.probe = probe_for(settings.retention, self.tokenizer, self.positions, self.data_folder)
        self.reporter.baselines({suite.name: suite.baselines for suite in self.data.suites}, self.data.facts)

    def begin(self, adapted: Callable[[], Path] | None, **more: Any) -> None:
        """Create the run folder, which keeps `more` facts too, and the engine; `adapted`, if given, returns the folder of the adapted model
        to begin with.
        """
        facts = device_facts(self.place, self.settings.model) | {"verifiers_kept_from": self.verifiers.closed} | more
        for sentence in self.folder.begin(to_plain_values(self.settings), self._inputs(), **facts):
            self.reporter.say(sentence)
        if adapted is not None:
            del self.model
            self.base = str(adapted())
            self.model, _ = load_model(self.base, device=self.place.device)
        self.verifiers.counts.clear()
        self.model = add_lora(self.model, self.settings.learn.lora, seed_for(self.seed, "lora"))
        self.engine = engine_at(
            self.place, self.model, self.tokenizer, self.settings.machine, self.settings.kv_cache.build_view(self.tokenizer)
        )

    def _inputs(self) -> dict[str, str]:
        """Return the fingerprints of what the run reads."""
        function = self.verifiers.function
        return inputs_of(self.data) | ({f"the verifier {function.name}": function.fingerprint} if function else {})

    def start_practice(self) -> None:
        """Create practice's learner and sampler from the current model."""
        self.learner = practice_learner(self.model, self.settings, self.place.dtype)
        if needs_reference(self.settings):
            self.add_reference()
        self.sampler = sampler_for(
            self.settings,
            engine=self.engine,
            judge=self.reward.judge(partial(random_rate, self.folder)),
            begin=self.reward.begin,
            render=self.render,
            room_tokens=self.room_tokens,
            write_trees=self.folder.write_trees,
            logprobs=logprobs_of(self.model, self.place, self.settings.machine),
            own_answers=self.reward.own_answers,
        )
        self.sampler.check(self.data.items)
        self.read_history()

    def count(self) -> dict[str, int]:
        """Return the reward's counters, and reset the peak memory of contexts."""
        self._take_peak_bytes()
        return self.reward.counts()

    def counted_since(self, before: Mapping[str, int]) -> dict[str, float]:
        """Return the counts since `before`, and the peak memory of contexts under a cache policy."""
        peak = self._take_peak_bytes()
        found: dict[str, float] = {name: number - before[name] for name, number in self.reward.counts().items()}
        return found | ({} if peak is None else {"context_mib": peak / 2**20})

    def _take_peak_bytes(self) -> int | None:
        """Return the peak bytes of a batch's contexts under a cache policy since the last call; None under the full cache."""
        return self.engine.view.take_peak_bytes() if self.engine.view else None

    def read_history(self) -> None:
        """Read the log of practice's steps."""
        self.history[:] = rows_of(self.folder, "practice")

    def _has_steps_left(self) -> bool:
        """Return whether practice has steps that neither a checkpoint nor the ledger holds."""
        found = self.folder.checkpoints("step-")
        progress = read_progress(found[-1]) if found else {"step": 0}
        kept = Ledger(self.folder.path / "ledger").steps()
        left = range(progress["step"] + 1, self.settings.steps + 1)
        return not progress.get("is_over") and any(step not in kept for step in left)

    # ------------------------------------------------------------------ for callbacks

    def add_stream(self, name: str, loss: Loss, coefficient: float = 1.0, *, loss_agg_mode: str | None = None) -> None:
        """Add a term to the loss."""
        kind: Any = loss_agg_mode or self.settings.learn.loss_agg_mode
        self.learner.streams.append(Stream(name, loss, coefficient, kind, self.settings.rollout.max_new_tokens))

    def add_reference(self) -> None:
        """Keep the model at the start of practice as reference; if its adapters begin here, it is the model without them."""
        if self.learner.reference is None and not is_base(self.settings):
            self.learner.reference = copy.deepcopy(self.model).eval().requires_grad_(False)

    def fix_reference(self) -> None:
        """Make checkpoints hold a reference that will be refreshed, so that a rollback finds it."""
        if self.settings.learn.preference.ref_model_sync_steps and self.learner.reference is not None:
            self.learner.refresh_reference()  # the numbers stay the same

    def render(self, task: Task) -> tuple[int, ...]:
        """Return a task's prompt as token ids."""
        return render_prompt(self.tokenizer, task)

    def judge_groups(self, groups: Sequence[Group]) -> list[list[Reward]]:
        """Return the rewards of attempts, by group."""
        return judge_groups(groups, self.sampler.judge)

    def entropy_of(self, batch: RolloutBatch) -> float:
        """Return the entropy of a step's samples at the given tasks, in nats a token."""
        own = of_the_policy(batch.groups[batch.given], first_half(self.settings.rollout))
        return sampled_entropy([attempt for row in own for attempt in row])

    @property
    def temperature(self) -> float:
        """The sampling temperature of evaluation."""
        return self.settings.rollout.sampling.temperature

    def start_sampling(self, num_samples: int, max_new_tokens: int) -> StartSampling:
        """Return how answers of the model at the start of practice are sampled."""
        return StartSampling(num_samples, max_new_tokens, self.settings.rollout.sampling, self.seed, self.place.dtype)

    def known(self) -> dict[str, Any]:
        """Measure the current model on the retention probe."""
        assert self.probe is not None
        return measure_retention(self.probe, logprobs_of(self.model, self.place, self.settings.machine))

    def known_row(self) -> dict[str, Any]:
        """Return the metrics of the current model on the probe."""
        row: dict[str, Any] = self.known()["row"]
        return row

    def row_before(self, measure: str) -> dict[str, Any]:
        """Return the row of a measure for the model at the start of practice."""
        row: dict[str, Any] = self.folder.read_json(f"evaluation/{self.begins_as}.json")[measure]["row"]
        return row

    @property
    def begins_as(self) -> str:
        """The name of the model at the start of practice among the run's measurements."""
        return "preference" if self.settings.preferences.steps else "warm_start" if self.settings.warm_start.steps else "base"

    # ------------------------------------------------------------------ checkpoints

    def save_model(self, folder: Path) -> None:
        save_asked(self.model, self.tokenizer, folder, self.settings)

    @property
    def keep(self) -> int:
        return self.settings.save_total_limit
