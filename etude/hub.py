"""Is the Hugging Face hub there? Asked once before a model or a data set is loaded from it.

Without a network huggingface_hub tries each file again for 25 s and says so in every line. Here one request is made, through
huggingface_hub's own client, so that proxies, certificates and a mirror in `HF_ENDPOINT` count. Any response at all means that the hub is
there. Without one huggingface_hub and datasets are in their offline mode for as long as the loading takes: what is in the cache is loaded,
anything else fails at once.

A name that can't be resolved and a connection that is refused are told at once. Where nothing answers, a connection has to be made within
`CONNECT_SECONDS`, and a response has to come within `RESPONSE_SECONDS` of that: a slow network is one that connects. `HF_HUB_ETAG_TIMEOUT`,
huggingface_hub's own variable for slow networks, takes the place of both.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

CONNECT_SECONDS = 2.0
RESPONSE_SECONDS = 10.0


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
