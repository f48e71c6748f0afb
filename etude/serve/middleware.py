"""What stands before the routes: a limit on the size of bodies, and a count of replies."""

from collections.abc import Callable
from typing import Any

from fastapi.responses import JSONResponse

from etude.serve.protocol import Refused


class BodyLimit:
    """Refuses bodies over a number of bytes, whatever their headers say."""

    def __init__(self, app: Any, most_bytes: int) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most_bytes:
            return await self._refuse(scope, receive, send)
        body, is_whole = b"", False
        while not is_whole:  # without a length that can be trusted the body is read here, up to the limit
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body, is_whole = body + message.get("body", b""), not message.get("more_body", False)
            if len(body) > self.most_bytes:
                return await self._refuse(scope, receive, send)
        is_told = False

        async def whole() -> Any:
            nonlocal is_told
            if is_told:
                return await receive()
            is_told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, whole, send)

    async def _refuse(self, scope: Any, receive: Any, send: Any) -> None:
        error = Refused(f"the body has more than {self.most_bytes} bytes", status=413)
        await JSONResponse(error.to_json(), error.status)(scope, receive, send)


class Counted:
    """Counts replies by route and status."""

    def __init__(self, app: Any, count: Callable[[str, int], None]) -> None:
        self.app, self.count = app, count

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.count(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        await self.app(scope, receive, told)
