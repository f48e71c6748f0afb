"""The routes of the server: /v1/models, /v1/chat/completions, /v1/completions, /health and /metrics."""

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from etude.engine.completion import Tokens
from etude.engine.continuous import Request as EngineRequest
from etude.engine.sampling import Sampling
from etude.errors import UserError
from etude.rollouts.prompts import render_prompt
from etude.serve.aliases import METHODS, alias, decoding_of, kv_cache_of
from etude.serve.answers import Choice, Inbox, Model, Piece, Way, chat_logprobs, completion_logprobs
from etude.serve.middleware import BodyLimit, Counted
from etude.serve.protocol import ChatRequest, Common, CompletionRequest, Refused
from etude.serve.scheduler import Closed
from etude.serve.settings import LOOPBACK, ServeSettings
from etude.tasks.actions import add_instruction
from etude.tasks.task import Task, text_problem, with_system

log = logging.getLogger(__name__)


class Metrics:
    """What Prometheus reads at /metrics."""

    def __init__(self, model: Model) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("etude_requests", "Requests by path and status", ["path", "status"], **made)
        self.prompt_tokens = Counter("etude_prompt_tokens", "Tokens of prompts", **made)
        self.tokens = Counter("etude_generation_tokens", "Tokens of answers", **made)
        self.first = Histogram("etude_time_to_first_token_seconds", "Seconds from a streamed request to its first text", **made)
        Gauge("etude_running_samples", "Samples that are decoded", **made).set_function(lambda: model.scheduler.running)
        Gauge("etude_waiting_requests", "Requests that wait", **made).set_function(lambda: model.scheduler.waiting)


class Server:
    """Answers requests with one model."""

    def __init__(self, model: Model, settings: ServeSettings, system: str | None, instruction: str | None) -> None:
        self.model, self.settings, self.system, self.instruction = model, settings, system, instruction
        self.metrics = Metrics(model)
        self.started = int(time.time())

    # ------------------------------------------------------------------ requests → prompts

    def way(self, body: Common, prompt: Tokens) -> Way:
        """Return how a request is answered. Raises Refused for what can't be done."""
        decoding, kv_cache = alias(body.model, self.model.name)
        decoded, cached = decoding_of(decoding, body.decoding), kv_cache_of(kv_cache, body.kv_cache)
        given = {name: getattr(body, name) for name in ("temperature", "top_p", "top_k", "min_p") if getattr(body, name) is not None}
        try:
            sampling = Sampling(**given)
        except UserError as error:
            raise Refused(str(error), param=str(error).partition(" ")[0]) from None
        room = self.model.engine.positions - len(prompt)
        longest: Any = getattr(body, "longest", None)
        most = min(longest if longest is not None else self.settings.max_new_tokens, self.settings.max_new_tokens)
        if longest is not None and longest > self.settings.max_new_tokens:
            raise Refused(f"max_tokens is {longest}: this server answers with {self.settings.max_new_tokens} at most", param="max_tokens")
        if room < 1 or (longest is not None and longest > room):
            text = f"the prompt has {len(prompt)} tokens and the model room for {self.model.engine.positions}, prompt and answer"
            raise Refused(f"{text}: shorten it, or ask for fewer tokens", param="messages", code="context_length_exceeded")
        top: Any = getattr(body, "top", None)
        seed = secrets.randbits(63) if body.seed is None else body.seed
        way = Way(sampling, min(most, room), body.stops, top, decoded, cached, seed)
        if not way.is_plain:
            self._check_special(body, way)
        return way

    def _check_special(self, body: Common, way: Way) -> None:
        if way.decoding.is_on and way.kv_cache.is_on:
            raise Refused("decoding and kv_cache exclude each other: leave one out", param="decoding")
        if way.decoding.is_on and body.n > 1:
            raise Refused(f"decoding.method {way.decoding.method} gives one answer: leave n out", param="n")
        if way.top is not None or getattr(body, "echo", False):
            raise Refused("there are no log-probs of answers by a method or under a cache policy: leave them out", param="logprobs")

    def chat(self, body: ChatRequest) -> tuple[Task, Tokens]:
        """Return the conversation as a task, and its prompt, with the model's own system message and instruction. Raises Refused."""
        task = Task(tuple(message.to_plain() for message in body.messages))
        return self._rendered(add_instruction(with_system([task], self.system), self.instruction or "")[0])

    def _rendered(self, task: Task) -> tuple[Task, Tokens]:
        try:
            return task, render_prompt(self.model.tokenizer, task)
        except UserError as error:
            raise Refused(str(error), param="messages") from None

    def prompts(self, body: CompletionRequest) -> list[tuple[Task, Tokens]]:
        """Return the prompts of a completion, texts or token ids. Raises Refused for an empty one and for an unknown token."""
        given: list[Any] = (
            [body.prompt] if isinstance(body.prompt, str) or (body.prompt and isinstance(body.prompt[0], int)) else body.prompt
        )  # type: ignore[list-item]
        size = len(self.model.tokenizer)
        found = []
        for prompt in given:
            if isinstance(prompt, str) and (problem := text_problem(prompt)):
                raise Refused(f"the prompt {problem}", param="prompt")
            tokens = tuple(self.model.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt)
            if not tokens:
                raise Refused("the prompt is empty: give at least one token", param="prompt")
            if not all(0 <= token < size for token in tokens):
                raise Refused(f"the prompt has a token that the model does not have: ids are 0 to {size - 1}", param="prompt")
            found.append((Task(prompt if isinstance(prompt, str) else self.model.tokenizer.decode(prompt)), tokens))
        if not found:
            raise Refused("there is no prompt", param="prompt")
        return found

    def check_number(self, prompts: int, n: int) -> None:
        """Raise Refused for more samples than a request may have."""
        if prompts * n > self.settings.max_samples:
            raise Refused(f"{prompts * n} samples: this server gives {self.settings.max_samples} a request at most", param="n")

    # ------------------------------------------------------------------ prompts → choices

    async def choices(self, http: Request, body: Common, items: Sequence[tuple[Task, Tokens, Way]]) -> list[Choice]:
        """Answer prompts; the work ends if the client leaves."""
        inboxes: list[tuple[Inbox, EngineRequest]] = []
        jobs: list[Any] = []
        try:
            for place, (task, prompt, way) in enumerate(items):
                keys = self.model.keys(way, place * body.n, body.n)
                if way.max_new_tokens == 0:
                    continue
                if way.is_plain:
                    inboxes.append(self.model.begin(prompt, way, keys, streams=False))
                else:
                    jobs.append(self.model.scheduler.run(self._job(task, prompt, way, keys)))
            work = asyncio.gather(*(_drained(inbox) for inbox, _ in inboxes), *map(asyncio.wrap_future, jobs))
            found = await _unless_gone(http, work)
        finally:
            for _, request in inboxes:
                request.is_cancelled = True
            for job in jobs:
                job.cancel()
        if items[0][2].max_new_tokens == 0:
            return [Choice(finish="length") for _ in items]
        return [choice for own in found for choice in own]

    def _job(self, task: Task, prompt: Tokens, way: Way, keys: tuple[int, ...]) -> Callable[[], list[Choice]]:
        if way.decoding.is_on:
            return lambda: [self.model.decoded(task, prompt, way)]
        return lambda: self.model.viewed(prompt, way, keys)

    def count(self, prompts: Sequence[Tokens], choices: Sequence[Choice]) -> dict[str, int]:
        """Return the usage of a request, and count it."""
        read, written = sum(map(len, prompts)), sum(choice.num_tokens for choice in choices)
        self.metrics.prompt_tokens.inc(read)
        self.metrics.tokens.inc(written)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _drained(inbox: Inbox) -> list[Choice]:
    async for _ in inbox.pieces():
        pass
    return inbox.choices


async def _unless_gone(http: Request, work: "asyncio.Future[Any]") -> Any:
    """Wait for a result; if the client leaves before, cancel the work. Raises ClientGone."""
    while not work.done():
        await asyncio.wait([work], timeout=0.25)
        if not work.done() and await http.is_disconnected():
            work.cancel()
            raise ClientGone
    return work.result()


class ClientGone(Exception):
    """The client has left before its answer."""


def finish_of(choice: Choice | Piece) -> str:
    """Return the reason of an end in OpenAI's words."""
    return "stop" if choice.finish == "stop" else "length"


def build_app(model: Model, settings: ServeSettings, system: str | None = None, instruction: str | None = None) -> FastAPI:
    """Return the application; `system` and `instruction` are the model's own, for conversations."""
    server, key = Server(model, settings, system, instruction), settings.api_key

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(model.scheduler.close)

    def check_key(http: Request) -> None:
        given = http.headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and not hmac.compare_digest(given.encode(), key.encode()):
            raise Refused("the key is wrong or missing: send it as Authorization: Bearer KEY", status=401, code="invalid_api_key")

    app = FastAPI(title="etude", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    if settings.host in LOOPBACK:  # else a page that points its own name at this address could read answers
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]", "testserver"])
    app.add_middleware(BodyLimit, most_bytes=settings.max_body_bytes)
    app.add_middleware(Counted, count=lambda path, status: server.metrics.requests.labels(path, status).inc())

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse(error.to_json(), error.status, {"Retry-After": "1"} if error.status in (429, 503) else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse(Refused(f"{param or 'body'}: {first['msg']}", param=param or None).to_json(), 400)

    @app.exception_handler(HTTPException)
    async def wrong(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(Refused(str(error.detail), status=error.status_code).to_json(), error.status_code)

    @app.exception_handler(Closed)
    async def closed(_: Request, error: Closed) -> JSONResponse:
        return JSONResponse(Refused(str(error), status=503).to_json(), 503)

    @app.exception_handler(ClientGone)
    async def gone(_: Request, __: ClientGone) -> PlainTextResponse:
        return PlainTextResponse("", 499)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=error)
        return JSONResponse(Refused(f"the server failed: {type(error).__name__}", status=500).to_json(), 500)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(server.metrics.registry), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models", dependencies=[Depends(check_key)])
    async def models() -> dict[str, Any]:
        names = [model.name, *(f"{model.name}:{method}" for method in METHODS)]
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": server.started, "owned_by": "etude"} for name in names],
        }

    @app.get("/v1/models/{name:path}", dependencies=[Depends(check_key)])
    async def one_model(name: str) -> dict[str, Any]:
        alias(name, model.name)
        return {"id": name, "object": "model", "created": server.started, "owned_by": "etude"}

    @app.post("/v1/chat/completions", dependencies=[Depends(check_key)])
    async def chat(body: ChatRequest, http: Request) -> Any:
        task, prompt = server.chat(body)
        way = server.way(body, prompt)
        server.check_number(1, body.n)
        head: dict[str, Any] = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model}

        def delta(piece: Piece) -> dict[str, Any]:
            found = chat_logprobs(model.tokenizer, [piece.likely]) if piece.likely else None
            return {"delta": {"content": piece.text} if piece.text else {}, "logprobs": found}

        if body.stream:
            opening = [{"index": sample, "delta": {"role": "assistant", "content": ""}, "finish_reason": None} for sample in range(body.n)]
            kind = head | {"object": "chat.completion.chunk"}
            return _streamed(server, http, body, [(task, prompt, way)], kind, delta, opening)
        choices = await server.choices(http, body, [(task, prompt, way)])
        return head | {
            "object": "chat.completion",
            "choices": [
                {
                    "index": place,
                    "message": {"role": "assistant", "content": choice.text},
                    "logprobs": chat_logprobs(model.tokenizer, choice.likely) if body.logprobs else None,
                    "finish_reason": finish_of(choice),
                }
                for place, choice in enumerate(choices)
            ],
            "usage": server.count([prompt], choices),
        }

    @app.post("/v1/completions", dependencies=[Depends(check_key)])
    async def complete(body: CompletionRequest, http: Request) -> Any:
        prompts = server.prompts(body)
        server.check_number(len(prompts), body.n)
        items = [(task, prompt, server.way(body, prompt)) for task, prompt in prompts]
        head: dict[str, Any] = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time())}
        head |= {"model": body.model}

        def delta(piece: Piece) -> dict[str, Any]:
            found = piece.likely and completion_logprobs(model.tokenizer, [piece.likely], [piece.likely.token])
            return {"text": piece.text, "logprobs": found}

        if body.stream:
            if body.echo or body.max_tokens == 0:
                raise Refused("a stream has no echo, and at least one token: leave echo out, or ask without stream", param="echo")
            return _streamed(server, http, body, items, head, delta, [])
        choices = await server.choices(http, body, items)
        each = body.n if items[0][2].max_new_tokens else 1
        echoes = await _echoes(model, http, body, [prompt for _, prompt in prompts])
        shown = []
        for place, choice in enumerate(choices):
            _, prompt = prompts[place // each]
            before = model.tokenizer.decode(list(prompt), skip_special_tokens=False) if body.echo else ""
            found: dict[str, Any] | None = None
            if body.logprobs is not None:
                own = [None, *echoes[place // each], *choice.likely] if body.echo else list(choice.likely)
                tokens = [*prompt, *(each.token for each in choice.likely)] if body.echo else [each.token for each in choice.likely]
                found = completion_logprobs(model.tokenizer, own, tokens)
            shown.append({"index": place, "text": before + choice.text, "logprobs": found, "finish_reason": finish_of(choice)})
        return head | {"choices": shown, "usage": server.count([prompt for _, prompt in prompts], choices)}

    return app


async def _echoes(model: Model, http: Request, body: CompletionRequest, prompts: Sequence[Tokens]) -> list[Any]:
    """Return the log-probs of prompts, if the request wants them."""
    if not body.echo or body.logprobs is None:
        return []
    top = body.logprobs
    jobs = [model.scheduler.run(lambda prompt=prompt: model.echoed(prompt, top)) for prompt in prompts]  # type: ignore[misc]
    return list(await _unless_gone(http, asyncio.gather(*map(asyncio.wrap_future, jobs))))


def _streamed(
    server: Server,
    http: Request,
    body: Common,
    items: Sequence[tuple[Task, Tokens, Way]],
    head: dict[str, Any],
    delta: Callable[[Piece], dict[str, Any]],
    opening: Sequence[dict[str, Any]],
) -> StreamingResponse:
    """Answer as server-sent events; what can't be streamed token by token comes as one piece."""
    begun = [
        server.model.begin(prompt, way, server.model.keys(way, place * body.n, body.n), streams=True)
        for place, (_, prompt, way) in enumerate(items)
        if way.is_plain
    ]

    async def events() -> AsyncIterator[str]:
        start, choices = time.perf_counter(), [choice for inbox, _ in begun for choice in inbox.choices]
        try:
            for choice in opening:
                yield _event(head | {"choices": [choice]})
            pieces = _pieces_of(begun, body.n) if begun else _pieces_whole(server, http, body, items, choices)
            is_first = True
            async for place, piece in pieces:
                if is_first and piece.text:
                    server.metrics.first.observe(time.perf_counter() - start)
                    is_first = False
                if piece.text or piece.likely or piece.finish:
                    end = finish_of(piece) if piece.finish else None
                    yield _event(head | {"choices": [{"index": place, **delta(piece), "finish_reason": end}]})
            usage = server.count([prompt for _, prompt, _ in items], choices)
            if body.stream_options and body.stream_options.include_usage:
                yield _event(head | {"choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
        except Exception as error:  # the status is sent already: the error is an event
            is_ours = isinstance(error, Closed | Refused)
            yield _event(Refused(str(error) if is_ours else f"the server failed: {type(error).__name__}", status=503).to_json())
            if not is_ours:
                log.error("a stream failed", exc_info=error)
        finally:
            for _, request in begun:
                request.is_cancelled = True

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def _pieces_of(begun: Sequence[tuple[Inbox, EngineRequest]], n: int) -> AsyncIterator[tuple[int, Piece]]:
    """Yield the pieces of several prompts as they come, with the places of their choices."""
    queue: asyncio.Queue[tuple[int, Piece] | Exception | None] = asyncio.Queue()

    async def listen(place: int, inbox: Inbox) -> None:
        try:
            async for piece in inbox.pieces():
                queue.put_nowait((place * n + piece.sample, piece))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    listeners = [asyncio.create_task(listen(place, inbox)) for place, (inbox, _) in enumerate(begun)]
    try:
        left = len(listeners)
        while left:
            found = await queue.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        for listener in listeners:
            listener.cancel()


async def _pieces_whole(
    server: Server, http: Request, body: Common, items: Sequence[tuple[Task, Tokens, Way]], choices: list[Choice]
) -> AsyncIterator[tuple[int, Piece]]:
    """Yield whole answers, of a method of decoding or under a cache policy, and add them to `choices`."""
    choices += await server.choices(http, body, items)
    for place, choice in enumerate(choices):
        yield place, Piece(0, choice.text, None, choice.finish, choice.num_tokens)


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
