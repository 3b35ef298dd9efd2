"""Data with one telling word: rationale extraction has to find it, which can be measured exactly."""

import pytest
import tiny
import torch
from rekd.data import Data
from rekd.objective import CLS, RE
from rekd.train import TrainConfig, validate, fit, warm_start

pytestmark = pytest.mark.trains


def found(model, texts, places):
    "F1 of the words that the top-k rationale keeps, against the planted ones."
    kept = [{i for i, k in enumerate(e.mask) if k} for e in model.explain(texts)]
    hits = sum(p in k for p, k in zip(places, kept))
    return 2 * hits / (sum(map(len, kept)) + len(places))


def plant(seed):
    "400 texts of ten words, one of which tells the class; a model that may keep one word in ten, trained first as a classifier, as RE's warm start."
    parts = [tiny.planted_texts(n, seed + i) for i, n in enumerate((400, 100, 200))]
    data = Data(*(tiny.text_examples(*p[:2]) for p in parts), tiny.LABELS)
    model = tiny.make_model("bigru", seed, sparsity=0.1, dropout=0.0)
    fit(model, data, CLS(), TrainConfig(epochs=3, batch_size=16, lr=4e-3), seed, quiet=True)
    return model, data, parts[2]


@pytest.mark.parametrize("seed", [0, 10])
def test_re_finds_the_planted_words(seed):
    model, data, (texts, _, places) = plant(seed)
    torch.manual_seed(seed)
    model.config.selects = True # it does not, and `explain` would refuse: what would it have shown?
    blind = found(model, texts, places)
    config = TrainConfig(epochs=7, batch_size=16, lr=4e-3, decay=True, T_start=2.0, T_end=0.5, T_every=1, sparsity_start=0.5, eval_mask="topk")
    fit(warm_start(model), data, RE(0.1), config, seed, quiet=True)
    assert found(model, texts, places) > 0.9 and blind < 0.5 # before: by chance
    assert validate(model, data.test, "topk")["accuracy"] > 0.9
