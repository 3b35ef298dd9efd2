"""Post-hoc attribution: against computations by hand, for every kind of network, and what is refused."""

import numpy as np
import pytest
import tiny
import torch
from functools import partial
from rekd.attribute import METHODS, attribute, document_scores, post_hoc
from rekd.data import Data
from rekd.errors import DataError, ModelError, SettingError
from rekd.documents import document_prob, judge_document, read_document
from rekd.evaluate import judge, replacement_difference
from rekd.objective import CLS
from rekd.select import topk_mask
from rekd.train import TrainConfig, fit

KINDS = [k for k in tiny.BACKBONES]
SHOWN = ("bert", "vit", "dinov2") # networks that show their attention


def make(kind, **options):
    model = tiny.make_model(kind, **options)
    return model, tiny.make_batch(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_network(kind, method):
    model, batch = make(kind)
    if method == "attention" and kind not in SHOWN:
        with pytest.raises(ModelError, match="shows no attention"): attribute(model, batch, method)
        return
    scores, selectable = attribute(model, batch, method), model.selectable(batch)
    assert scores.shape == batch["valid"].shape and scores.isfinite().all() and not scores.requires_grad
    assert (scores[~selectable] == 0).all() and (scores[selectable] != 0).any()
    assert all(p.grad is None for p in model.parameters())
    mask = topk_mask(scores, selectable, model.config.sparsity)
    assert replacement_difference(model, batch, mask, sees=torch.ones_like(mask)) > 0 and replacement_difference(model, batch, mask) == 0.0


@pytest.mark.parametrize("kind", ["bert", "bigru", "vit"])
def test_a_row_does_not_depend_on_the_others(kind):
    "Padding and neighbours in the batch change nothing."
    model, batch = make(kind)
    for method in set(METHODS) - ({"attention"} if kind == "bigru" else set()):
        together = attribute(model, batch, method)
        for i, n in enumerate(batch["valid"].sum(-1).tolist()):
            alone = {k: v[i:i + 1, :n] if k != "inputs" or kind != "vit" else v[i:i + 1] for k, v in batch.items() if v.ndim > 1}
            assert torch.allclose(together[i, :n], attribute(model, alone, method)[0], atol=1e-4), method


def test_gradient_x_input_is_the_sum_over_dimensions():
    model, batch = make("bert", pool="cls")
    net, target = model.predictor.backbone, torch.tensor([0, 1, 1])
    x = net.features(batch["inputs"]).detach().requires_grad_()
    logits = model.predictor.head(net.pool(net.encode(x, batch["valid"]), batch["valid"].float()))
    logits.gather(1, target[:, None]).sum().backward()
    by_hand = (x * x.grad).sum(-1).detach() * model.selectable(batch)
    assert torch.allclose(attribute(model, batch, "gradient_x_input", target), by_hand, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_integrated_gradients_are_complete(kind):
    model, batch = make(kind)
    selectable, target = model.selectable(batch), torch.tensor([1, 0, 1])
    with torch.no_grad(): change = model.predict(batch, selectable.float()) - model.predict(batch, 0.0 * selectable)
    total = METHODS["integrated_gradients"](model, batch, target, steps=200).detach().sum(-1)
    assert torch.allclose(total, change.gather(1, target[:, None])[:, 0], atol=0.02)


@pytest.mark.parametrize("kind", ["bert", "bigru", "vit"])
def test_occlusion_by_hand(kind):
    model, batch = make(kind)
    ones, target = model.selectable(batch).float(), torch.tensor([0, 0, 1])
    with torch.no_grad():
        full = model.predict(batch, ones)
        drop = [full - model.predict(batch, ones * (torch.arange(ones.shape[1]) != i)) for i in range(ones.shape[1])]
    by_hand = torch.stack([d.gather(1, target[:, None])[:, 0] for d in drop], 1) * ones
    assert torch.allclose(attribute(model, batch, "occlusion", target), by_hand, atol=1e-5)


@pytest.mark.parametrize("kind", SHOWN)
def test_attention_is_a_share(kind):
    "From [CLS], the attention to all features and to the network's own states adds up to 1."
    model, batch = make(kind, pool="cls")
    scores = METHODS["attention"](model, batch).detach()
    assert (scores >= 0).all() and (scores.sum(-1) <= 1 + 1e-5).all()
    if kind == "bert": assert torch.allclose(scores.sum(-1), torch.ones(3), atol=1e-5) and (scores[~batch["valid"]] < 1e-6).all()
    assert not any(m._forward_hooks for m in model.modules())


def test_the_class_to_explain():
    model, batch = make("bert")
    with torch.no_grad(): said = model.predict(batch, torch.ones(batch["valid"].shape)).argmax(-1)
    assert torch.equal(attribute(model, batch), attribute(model, batch, target=said))
    assert torch.equal(attribute(model, batch, target=1), attribute(model, batch, target=torch.ones(3).long()))
    assert not torch.equal(attribute(model, batch, target=0), attribute(model, batch, target=1))


def test_without_gradients_around_it():
    "A caller under no_grad gets the same scores."
    model, batch = make("bert")
    outside = attribute(model, batch)
    with torch.no_grad(): assert torch.equal(attribute(model, batch), outside)


@pytest.mark.parametrize("name, hint", [("oclusion", "did you mean 'occlusion'"), ("integrated", "did you mean 'integrated_gradients'"), (7, "must be one of")])
def test_unknown_method(text_model, name, hint):
    with pytest.raises(SettingError, match=hint.replace("'", ".")): attribute(text_model, tiny.make_batch("bert"), name)


def test_raw_inputs(text_model, image_model):
    texts, pictures = ["good kala", "dull mamo kele lu"], tiny.images(2, 0)
    assert torch.equal(attribute(text_model, texts), attribute(text_model, text_model.processor(texts)))
    assert attribute(image_model, pictures).shape == (2, 16)
    one, many = post_hoc(text_model, texts[1]), post_hoc(text_model, texts)
    assert one.mask == many[1].mask and len(many) == 2 and sum(one.mask) == sum(text_model.explain(texts[1]).mask)
    assert all(0 <= s <= 1 for e in many for s in e.scores) and "<mark" in one._repr_html_()
    assert post_hoc(image_model, pictures[0]).features[5] == (1, 1)
    with pytest.raises(DataError): post_hoc(text_model, [3])


def test_post_hoc_says_that_it_marked_afterwards(text_model):
    text = tiny.text_data().test.rows[0]["input"]
    e, own = post_hoc(text_model, text, sparsity=0.5), text_model.explain(text)
    assert e.to_dict()["post_hoc"] and "post_hoc" not in own.to_dict()
    assert f"from all {len(e.mask)} features, {sum(e.mask)} marked afterwards" in e._repr_html_() and 'title="score' in e._repr_html_()
    assert f"from {sum(own.mask)} of {len(own.mask)} features" in own._repr_html_() and 'title="keep probability' in own._repr_html_()


def test_a_text_that_is_no_list_is_refused_and_an_empty_list_has_no_explanations(text_model):
    with pytest.raises(DataError, match="expected a list of texts"): attribute(text_model, "good")
    assert post_hoc(text_model, []) == text_model.explain([]) == []


def test_post_hoc_predicts_from_everything(text_model):
    text = "good kala kele dull mamo"
    batch = text_model.processor([text])
    with torch.no_grad(): p = text_model.predict(batch, torch.ones(batch["valid"].shape)).softmax(-1)[0]
    assert np.allclose(list(post_hoc(text_model, text).probabilities.values()), p.tolist())
    assert sum(post_hoc(text_model, text, sparsity=0.6).mask) == round(0.6 * len(post_hoc(text_model, text).mask))


def test_judge_with_methods(text_model):
    part = tiny.text_data().test
    j = judge(text_model, part, partial(attribute, method="occlusion"), shares=[0.25])
    for i in (0, 3): assert j["masks"][i][0].tolist() == post_hoc(text_model, part.rows[i]["input"], "occlusion", 0.25).mask


def test_documents_explain_their_common_class(text_model):
    text_model.processor.max_length = 8
    text = " ".join(tiny.planted_texts(6, 0)[0])
    batch, _ = read_document(text_model.processor, text)
    with torch.no_grad(): said = int(document_prob(text_model)(batch, torch.ones(batch["valid"].shape)).argmax())
    assert torch.equal(document_scores("gradient_x_input")(text_model, batch), attribute(text_model, batch, "gradient_x_input", said))
    j = judge_document(text_model, text, document_scores("gradient_x_input"), shares=[0.25])
    assert j["full"][0].argmax() == said and j["scores"].shape == (len(text.split()),)


@pytest.mark.trains
def test_planted_words_are_found():
    "A classifier of one telling word: all but attention, which asks for no class, rank that word first."
    parts = [tiny.planted_texts(n, i) for i, n in enumerate((300, 40, 60))]
    data = Data(*(tiny.text_examples(*p[:2]) for p in parts), tiny.LABELS)
    model = tiny.make_model("bigru", 0, dropout=0.0)
    fit(model, data, CLS(), TrainConfig(epochs=4, batch_size=16, lr=4e-3), 0, quiet=True)
    for method in set(METHODS) - {"attention"}:
        best = attribute(model.eval(), parts[2][0], method)[:, 1:].argmax(-1) # the first is [CLS]
        assert (best == torch.tensor(parts[2][2])).double().mean() > 0.9, method


def test_attention_is_read_where_it_is_fused():
    "On a GPU attention is one fused step; for this one pass the plain way is taken, and then the fused one again."
    model, batch = make("bert")
    net = model.eval().predictor.backbone.net
    net.set_attn_implementation("eager")
    plain = attribute(model, batch, "attention")
    net.set_attn_implementation("sdpa")
    assert torch.allclose(attribute(model, batch, "attention"), plain, atol=1e-6)
    assert net.config._attn_implementation == "sdpa"

def test_a_class_that_is_none_is_refused(text_model):
    with pytest.raises(SettingError, match=r"target must be a whole number in \[0, 1\], got 2"): attribute(text_model, ["a good film"], target=2)
