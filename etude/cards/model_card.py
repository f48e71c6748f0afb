"""The card of a saved model for a model hub: its base model, training, results, licence and use.

Names are untrusted (folders, files, families), so HTML and Markdown in them are escaped. Paths of this machine are removed; only the name
of a file is shown.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult

from etude.cards.hub_metadata import hub_metadata, origin
from etude.cards.usage import PromptExample, usage_section
from etude.models.hub import is_hub_id
from etude.models.load import BUNDLED, TINY, describe_weights

_CARD = """---
{head}---

# {recipe}

{base}, {story} The run's seed is {seed}.{adapters}

{results}

## Licence

{licence} Mind those of {data} too.

## Use

{use}

{closing}
"""


@dataclass(frozen=True)
class ModelCard:
    """The contents of a card; texts are Markdown."""

    recipe: str
    seed: int
    base: str
    """The model that the run began with."""
    story: str
    """What was done with it; continues the sentence that begins with its name."""
    results: str
    """Sections with tables."""
    data: str
    """The data, whose licences apply too."""
    closing: str
    datasets: Sequence[str | None] = ()
    evaluations: Sequence[EvalResult] = ()

    def text(self, example: PromptExample, *, is_adapter: bool = False) -> str:
        """Render the card of the model, or of its adapters."""
        library = "peft" if is_adapter else "transformers"
        _, licence = origin(self.base)
        return _CARD.format(
            head=hub_metadata(self.recipe, self.base, library=library, datasets=self.datasets, results=self.evaluations),
            recipe=escaped(self.recipe),
            base=escaped(display_name(self.base)),
            story=self.story,
            seed=self.seed,
            adapters=" These are the adapters alone." if is_adapter else "",
            results=self.results,
            licence=f"The base model's is {licence}." if licence else "That of the base model holds.",
            data=self.data,
            use=usage_section(example, is_adapter=is_adapter),
            closing=self.closing,
        )

    def write(self, run: Path, example: PromptExample) -> None:
        """Write `README.md` into the folders of a run's model, and of its adapters if there are any."""
        for folder in ("model", "adapter"):
            if (run / folder).is_dir():
                (run / folder / "README.md").write_text(self.text(example, is_adapter=folder == "adapter"), encoding="utf-8")


def display_name(model: str) -> str:
    """Return the name of a model without a path of this machine."""
    return describe_weights(model) if model in BUNDLED or model == TINY or is_hub_id(model) else Path(model).name


def escaped(value: str) -> str:
    """Escape a name for Markdown and HTML, on one line."""
    line = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", line)
