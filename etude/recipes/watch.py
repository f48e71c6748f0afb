"""Watch: show the report of a run in a browser while it runs.

    GET /          the page as it stands (`etude.evaluation.report.live`)
    GET /events    server-sent events: the version of the page, at first and whenever it is another one

The page's script asks for the page again when the version changes, and replaces the parts that differ. Files are looked at once a second,
only while a page is open.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.middleware.trustedhost import TrustedHostMiddleware

from etude.evaluation.report.live import LivePage
from etude.recipes.watch_settings import WatchSettings
from etude.serve.listening import address_of, listen
from etude.serve.settings import LOOPBACK

_LOOK_SECONDS = 1.0
"""Time between two looks at the files, for each open page."""
_GRACE_SECONDS = 2
_NICENESS = 10
"""How much the watcher stands back from a run on the same cores."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page's own policy is in the page, which can't say this
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build_app(run: Path, host: str, ending: asyncio.Event) -> FastAPI:
    """Return the application, whose streams of events end with `ending`. Raises UserError if the folder is not that of a run.

    Requests that call this machine by another name than `host` or a loopback name are refused: a page elsewhere could point its own name at
    this address and read the run.
    """
    page = LivePage(run)
    app = FastAPI(title="etude watch", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]", host, f"[{host}]"])

    @app.get("/")
    def shown() -> HTMLResponse:
        return HTMLResponse(page.look()[1], headers=_HEADERS)

    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterable[ServerSentEvent]:
        seen = None
        while not ending.is_set():
            version, _ = await run_in_threadpool(page.look)
            if version != seen:
                yield ServerSentEvent(event="page", data={"version": version, "now": time.time()})
                seen = version
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), _LOOK_SECONDS)

    return app


class _Server(uvicorn.Server):
    """Ends the streams of events before connections, which would wait for them."""

    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending.set()
        await super().shutdown(sockets)


def server_of(run: Path, host: str) -> uvicorn.Server:
    """Return a server of the page. Raises UserError if the folder is not that of a run."""
    ending = asyncio.Event()
    quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": _GRACE_SECONDS}
    return _Server(uvicorn.Config(build_app(run, host, ending), lifespan="off", **quiet), ending)


def watch(run: Path, settings: WatchSettings, say: Callable[[str], None]) -> None:
    """Serve the page of a run until SIGINT or SIGTERM; `say` is told the address.

    Raises UserError if the folder is not that of a run, or if the address is taken.
    """
    server = server_of(run, settings.host)
    with listen(settings.host, settings.port) as listener:
        os.nice(_NICENESS)
        say(f"{address_of(listener)}/ shows {run}")
        server.run(sockets=[listener])
