"""Serve: answer requests of OpenAI's interface with a model, until it is told to stop."""

import asyncio
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from etude.device.limits import within_limits
from etude.device.machine import resolve_device
from etude.engine.build import continuous_batch, engine_at
from etude.models.load import load_model
from etude.recipes.generate_settings import parse_generate
from etude.serve.app import build_app
from etude.serve.listening import address_of, listen
from etude.serve.model import Model
from etude.serve.scheduler import Scheduler
from etude.serve.settings import ServeSettings
from etude.training.step_model_files import has_step_model, load_step_model, value_by

_GRACE_SECONDS = 5
"""Time for running answers to end after a signal."""


class _Server(uvicorn.Server):
    """Ends what is decoded before connections: clients get their answers, or an error, and no torn reply."""

    def __init__(self, config: uvicorn.Config, scheduler: Scheduler) -> None:
        super().__init__(config)
        self._scheduler = scheduler

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self._scheduler.close, _GRACE_SECONDS)
        await super().shutdown(sockets)


def load(model: str, settings: ServeSettings) -> tuple[FastAPI, Scheduler]:
    """Load a model and return its application. The system message and instruction of the model's folder are its own in conversations."""
    own = parse_generate(model, [])
    place = resolve_device(settings.machine)
    loaded, tokenizer = load_model(model, device=place.device)
    engine = engine_at(place, loaded, tokenizer, settings.machine)
    batch = continuous_batch(engine, most_rows=settings.max_rows, most_new_tokens=min(settings.max_new_tokens, engine.positions))
    scheduler = Scheduler(engine, batch, max_waiting=settings.max_waiting)
    name = settings.name or Path(model).name
    step_value = cache(lambda: value_by(load_step_model(model, loaded, place, settings.machine))) if has_step_model(model) else None
    served = Model(name, loaded, tokenizer, engine, place, scheduler, step_value)
    return build_app(served, settings, own.system, own.instruction), scheduler


def serve(model: str, settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Serve a model until SIGINT or SIGTERM; `say` is told the address. Raises UserError if the address is taken."""
    settings.api_key  # noqa: B018  # a missing key is told before the model is loaded
    listener = listen(settings.host, settings.port)
    with listener, within_limits(settings.machine):
        app, scheduler = load(model, settings)
        say(f"{address_of(listener)}/v1 serves {settings.name or Path(model).name}")
        quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": _GRACE_SECONDS}
        _Server(uvicorn.Config(app, lifespan="off", **quiet), scheduler).run(sockets=[listener])
