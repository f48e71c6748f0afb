"""The reward of a practice run: verifiers, random scores, a vote, a judge, the form, or several of them. Evaluation uses only verifiers."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from etude.device.machine import Device
from etude.evaluation.measure import Verify
from etude.rewards.combined import CombinedReward
from etude.rewards.format import FormatReward, Gate
from etude.rewards.judge import JudgeReward, build_messages
from etude.rewards.majority_vote import MajorityVoteReward
from etude.rewards.own_answer import COUNTED as OWN_ANSWERS
from etude.rewards.random_score import RandomReward
from etude.rewards.verifier_reward import COUNTED, VerifierReward
from etude.rollouts.sampler import Begin
from etude.training.chat_model import open_chat_model
from etude.training.run_folder import RunFolder
from etude.training.settings import PracticeSettings


@dataclass(frozen=True)
class RunReward:
    """The reward of one run."""

    settings: PracticeSettings
    outcome: VerifierReward
    model: JudgeReward | None
    """The judge, if there is one."""
    majority_vote: MajorityVoteReward | None = None
    """The majority vote, if there is one."""
    own_answers: Counter[str] | None = None
    """Counts of the model's own answers, in self-training."""

    @staticmethod
    def of(settings: PracticeSettings, outcome: VerifierReward, place: Device, *, has_steps_left: bool) -> "RunReward":
        """Build the reward. If `has_steps_left`, its judge is loaded, or its server asked once; raises UserError if it is unavailable.
        Otherwise the run needs no judge.
        """
        majority_vote = MajorityVoteReward(settings.majority_vote) if "majority_vote" in settings.reward_parts else None
        if "judge" not in settings.reward_parts or not settings.steps:
            own = Counter(dict.fromkeys(OWN_ANSWERS, 0)) if settings.reward == "self_training" else None
            return RunReward(settings, outcome, None, majority_vote, own)
        judge = cache(lambda: open_chat_model(settings.judge, place, settings.machine, build_messages("?")))
        if has_steps_left:
            judge()
        return RunReward(settings, outcome, JudgeReward(lambda conversations: judge()(conversations), settings.judge), majority_vote)

    @property
    def is_plain(self) -> bool:
        """Whether rewards come from one verifier or from chance."""
        return self.settings.reward in ("verifier", "random") and not self.settings.tasks.actions.gate

    @property
    def has_parts(self) -> bool:
        """Whether the parts of a reward are worth logging: they are from several rewards, or from several functions."""
        return not self.is_plain or (self.outcome.function is not None and len(self.outcome.function.functions) > 1)

    @property
    def begin(self) -> Begin | None:
        """A function that judges groups in the background; None unless the verifiers are the only reward."""
        is_alone = self.settings.reward == "verifier" and self.is_plain
        return self.outcome.begin if self.settings.async_verifiers and is_alone else None

    def counts(self) -> dict[str, int]:
        """Return the counters so far."""
        found = dict.fromkeys(COUNTED, 0) | self.outcome.counts
        for more in (self.model and self.model.counts, self.majority_vote and self.majority_vote.counts, self.own_answers):
            found |= more or {}
        return found

    def judge(self, rate: Callable[[], float]) -> Verify:
        """Return the function that scores attempts; `rate` gives the rate of random scores of 1."""
        settings, actions = self.settings, self.settings.tasks.actions
        kinds: dict[str, Callable[[], Verify]] = {
            "verifier": lambda: self.outcome.judge,
            "random": lambda: RandomReward(settings.seed, rate()).judge,
            "format": lambda: FormatReward(actions).judge,
        }
        if (model := self.model) is not None:
            kinds["judge"] = lambda: model.judge
        if (majority_vote := self.majority_vote) is not None:
            kinds["majority_vote"] = lambda: majority_vote.judge
        if settings.reward == "self_training":  # its attempts come with their rewards
            return self.outcome.judge
        parts = {name: kinds[name]() for name in settings.reward_parts}
        if settings.reward in ("verifier", "random"):
            whole = parts[settings.reward]
        else:
            whole = CombinedReward(parts, settings.reward_weights or None, settings.reward_optional).judge
        return Gate(actions, whole).judge if actions.gate else whole


def random_rate(folder: RunFolder) -> float:
    """Return the acceptance rate of the random control: the verifier's on samples of the model at the start of practice, clipped to [0.05,
    0.95] so that groups have signal.
    """
    pages = (folder.read_json(f"evaluation/{model}.json") for model in ("preference", "warm_start", "base"))
    page = next(page for page in pages if page)
    return min(max(page["suites"][0]["row"]["sampled_accuracy"], 0.05), 0.95)
