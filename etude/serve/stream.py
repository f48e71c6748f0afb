"""Replies as server-sent events: a piece a token, or a whole answer where it does not come token by token."""

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi.responses import StreamingResponse

from etude.serve.answers import Piece
from etude.serve.errors import as_refused
from etude.serve.model import Item
from etude.serve.protocol import Common
from etude.serve.server import Server, finish_of

Json = dict[str, Any]


def streamed(
    server: Server, body: Common, items: list[Item], head: Json, delta: Callable[[Piece], Json], opening: Sequence[Json] = ()
) -> StreamingResponse:
    """Answer as events: `head` with the `opening` choices, then with the `delta` of each piece. Raises Refused if too many wait."""
    work = server.begin(body, items, streams=True)

    async def events() -> AsyncIterator[str]:
        start, is_first = time.perf_counter(), True
        try:
            for choice in opening:
                yield _event(head | {"choices": [choice]})
            async for piece in work.inbox.pieces():
                if is_first and piece.text:
                    server.metrics.first.observe(time.perf_counter() - start)
                    is_first = False
                end = finish_of(piece.finish) if piece.finish else None
                yield _event(head | {"choices": [{"index": piece.place, **delta(piece), "finish_reason": end}]})
            usage = server.count(items, work.inbox.choices)
            if body.stream_options and body.stream_options.include_usage:
                yield _event(head | {"choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
        except Exception as error:  # the status is sent already: the error is an event
            yield _event(as_refused(error).to_json())
        finally:
            work.cancel()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _event(value: Json) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
