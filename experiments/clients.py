"""Many clients of a server at once: streams that are timed, some of which are broken off."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

Body = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What a client sends, and after how many seconds it leaves; None: it stays to the end."""

    body: Body
    leaves_after: float | None = None


@dataclass
class Reply:
    """What a client saw: seconds to its first text and to its end, None if it did not get there."""

    first_seconds: float | None = None
    seconds: float | None = None
    left: bool = False
    finish: str | None = None
    tokens: int = 0
    """Tokens of the answer as the server counts them; 0 for a client that left."""
    pieces: int = 0
    error: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether a client that stayed got no whole answer: no reason of its end, no usage, or no text."""
        return not self.left and (bool(self.error) or self.finish is None or self.tokens == 0)


@dataclass
class Load:
    """Replies in the order of their requests, and the seconds from the first request to the last end."""

    replies: list[Reply] = field(default_factory=list)
    seconds: float = 0.0


def requests_of(
    questions: Sequence[str], model: str, *, seed: int, max_tokens: tuple[int, int], leave: float, longest_stay: float
) -> list[Request]:
    """Make a request a question: a sampled answer of random length. A share `leave` of clients leaves within `longest_stay` seconds."""
    draw = Random(seed)
    made = []
    for number, question in enumerate(questions):
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": draw.randint(*max_tokens),
            "temperature": 1.0,
            "seed": number,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        made.append(Request(body, draw.uniform(0, longest_stay) if draw.random() < leave else None))
    return made


async def send_all(url: str, requests: Sequence[Request], clients: int) -> Load:
    """Send requests to `url`/chat/completions, each client one after another."""
    load = Load([Reply() for _ in requests])
    waiting = iter(zip(requests, load.replies, strict=True))
    began = time.perf_counter()

    async def client(session: aiohttp.ClientSession) -> None:
        for request, reply in waiting:
            await _send(session, url, request, reply)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


async def _send(session: aiohttp.ClientSession, url: str, request: Request, reply: Reply) -> None:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(request.leaves_after), session.post(f"{url}/chat/completions", json=request.body) as response:
            if response.status != 200:
                reply.error = f"status {response.status}: {(await response.text())[:300]}"
                return
            async for line in response.content:
                if line.startswith(b"data: {"):
                    _read(json.loads(line[6:]), reply, began)
        reply.seconds = time.perf_counter() - began
    except TimeoutError:
        reply.left = request.leaves_after is not None
        reply.error = "" if reply.left else "no answer in time"
    except aiohttp.ClientError as error:
        reply.error = repr(error)


def _read(event: Body, reply: Reply, began: float) -> None:
    if "error" in event:
        reply.error = str(event["error"])
        return
    if event.get("usage"):
        reply.tokens = event["usage"]["completion_tokens"]
    for choice in event["choices"]:
        if choice["delta"].get("content"):
            reply.pieces += 1
            reply.first_seconds = reply.first_seconds or time.perf_counter() - began
        reply.finish = choice.get("finish_reason") or reply.finish
