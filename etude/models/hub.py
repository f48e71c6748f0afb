"""Checks once that the Hugging Face hub is reachable, before a model or a data set is loaded from it.

Without a network huggingface_hub retries each file for 25 s and prints every attempt. Here one request is sent, through huggingface_hub's
own client, so that proxies, certificates and a mirror in `HF_ENDPOINT` apply. Any response means that the hub is reachable. Without a
response, huggingface_hub and datasets are in offline mode during loading: cached files are loaded, anything else fails at once.

An unknown host name and a refused connection are reported at once. Otherwise a connection must be made within `CONNECT_SECONDS`, and a
response must come within `RESPONSE_SECONDS` after that: a slow network still connects. `HF_HUB_ETAG_TIMEOUT`, huggingface_hub's own
variable for slow networks, replaces both.

A command checks before it imports slow modules (`check_available`), so that a wrong name is reported at once.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from etude.errors import UserError

CONNECT_SECONDS = 2.0
RESPONSE_SECONDS = 10.0
ID = re.compile(r"[\w.-]+/[\w.-]+")
"""The form of a model's or data set's id on the hub."""


def is_hub_id(name: str) -> bool:
    """Tell whether a model or data set is on the hub, by the form of its name."""
    is_local = name.startswith((".", "~")) or name.endswith(".gguf") or Path(name).exists()
    return bool(ID.fullmatch(name)) and not is_local


def check_available(model: str | None = None, dataset: str | None = None) -> None:
    """Raise UserError if a model or data set needs the hub, which is unreachable, and no part of it is in the cache."""
    named = {kind: name for kind, name in (("model", model), ("dataset", dataset)) if name is not None and is_hub_id(name)}
    lacking = {kind: name for kind, name in named.items() if not _is_cached(kind, name)}
    if lacking:
        with hub_if_reachable() as unreachable:
            for kind, name in lacking.items() if unreachable else ():
                raise missing_and_unreachable(kind, name, str(unreachable))


def missing_and_unreachable(kind: str, name: str, unreachable: str) -> UserError:
    """Return the error for a model or data set that is not in the cache while the hub is unreachable."""
    instead = "name a folder" if kind == "model" else "give a file with tasks.path"
    return UserError(
        f"{kind} {name!r} is not in the cache, and {unreachable}: load it once where there is a network, {instead}, or set HF_ENDPOINT "
        "to a mirror"
    )


def _is_cached(kind: str, name: str) -> bool:
    """Tell whether any part is in the cache: files of the hub, or tables that `datasets` created from a data set."""
    from huggingface_hub import constants

    places = [Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"]
    if kind == "dataset":
        tables = os.environ.get("HF_DATASETS_CACHE", os.path.join(constants.HF_HOME, "datasets"))
        places.append(Path(tables).expanduser() / name.replace("/", "___"))
    return any(place.is_dir() for place in places)


@contextmanager
def hub_if_reachable() -> Iterator[str | None]:
    """Load from the hub and its cache within the context, or only from the cache if the hub is unreachable; yields the reason, or None."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        yield "HF_HUB_OFFLINE is set"
        return
    problem = _problem(constants.ENDPOINT)
    if problem is None:
        yield None
        return
    with ExitStack() as offline:
        for module in filter(None, (constants, sys.modules.get("datasets.config"))):  # which is not imported for a model
            offline.callback(setattr, module, "HF_HUB_OFFLINE", vars(module)["HF_HUB_OFFLINE"])
            vars(module)["HF_HUB_OFFLINE"] = True
        yield f"{constants.ENDPOINT} can't be reached ({problem})"


def _problem(endpoint: str) -> str | None:
    """Describe why the hub cannot be reached; None if it responds."""
    from huggingface_hub.utils import get_session

    etag_timeout = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    connect, response = (float(etag_timeout),) * 2 if etag_timeout.isdigit() else (CONNECT_SECONDS, RESPONSE_SECONDS)
    connected, ended = threading.Event(), threading.Event()
    problems: list[str] = []

    def trace(event: str, _: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            connected.set()

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=response, follow_redirects=False, extensions={"trace": trace})
        except Exception as error:  # the client, and so its errors, depend on huggingface_hub
            problems.append(str(error) or type(error).__name__)
        finally:
            connected.set()
            ended.set()

    begun = time.monotonic()
    threading.Thread(target=ask, daemon=True).start()  # resolving a name has no time limit of its own
    if not connected.wait(connect):
        return f"no connection within {connect:g} s; set HF_HUB_ETAG_TIMEOUT to more seconds where the network is slow"
    if not ended.wait(response):
        return f"no response within {time.monotonic() - begun:.0f} s"
    return problems[0] if problems else None
