"Whole words and sentences, kept or dropped together: in the batch, in the model, in what is counted and shown."

import json
from pathlib import Path
import pytest
import tiny
import torch
from rekd.attribute import attribute
from rekd.cli import main
from rekd.documents import explain_document
from rekd.errors import DataError, ModelError, SettingError
from rekd.evaluate import replacement_difference
from rekd.loss import phrase_loss
from rekd.model import ModelConfig, RationaleModel, build_model
from rekd.objective import RE, REKD, RandomMask, Reader, StepContext
from rekd.processor import TextProcessor, first_pieces, spread, unit_sum
from test_presets import home, world # noqa: F401 -- fixtures

TEXT = "good, kakaka was dull. lala mimi! Is it?"


def make_model(unit, seed=0, **options):
    torch.manual_seed(seed)
    processor = TextProcessor(tiny.text_processor().tokenizer, 40, unit)
    return RationaleModel(ModelConfig(tiny.BACKBONES["bert"], tiny.LABELS, sparsity=0.5, **options), processor).eval()


def batch_of(model, *texts): return model.processor(list(texts)) | dict(labels=torch.tensor([i % 2 for i in range(len(texts))]), index=torch.arange(len(texts)))


def test_pieces_find_their_word_and_their_sentence():
    tokenizer = tiny.text_processor().tokenizer
    spans = tokenizer(TEXT, return_offsets_mapping=True)["offset_mapping"]
    of = lambda unit: [[TEXT[slice(*s)] for s, f in zip(spans, first_pieces(TEXT, spans, unit)) if f == at and s[1]] for at in sorted(set(first_pieces(TEXT, spans, unit)))]
    assert [" ".join(w) for w in of("word") if w] == ["good ,", "kakaka", "was", "dull .", "lala", "mimi !", "Is", "it ?"]
    assert [" ".join(w) for w in of("sentence") if w] == ["good , kakaka was dull .", "lala mimi !", "Is it ?"]
    one = 'He said "no." Then 3.5 of them\nleft'
    spans = [(i, i + 1) for i in range(len(one))]
    firsts = sorted(set(first_pieces(one, spans, "sentence")))
    assert [one[a] for a in firsts] == ["H", "T", "l"]


@pytest.mark.parametrize("unit", ["word", "sentence"])
def test_a_unit_has_one_score_and_one_fate(unit):
    model = make_model(unit)
    batch = batch_of(model, TEXT, "good dull.", "kaka la. lu")
    able, logits = model.selectable(batch), model.select(batch)
    assert torch.equal(logits, spread(logits, batch))
    units = [len([w for w in t.split()]) if unit == "word" else n for t, n in ((TEXT, 3), ("good dull.", 1), ("kaka la. lu", 2))]
    assert able.sum(-1).tolist() == units
    plain = model.generator(batch["inputs"], batch["valid"])
    first = able[0].nonzero()[0].item()
    assert torch.allclose(logits[0, first], plain[0][batch["unit"][0] == first].mean(0), atol=1e-6)
    seen, forward = [], model.predictor.forward
    model.predictor.forward = lambda inputs, valid, mask: seen.append(mask) or forward(inputs, valid, mask)
    kept = model.mask(logits, able, "topk")
    model.predict(batch, kept)
    assert torch.equal(seen[0], spread(seen[0], batch)) and (kept.sum(-1) == (able.sum(-1) * 0.5).round().clamp(min=1)).all()
    assert (unit_sum(seen[0], batch)[kept > 0] == unit_sum(torch.ones_like(kept), batch)[kept > 0]).all()


@pytest.mark.parametrize("objective", [RE(), RE(estimator="score"), RE(estimator="exact"), RandomMask(), Reader()])
def test_objectives_count_units(objective):
    model = make_model("word").train()
    loss, parts = objective(model, batch_of(model, TEXT, "good dull. la"), StepContext(1.0, 0.5, seed=1))
    loss.backward()
    assert loss.isfinite() and 0 <= parts.get("kept", torch.tensor(0.5)) <= 1
    assert any(p.grad is not None and p.grad.abs().sum() for p in model.predictor.parameters())


def test_other_content_in_dropped_sentences_moves_nothing():
    model = make_model("sentence")
    batch = batch_of(model, TEXT, "good dull. la lu. kaka")
    mask = model.mask(model.select(batch), model.selectable(batch), "topk")
    assert replacement_difference(model, batch, mask) == 0
    assert replacement_difference(model, batch, mask, torch.ones_like(mask)) > 0


def test_what_is_shown_is_whole():
    model = make_model("sentence")
    e = model.explain(TEXT)
    assert e.features == ["good, kakaka was dull.", "lala mimi!", "Is it?"] and sum(e.mask) == 2 and [TEXT[a:b] for a, b in e.spans] == e.features
    d = explain_document(model, TEXT)
    assert sum(d.mask) == sum(len(f.split()) for f, m in zip(e.features, e.mask) if m)
    scores = attribute(model, [TEXT], "integrated_gradients")
    assert (scores[0] != 0).sum() <= 3


def test_a_saved_model_keeps_its_unit(tmp_path):
    model = make_model("word")
    model.save_pretrained(tmp_path / "m")
    again = RationaleModel.from_pretrained(tmp_path / "m")
    assert again.processor.unit == "word" and again.explain(TEXT).features == model.explain(TEXT).features
    assert json.loads((tmp_path / "m" / "config.json").read_text())["processor"] == dict(max_length=40, unit="word")
    assert tiny.text_processor().to_dict() == dict(max_length=40)
    with pytest.raises(ModelError, match="must have the same unit: the teacher has 'sentence', the student 'word'"): REKD(make_model("sentence", 1)).fits(model)


def test_words_and_sentences_train_from_the_command_line(home): # noqa: F811
    small = "n_train=20 n_test=8 val_share=0.5 epochs=1 batch_size=5".split()
    for unit in ("word", "sentence"):
        main(["train", "demo", "--objective", "re", "--out", unit, "--set", f"unit={unit}", "sparsity=0.3", *small])
        main(["evaluate", unit, "--json", "e.json"])
        row = json.loads((Path(unit) / "row.json").read_text())
        assert {r["mask"]: r["selection_rate"] for r in json.loads(Path("e.json").read_text())} == {m: v["selection_rate"] for m, v in row["masks"].items()}
    assert row["masks"]["topk"]["selection_rate"] == 1 # reviews of one sentence
    main(["report", "word", "--examples", "2", "--out", "r.html"])
    with pytest.raises(SystemExit, match="unit"): main(["train", "demo", "--objective", "re", "--set", "unit=phrase", *small])
    with pytest.raises(SettingError, match="is for texts"): build_model("vit-small-patch14", ["a", "b"], unit="word", image_size=28)


def test_ids_alone_do_not_tell_words():
    from rekd.auto import RekdConfig, RekdForClassification
    model = make_model("word")
    with pytest.raises(DataError, match="keeps whole words"): RekdForClassification(RekdConfig(**vars(model.config)), model)(torch.tensor([[2, 5, 3]]))


def test_phrases_cost_by_the_change_and_only_where_asked(image_model):
    model, batch = tiny.make_model("bert"), tiny.make_batch("bert", lengths=(12, 30, 9))
    batch["labels"] = batch.get("labels", torch.zeros(3, dtype=torch.long))
    context = StepContext(1.0, 0.1, seed=5)
    plain, parts = RE()(model, batch, context)
    charged, told = RE(phrase_lambda=0.25)(model, batch, context)
    assert "phrase" not in parts and told["phrase"] > 0
    assert (charged - plain).item() == pytest.approx(0.25 * told["phrase"].item(), rel=1e-4)
    grad = torch.autograd.grad(charged - plain, model.generator.head.parameters() if hasattr(model.generator, "head") else list(model.generator.parameters())[-2:])
    assert any(g.abs().max() > 0 for g in grad)
    mask = torch.tensor([[1., 1, 0, 0, 1], [0, 1, 0, 1, 0]])
    able = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]).bool()
    assert phrase_loss(mask, able).tolist() == [2, 2] # what cannot be kept is no neighbour
    with pytest.raises(SettingError, match="reads pictures"): RE(phrase_lambda=0.1).fits(image_model)
    with pytest.raises(SettingError, match="phrase_lambda"): RE(phrase_lambda=-1)
    with pytest.raises(SettingError, match="reads pictures"): REKD(image_model, phrase_lambda=0.1).fits(tiny.make_model("vit"))
