"""Attempts that continue after tokens that are not all their own: the whole prefix is passed to the engine as a prompt."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from etude.engine.completion import Completion
from etude.engine.settings import Sampling

if TYPE_CHECKING:
    from etude.engine.protocols import Engine

Place = TypeVar("Place", bound=Hashable)


def continued(
    engine: "Engine",
    prefixes: Mapping[Place, tuple[int, ...]],
    keys: Mapping[Place, int],
    max_new_tokens: int,
    sampling: Sampling,
    stop_strings: Sequence[str] = (),
) -> dict[Place, Completion]:
    """Return a completion of each prefix, with its key; equal prefixes are computed once."""
    places: dict[tuple[int, ...], list[Place]] = {}
    for place, prefix in prefixes.items():
        places.setdefault(prefix, []).append(place)
    drawn = engine.generate(
        list(places),
        num_samples=max(map(len, places.values())),
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        keys=[[keys[place] for place in those] for those in places.values()],
        stop_strings=stop_strings,
    )
    return {
        place: completion
        for those, completions in zip(places.values(), drawn, strict=True)
        for place, completion in zip(those, completions, strict=True)
    }
