"""A problem to practise on: what is asked, what is right, and who says so.

A task is plain data that any process can read: it holds text, not token ids, since ids belong to a (task, tokenizer) pair and
`etude.explore.prompts` makes them. Its canonical key finds duplicates and the overlap of training with evaluation items.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """One problem.

    >>> Task("What is 2 + 2?", "4").key == Task("what is  2 + 2 ?", "4").key
    True
    """

    prompt: str | tuple[Mapping[str, str], ...]
    """The question as text, or chat messages (`role`, `content`) that end with the user's."""
    answer: str | None = None
    """The gold answer, or None where nobody knows it."""
    verifier: str = "exact"
    """A name in `etude.tasks.verifiers.VERIFIERS`, or `file.py:function`."""
    worked: str | None = None
    """A demonstration of the answer as the model should write it (worked steps, then the answer): what a warm start imitates."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the verifier or a study needs beside the answer; JSON values only."""
    origin: str = ""
    """Where the task comes from, for messages: `train.jsonl:12`, `chain_sum[3]`."""

    @property
    def question(self) -> str:
        """The text of the last message: what is asked."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"]

    @property
    def key(self) -> str:
        """Canonical key: equal for prompts that differ only in case, spacing or punctuation between words."""
        text = self.prompt if isinstance(self.prompt, str) else "\n".join(m["content"] for m in self.prompt)
        words = re.findall(r"[-+]?\d+(?:\.\d+)?|\w+|[^\w\s]", text.casefold())
        return hashlib.blake2b(" ".join(words).encode(), digest_size=8).hexdigest()
