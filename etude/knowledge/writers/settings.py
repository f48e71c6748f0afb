"""Settings of the passage writer."""

from dataclasses import dataclass
from typing import Literal

from etude.errors import UserError, at_least
from etude.llm_client.model import ChatModel

_OF_ALL = {"how", "most_tasks"}
_ASKED = {"temperature", "max_new_tokens"}
_OF_MODEL = {"model", "url", "api_key_env", "extra_body", "timeout_seconds", "retries", "concurrency", "with_answer", "min_agreement"}
"""The settings that each writer reads."""


@dataclass(frozen=True)
class PassageWriter(ChatModel):
    """Settings of the passage writer: by rules, by a chat model, or by attempts sampled from the adapted model."""

    section = "writer"

    how: Literal["rules", "model", "attempts"] = "rules"
    """`rules` = sentences of the text, without a model; `model` = `writer.model`, on a server or loaded here; `attempts` = the adapted
    model's own right attempts."""
    most_tasks: int = 3
    """Most problems in one passage."""
    with_answer: bool = True
    """Whether a chat model sees the gold answers; its own answers are compared with them either way."""
    attempts: int = 8
    """Attempts at each problem whose answer can be verified."""
    min_agreement: float = 0.3
    """Word F1 from which a model's free-form answer agrees with the gold one, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("most_tasks", "attempts"):
            at_least(f"writer.{name}", getattr(self, name), 1)
        if not 0 < self.min_agreement <= 1:
            raise UserError(f"writer.min_agreement must lie in (0, 1], got {self.min_agreement}")
        if self.how == "model" and self.model is None:
            raise UserError("writer.how model needs writer.model: a name on the server writer.url, or a model to load here")
        of = {"rules": _OF_ALL, "model": {*_OF_ALL, *_ASKED, *_OF_MODEL}, "attempts": {*_OF_ALL, *_ASKED, "attempts"}}[self.how]
        if unread := [name for name in self.changed_settings() if name not in of]:
            raise UserError(f"writer.{unread[0]} has no effect on writer.how {self.how}: leave it out, or set writer.how to what it is for")
        if self.how == "attempts" and not self.temperature:
            raise UserError("writer.how attempts needs writer.temperature above 0, such as 1.0, or all attempts at a problem are the same")
