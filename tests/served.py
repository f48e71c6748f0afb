"""A server of a random model, in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import torch
import uvicorn

from etude.device.machine import Device
from etude.engine.transformers import TransformersEngine
from etude.kernels.decoding import kernels_for
from etude.serve.app import build_app
from etude.serve.model import Model
from etude.serve.scheduler import Scheduler
from etude.serve.settings import ServeSettings

SMALL = ServeSettings(max_rows=16, max_new_tokens=60)
NEEDS_KERNELS = pytest.mark.skipif(not kernels_for(torch.device("cpu"), torch.float32), reason="there is no C++ compiler")


@contextmanager
def serving(model: Any, tokenizer: Any, settings: ServeSettings = SMALL, step_value: Any = None, **own: Any) -> Iterator[Any]:
    """Serve a model; yields the openai client, with the served model as `client.served`."""
    engine = TransformersEngine(model, tokenizer)
    batch = engine.continuous(most_rows=settings.max_rows, most_new_tokens=settings.max_new_tokens)
    scheduler = Scheduler(engine, batch, max_waiting=settings.max_waiting)
    served = Model("mine", model, tokenizer, engine, Device("cpu", "float32"), scheduler, step_value)
    server = uvicorn.Server(uvicorn.Config(build_app(served, settings, **own), port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60)
    client.served = served
    try:
        yield client
    finally:
        client.close()
        server.should_exit = True
        thread.join()
        scheduler.close()
