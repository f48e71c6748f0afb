"""Client of an OpenAI-compatible server: chat messages in, replies out (POST BASE/chat/completions).

A request ends after `timeout_seconds`, whatever the server does (`etude.llm_client.deadline`). Status 429, 5xx and broken connections are
retried with doubled waiting times, or after the time that the server asks for.

A problem of one request (a time-out, a refusal, a reply without an answer) leaves that request without a reply. A problem of all requests
(no server, no such model, no permission, too many requests to the end) raises `UserError` if no request was answered and a plain test
question after them is not answered either. So a run stops and can be resumed, instead of learning from nothing. If the test question is
answered, the texts were refused.

No redirect is followed, and a key for an http address is sent through no proxy that could read it: the key only goes to the named address.
Nothing that is returned or raised contains it: it is replaced in the server's text before anything is cut.
"""

import http.client
import json
import os
import queue
import threading
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from etude.errors import UserError
from etude.llm_client.deadline import DeadlineExceeded, HTTPByDeadline, HTTPSByDeadline
from etude.llm_client.model import ChatModel, Messages, Reply

WAIT_SECONDS = 0.5
"""Waiting time before the first retry."""
_LONGEST_WAIT_SECONDS = 60.0
_MAX_BYTES = 8 * 2**20
_LONGEST_SAID = 300
_NOBODY, _BUSY = 0, 429
_OUTAGE = frozenset({_NOBODY, 301, 302, 303, 307, 308, 401, 402, 403, 404, 405, _BUSY, 502, 503})
"""Statuses that concern all requests alike."""
_READY: Messages = ({"role": "user", "content": "Reply with the one word: ready"},)


class _Failed(Exception):
    """A request without a reply: the problem, and the server's own text, whole."""

    def __init__(self, problem: str, said: str = "", *, status: int = 200, again: bool = False, wait_seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.said, self.status, self.again, self.wait_seconds = said, status, again, wait_seconds

    def __str__(self) -> str:
        said = " ".join(self.said.split())[:_LONGEST_SAID]
        return f"{self.args[0]}: {said}" if said else str(self.args[0])

    @property
    def is_outage(self) -> bool:
        return self.status in _OUTAGE


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint:
    """A client that asks the server in several threads, which end with the process."""

    def __init__(self, settings: ChatModel) -> None:
        """Read the API key and prepare the connection. Raises UserError if the key's variable is not set or holds no key."""
        assert settings.url is not None and settings.model is not None
        self.settings = settings
        self._address = f"{settings.url.rstrip('/')}/chat/completions"
        self._key = os.environ.get(settings.api_key_env, "").strip() if settings.api_key_env else ""
        if settings.api_key_env and not self._key:
            raise UserError(
                f"{settings.section}.api_key_env: the environment variable {settings.api_key_env} is not set: put the API key there"
            )
        if not all("!" <= character <= "~" for character in self._key):
            raise UserError(
                f"{settings.section}.api_key_env: {settings.api_key_env} holds no API key: it has blanks or letters outside of ASCII"
            )
        is_in_the_clear = bool(self._key) and urlsplit(settings.url).scheme == "http"
        self._opener = build_opener(_NoRedirect, HTTPByDeadline, HTTPSByDeadline, *([ProxyHandler({})] if is_in_the_clear else []))

    def check(self) -> None:
        """Ask one test question, so that an unusable server is found before there is work. Raises UserError."""
        try:
            self._posted(_READY)
        except _Failed as failed:
            if failed.status != _BUSY:
                raise self._unusable(failed) from None

    def ask(self, conversations: Sequence[Messages]) -> list[Reply]:
        """Return a reply to each conversation, in order.

        Raises UserError if none was answered and the problem would affect all others too.
        """
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Reply | _Failed | Exception, int]] = queue.SimpleQueue()
        stopped = threading.Event()
        for place in range(len(conversations)):
            todo.put(place)

        def work() -> None:
            while not stopped.is_set():
                try:
                    place = todo.get_nowait()
                except queue.Empty:
                    return
                done.put((place, *self._tried(conversations[place], stopped)))

        for _ in range(min(self.settings.concurrency, len(conversations))):
            threading.Thread(target=work, name=self.settings.section, daemon=True).start()
        replies: dict[int, Reply] = {}
        outages: list[_Failed] = []
        try:
            while len(replies) < len(conversations):
                place, found, retries = done.get()
                if isinstance(found, _Failed):
                    outages += [found] if found.is_outage else []
                    found = Reply(None, f"the {self.settings.section} did not answer: {found}", retries)
                elif isinstance(found, Exception):
                    raise found
                replies[place] = found
        finally:
            stopped.set()
        if conversations and len(outages) == len(conversations):
            self._confirm(outages)
        return [replies[place] for place in range(len(conversations))]

    def _confirm(self, outages: Sequence[_Failed]) -> None:
        """Raise UserError unless a plain question is answered, which shows that only these texts were refused."""
        try:
            for failed in outages:
                if failed.status == _BUSY:  # which is wrong with no text, whatever is answered now
                    raise failed
            self._posted(_READY)
        except _Failed as failed:
            raise self._unusable(failed) from None

    def _tried(self, messages: Messages, stopped: threading.Event) -> tuple[Reply | Exception, int]:
        """Return the reply or the failure, and the number of retries."""
        retries = 0
        while True:
            try:
                return self._posted(messages)._replace(retries=retries), retries
            except _Failed as failed:
                wait = max(WAIT_SECONDS * 2**retries, failed.wait_seconds)
                if not failed.again or retries == self.settings.retries or stopped.wait(min(wait, _LONGEST_WAIT_SECONDS)):
                    return failed, retries
                retries += 1
            except Exception as error:  # passed on to the waiting thread
                return error, retries

    def _posted(self, messages: Messages) -> Reply:
        """Send a request and return the reply, or raise _Failed; the key is hidden in all text from the server."""
        try:
            reply = self._answered(messages)
        except _Failed as failed:
            failed.said = self._hidden(failed.said)
            raise
        return reply._replace(text=self._hidden(_replace_surrogates(reply.text or "")))

    def _answered(self, messages: Messages) -> Reply:
        settings = self.settings
        body = {
            "model": settings.model,
            "messages": list(messages),
            "temperature": settings.temperature,
            "max_tokens": settings.max_new_tokens,
        }
        body = {name: value for name, value in {**body, **settings.extra_body}.items() if value is not None}
        headers = {"Content-Type": "application/json", "User-Agent": "etude"} | (
            {"Authorization": f"Bearer {self._key}"} if self._key else {}
        )
        request = Request(self._address, json.dumps(body).encode(), headers, method="POST")
        try:
            with self._opener.open(request, timeout=settings.timeout_seconds) as response:
                return _reply(_read(response))
        except HTTPError as error:
            with error:
                raise _status_failure(error) from None
        except (URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, DeadlineExceeded):
                raise _Failed(f"no reply within {settings.timeout_seconds:g} s") from None
            said = str(reason) or type(error).__name__
            raise _Failed("no connection", said, status=_NOBODY, again=True) from None

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _unusable(self, failed: _Failed) -> UserError:
        who = self.settings.section
        return UserError(
            f"{who}.url {self.settings.url} can't be used as a {who} ({failed}): see that the server runs, and that {who}.url, {who}.model "
            f"and {who}.api_key_env are right; a run that has begun goes on with --resume"
        )


def _replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can spell and no file can hold."""
    return text.encode(errors="replace").decode()


def _read(response: Any) -> bytes:
    """Read the whole body. Raises _Failed if it is too long."""
    found = bytearray()
    while piece := response.read1(1 << 16):
        found += piece
        if len(found) > _MAX_BYTES:
            raise _Failed(f"a reply of more than {_MAX_BYTES} bytes")
    return bytes(found)


def _status_failure(error: HTTPError) -> _Failed:
    try:
        said = _read(error).decode(errors="replace")
    except (_Failed, OSError, http.client.HTTPException):
        said = ""
    again = error.code == _BUSY or error.code >= 500
    asked_for = error.headers.get("Retry-After") or ""
    wait_seconds = float(asked_for) if asked_for.isdecimal() and asked_for.isascii() else 0.0
    return _Failed(f"status {error.code}", said, status=error.code, again=again, wait_seconds=wait_seconds)


def _reply(body: bytes) -> Reply:
    try:
        choice = json.loads(body)["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _Failed("no chat completion", body.decode(errors="replace")) from None
    if not isinstance(text, str):
        raise _Failed("a chat completion without text")
    return Reply(text, is_cut_off=finish == "length")
