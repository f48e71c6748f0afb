"""What Prometheus reads at /metrics."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from etude.serve.scheduler import Scheduler


class Metrics:
    """The counts of a server."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("etude_requests", "Requests by path and status", ["path", "status"], **made)
        self.prompt_tokens = Counter("etude_prompt_tokens", "Tokens of prompts", **made)
        self.tokens = Counter("etude_generation_tokens", "Tokens of answers", **made)
        self.first = Histogram("etude_time_to_first_token_seconds", "Seconds from a streamed request to its first text", **made)
        Gauge("etude_running_samples", "Samples that are decoded", **made).set_function(lambda: scheduler.running)
        Gauge("etude_waiting_requests", "Requests that wait", **made).set_function(lambda: scheduler.waiting)


class Counted:
    """Counts replies by route and status; stands before the application."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(getattr(scope.get("route"), "path", "other"), message["status"]).inc()
            await send(message)

        await self.app(scope, receive, told)
