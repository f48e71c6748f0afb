"""The client of a server of a random model."""

from collections.abc import Iterator
from typing import Any

import pytest
from served import serving


@pytest.fixture
def client(model_of, chat_tokenizer) -> Iterator[Any]:
    with serving(model_of("qwen3"), chat_tokenizer) as made:
        yield made
