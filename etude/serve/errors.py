"""Errors as OpenAI's interface tells them: one sentence, a status, and the field at fault."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from etude.errors import UserError
from etude.serve.protocol import Refused
from etude.serve.scheduler import Closed

log = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client has left before its answer."""


def as_refused(error: Exception) -> Refused:
    """Return what the client is told of an error; one that is not the client's is logged."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Closed):
        return Refused(str(error), status=503)
    if isinstance(error, UserError):
        return Refused(str(error))
    log.error("a request failed", exc_info=error)
    return Refused(f"the server failed: {type(error).__name__}", status=500)


def add_error_handlers(app: FastAPI) -> None:
    """Make an application tell its errors so."""

    async def failed(_: Request, error: Exception) -> JSONResponse:
        found = as_refused(error)
        return JSONResponse(found.to_json(), found.status, {"Retry-After": "1"} if found.status in (429, 503) else None)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"] if part != "body")
        return await failed(request, Refused(f"{param or 'body'}: {first['msg']}", param=param or None))

    async def wrong(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return await failed(request, Refused(str(error.detail), status=error.status_code))

    async def gone(_: Request, __: Exception) -> PlainTextResponse:
        return PlainTextResponse("", 499)

    for kind, handler in (*((kind, failed) for kind in (Refused, Closed, UserError, Exception)), (RequestValidationError, invalid)):
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(HTTPException, wrong)
    app.add_exception_handler(ClientGone, gone)
