"""The routes of the server: /v1/models, /v1/chat/completions, /v1/completions, /health and /metrics."""

import asyncio
import hmac
import secrets
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import generate_latest
from starlette.middleware.trustedhost import TrustedHostMiddleware

from etude.engine.continuous import Likely
from etude.serve.aliases import ANSWER_SEARCHES, METHODS, alias
from etude.serve.answers import Choice, Piece
from etude.serve.errors import add_error_handlers
from etude.serve.logprobs import chat_logprobs, completion_logprobs
from etude.serve.metrics import Counted
from etude.serve.model import Item, Model
from etude.serve.protocol import ChatRequest, CompletionRequest, Refused
from etude.serve.server import Server, finish_of, unless_gone
from etude.serve.settings import LOOPBACK, ServeSettings
from etude.serve.stream import streamed


def build_app(model: Model, settings: ServeSettings, system: str | None = None, instruction: str | None = None) -> FastAPI:
    """Return the application; `system` and `instruction` are the model's own, for conversations."""
    server = Server(model, settings, system, instruction)
    app = FastAPI(title="etude", docs_url=None, redoc_url=None, openapi_url=None, max_body_size=settings.max_body_bytes)
    if settings.host in LOOPBACK:  # else a page that points its own name at this address could read answers
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    app.add_middleware(Counted, metrics=server.metrics)
    add_error_handlers(app)
    app.include_router(_health(server))
    for routes in (_models(server), _chat(server), _completions(server)):
        app.include_router(routes, dependencies=[Depends(_key_check(settings.api_key))])
    return app


def _key_check(key: str | None) -> Any:
    """Return a dependency that refuses requests without the key; None: all are taken."""

    def check(http: Request) -> None:
        given = http.headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
            raise Refused("the key is wrong or missing: send it as Authorization: Bearer KEY", status=401, code="invalid_api_key")

    return check


def _health(server: Server) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(server.metrics.registry), media_type="text/plain; version=0.0.4")

    return routes


def _models(server: Server) -> APIRouter:
    routes, own = APIRouter(), server.model.name

    def entry(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": server.started, "owned_by": "etude"}

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [entry(name) for name in (own, *(f"{own}:{way}" for way in (*METHODS, *ANSWER_SEARCHES)))]}

    @routes.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        alias(name, own)
        return entry(name)

    return routes


def _head(kind: str, model: str, prefix: str) -> dict[str, Any]:
    """Return what a reply begins with."""
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _chat(server: Server) -> APIRouter:
    routes, tokenizer = APIRouter(), server.model.tokenizer

    def delta(piece: Piece) -> dict[str, Any]:
        found = chat_logprobs(tokenizer, [piece.likely]) if piece.likely else None
        return {"delta": {"content": piece.text} if piece.text else {}, "logprobs": found}

    def whole(place: int, choice: Choice, has_logprobs: bool) -> dict[str, Any]:
        return {
            "index": place,
            "message": {"role": "assistant", "content": choice.text},
            "logprobs": chat_logprobs(tokenizer, choice.likely) if has_logprobs else None,
            "finish_reason": finish_of(choice.finish),
        }

    @routes.post("/v1/chat/completions")
    async def chat(body: ChatRequest, http: Request) -> Any:
        items = server.chat_items(body)
        if body.stream:
            opening = [{"index": sample, "delta": {"role": "assistant", "content": ""}, "finish_reason": None} for sample in range(body.n)]
            return streamed(server, body, items, _head("chat.completion.chunk", body.model, "chatcmpl"), delta, opening)
        choices = await server.choices(http, body, items)
        shown = [whole(place, choice, body.logprobs) for place, choice in enumerate(choices)]
        return _head("chat.completion", body.model, "chatcmpl") | {"choices": shown, "usage": server.count(items, choices)}

    return routes


def _completions(server: Server) -> APIRouter:
    routes, tokenizer = APIRouter(), server.model.tokenizer

    def delta(piece: Piece) -> dict[str, Any]:
        found = piece.likely and completion_logprobs(tokenizer, [piece.likely], [piece.likely.token])
        return {"text": piece.text, "logprobs": found}

    @routes.post("/v1/completions")
    async def complete(body: CompletionRequest, http: Request) -> Any:
        items = server.completion_items(body)
        if body.stream:
            if body.echo or body.max_tokens == 0:
                raise Refused("a stream has no echo, and at least one token: leave echo out, or ask without stream", param="echo")
            return streamed(server, body, items, _head("text_completion", body.model, "cmpl"), delta)
        if body.max_tokens == 0:
            choices, each = [Choice(finish="length") for _ in items], 1
        else:
            choices, each = await server.choices(http, body, items), body.n
        echoes = await _echoes(server, http, body, items)
        shown = []
        for place, choice in enumerate(choices):
            _, prompt, _ = items[place // each]
            text, found, tokens = choice.text, list[Likely | None](choice.likely), [one.token for one in choice.likely]
            if body.echo:
                text = tokenizer.decode(list(prompt), skip_special_tokens=False) + text
                found, tokens = [None, *echoes[place // each], *found], [*prompt, *tokens]
            logprobs = None if body.logprobs is None else completion_logprobs(tokenizer, found, tokens)
            shown.append({"index": place, "text": text, "logprobs": logprobs, "finish_reason": finish_of(choice.finish)})
        return _head("text_completion", body.model, "cmpl") | {"choices": shown, "usage": server.count(items, choices)}

    return routes


async def _echoes(server: Server, http: Request, body: CompletionRequest, items: Sequence[Item]) -> Sequence[Sequence[Likely]]:
    """Return the log-probs of the prompts, if the request wants them."""
    model, top = server.model, body.logprobs
    if not body.echo or top is None:
        return [[] for _ in items]
    jobs = [model.scheduler.run(lambda prompt=prompt: model.echoed(prompt, top)) for _, prompt, _ in items]  # type: ignore[misc]
    return await unless_gone(http, asyncio.gather(*map(asyncio.wrap_future, jobs)))
