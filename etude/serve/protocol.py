"""The requests of OpenAI's interface that the server takes, and the shape of its errors.

A field that the server does not know is refused, and so is one whose value would have no effect, so that nobody measures a setting that was
ignored. `decoding`, `search`, `thought` and `kv_cache` (`extra_body` of the openai client) are etude's own: `etude.serve.options`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Prompt = str | list[str] | list[int] | list[list[int]]


class Refused(Exception):
    """A request that can't be answered, with the status and the field that is at fault."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def to_json(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "rate_limit_error" if self.status == 429 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    """Options of a streamed reply."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def to_plain(self) -> dict[str, str]:
        """Return the message as chat templates take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Common(BaseModel):
    """What both kinds of requests have."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model: str
    n: int = Field(1, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    user: str | None = None
    decoding: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    thought: dict[str, Any] | None = None
    kv_cache: dict[str, Any] | None = None

    @property
    def longest(self) -> int | None:
        """Most tokens of an answer, if the request or its kind says so."""
        raise NotImplementedError

    @property
    def names_longest(self) -> bool:
        """Whether the request itself says how long an answer may be."""
        return bool(self.model_fields_set & {"max_tokens", "max_completion_tokens"}) and self.longest is not None

    @property
    def top(self) -> int | None:
        """Number of most likely tokens to tell with each token; None: no log-probs."""
        raise NotImplementedError

    @property
    def wants_logprobs(self) -> bool:
        return self.top is not None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer. Raises Refused for an empty one."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if not all(found):
            raise Refused("stop has an empty text: leave it out", param="stop")
        if len(found) > 16:
            raise Refused(f"stop has {len(found)} texts: 16 at most", param="stop")
        return tuple(found)


class ChatRequest(Common):
    """A request of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tool_choice: Literal["none"] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Common):
    """A request of /v1/completions."""

    prompt: Prompt
    max_tokens: int | None = Field(16, ge=0)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False
    best_of: Literal[1] | None = None
    suffix: None = None

    @property
    def longest(self) -> int | None:
        return self.max_tokens

    @property
    def top(self) -> int | None:
        return self.logprobs

    @property
    def wants_logprobs(self) -> bool:
        return self.echo or self.logprobs is not None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, each a text or token ids. Raises Refused if there is none."""
        if not self.prompt:
            raise Refused("the prompt is empty: give at least one token", param="prompt")
        given: Any = self.prompt
        return [given] if isinstance(given, str) or isinstance(given[0], int) else given
