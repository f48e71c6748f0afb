"""Is the Hugging Face hub there? Asked once before a model or a data set is loaded from it.

Without a network huggingface_hub tries each file again for 25 s and says so in every line. Here one request is made, through
huggingface_hub's own client, so that proxies, certificates and a mirror in `HF_ENDPOINT` count. Any response at all means that the hub is
there. Without one huggingface_hub and datasets are in their offline mode for as long as the loading takes: what is in the cache is loaded,
anything else fails at once.

A name that can't be resolved and a connection that is refused are told at once. Where nothing answers, a connection has to be made within
`CONNECT_SECONDS`, and a response has to come within `RESPONSE_SECONDS` of that: a slow network is one that connects. `HF_HUB_ETAG_TIMEOUT`,
huggingface_hub's own variable for slow networks, takes the place of both.

A command asks before it imports what takes seconds (`check_there`), so that a name which is nowhere is told at once.
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
"""What a model or data set of the hub is called."""


def is_hub_id(name: str) -> bool:
    """Whether a model or data set is one of the hub, as far as its name tells."""
    is_local = name.startswith((".", "~")) or name.endswith(".gguf") or Path(name).exists()
    return bool(ID.fullmatch(name)) and not is_local


def check_there(model: str | None = None, dataset: str | None = None) -> None:
    """Raise UserError where the names of a model or a data set are of the hub, which is not there, and nothing is in the cache."""
    named = {kind: name for kind, name in (("model", model), ("dataset", dataset)) if name is not None and is_hub_id(name)}
    lacking = {kind: name for kind, name in named.items() if not _is_cached(kind, name)}
    if lacking:
        with hub_if_reachable() as unreachable:
            for kind, name in lacking.items() if unreachable else ():
                raise nowhere(kind, name, str(unreachable))


def nowhere(kind: str, name: str, unreachable: str) -> UserError:
    """What is said of a model or data set that is not in the cache where there is no hub."""
    instead = "name a folder" if kind == "model" else "give a file with tasks.path"
    return UserError(
        f"{kind} {name!r} is not in the cache, and {unreachable}: load it once where there is a network, {instead}, or set HF_ENDPOINT "
        "to a mirror"
    )


def _is_cached(kind: str, name: str) -> bool:
    """Whether anything of it was loaded before: files of the hub, or of a data set the tables that `datasets` made of it."""
    from huggingface_hub import constants

    places = [Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"]
    if kind == "dataset":
        tables = os.environ.get("HF_DATASETS_CACHE", os.path.join(constants.HF_HOME, "datasets"))
        places.append(Path(tables).expanduser() / name.replace("/", "___"))
    return any(place.is_dir() for place in places)


@contextmanager
def hub_if_reachable() -> Iterator[str | None]:
    """What is loaded within comes from the hub and its cache, or from the cache alone where there is no hub; gives why there is none."""
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
    """Why the hub can't be reached, in words; None where it answers."""
    from huggingface_hub.utils import get_session

    told = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    connect, response = (float(told),) * 2 if told.isdigit() else (CONNECT_SECONDS, RESPONSE_SECONDS)
    connected, ended = threading.Event(), threading.Event()
    problems: list[str] = []

    def trace(event: str, _: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            connected.set()

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=response, follow_redirects=False, extensions={"trace": trace})
        except Exception as error:  # of the client, which huggingface_hub chooses
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
