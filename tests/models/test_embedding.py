"""Texts as vectors: the model that ships in a package, and what is said where it can't be had."""

import numpy as np
import pytest

import etude.models.embedding
from etude.errors import UserError
from etude.models.embedding import load_embedder


@pytest.mark.filterwarnings("ignore")  # of libraries, while they load
def test_texts_of_similar_meaning_are_nearer():
    vectors = load_embedder()(["The capital of Australia is Canberra.", "Canberra is Australia's capital city.", "He was born in 1889."])
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    assert np.allclose((vectors**2).sum(-1), 1, atol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.9 and cosines[0, 2] < 0.2


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_embedding_model_or_a_missing_library_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="can't be loaded"):
        load_embedder(str(tmp_path))
    monkeypatch.setattr(etude.models.embedding, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'etude\[semantic\]'"):
        load_embedder("somebody/model")
