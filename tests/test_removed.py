"dropped='remove': what is taken out, what is refused, and what a shallow generator does."

import copy
import pytest
import tiny
import torch
from rekd.backbone import PLACED
from rekd.check import check_backbone
from rekd.data import loader
from rekd.errors import SettingError
from rekd.evaluate import replacement_difference
from rekd.model import ModelConfig, RationaleModel, build_model
from rekd.objective import RE, REKD, StepContext
from rekd.pretrained import backbone_from_config
from rekd.preset import resolve
from rekd.processor import ImageProcessor
from rekd.registry import load_plugins
from rekd.train import TrainConfig, fit, validate, validate_masks, warm_start
from test_plugins import my_cnn # noqa: F401 -- a fixture

KINDS = [(kind, pool) for kind in ("bert", "vit", "dinov2", "timm") for pool in ("cls", "mean")] + [("bigru", "mean")]
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=len(tiny.VOCAB), max_position_embeddings=64)


def masks(batch, n, seed=0):
    "Random masks of unequal sizes, [CLS] and [SEP] kept."
    g = torch.Generator().manual_seed(seed)
    for _ in range(n): yield (torch.rand(batch["valid"].shape, generator=g) < torch.rand(len(batch["valid"]), 1, generator=g)) & batch["valid"] | batch["special"]


def check_removal(model, batch):
    "Nothing leaks, all features are the plain network, and each example answers alone as in its batch."
    zero = copy.deepcopy(model.predictor)
    zero.dropped = "zero"
    with torch.no_grad():
        plain = zero(batch["inputs"], batch["valid"], batch["valid"].float())
        assert torch.allclose(model.predict(batch, batch["valid"].float()), plain, atol=1e-5, rtol=0)
        for kept in masks(batch, 10):
            assert replacement_difference(model, batch, kept.float()) == 0
            answer = model.predict(batch, kept.float())
            for i in range(len(kept)):
                one = {k: v[i:i + 1] for k, v in batch.items()}
                assert torch.allclose(model.predict(one, kept[i:i + 1].float())[0], answer[i], atol=1e-5, rtol=0)
        assert (answer - zero(batch["inputs"], batch["valid"], kept.float())).abs().max() > 1e-3 # a gap is no blank


def double(batch): return {k: v.double() if v.dtype == torch.float32 else v for k, v in batch.items()}


@pytest.mark.parametrize("kind, pool", KINDS)
def test_what_is_removed_moves_nothing(kind, pool):
    check_removal(tiny.make_model(kind, pool=pool, dropped="remove").double(), double(tiny.make_batch(kind)))


def test_the_word_cnn_of_the_chapter_closes_up(my_cnn): # noqa: F811
    load_plugins(my_cnn)
    model = RationaleModel(ModelConfig(dict(model_type="wordcnn", vocab_size=len(tiny.VOCAB), hidden_size=16), tiny.LABELS, pool="mean", dropped="remove"), tiny.text_processor())
    check_removal(model.double().eval(), tiny.make_batch())
    assert check_backbone(model.predictor.backbone.float(), model.processor)["gone"] < 1e-4


@pytest.mark.parametrize("kind", PLACED)
def test_words_that_are_gone_are_words_that_attention_may_not_see(kind):
    shape = dict(dim=32, n_layers=2, n_heads=2, hidden_dim=64, vocab_size=len(tiny.VOCAB), max_position_embeddings=64) if kind == "distilbert" else SIZES
    backbone, batch = backbone_from_config(dict(model_type=kind, **shape)).double().eval(), tiny.make_batch()
    assert backbone.removable
    features = backbone.features(batch["inputs"])
    first = backbone.net.embeddings.position_embeddings.padding_idx
    places = torch.arange(features.shape[1]).expand(features.shape[:2]) + (0 if first is None else first + 1)
    with torch.no_grad():
        for kept in masks(batch, 5):
            hidden, there = backbone.encode_kept(features, kept)
            masked = backbone.net(inputs_embeds=features * kept.unsqueeze(-1), attention_mask=kept.long(), position_ids=places).last_hidden_state
            assert torch.allclose(hidden[there], masked[kept], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", tiny.IMAGES)
def test_patches_that_are_gone_are_patches_that_attention_may_not_see(kind):
    backbone, batch = tiny.make_model(kind).double().predictor.backbone, double(tiny.make_batch(kind))
    features = backbone.features(batch["inputs"])
    with torch.no_grad():
        for kept in masks(batch, 5):
            hidden, there = backbone.encode_kept(features, kept)
            seen = torch.cat([kept.new_ones(len(kept), 1), kept], 1)
            x = backbone.placed(features * kept.unsqueeze(-1))
            forbid = torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)[:, None, None]
            for layer in backbone.layers(): x = layer(x, **{"attn_mask" if kind == "timm" else "attention_mask": forbid})
            mine, theirs = torch.cat([hidden[:, :1].flatten(0, 1), hidden[:, 1:][there]]), torch.cat([x[:, :1].flatten(0, 1), x[:, 1:][kept]])
            assert torch.allclose(mine, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ("bert", "bigru"))
def test_a_rationale_of_nothing_is_one_blank(kind):
    model, batch = tiny.make_model(kind, pool="mean", select_special=True, dropped="remove"), tiny.make_batch(kind)
    kept = torch.zeros(batch["valid"].shape)
    kept[1, 2] = 1
    with torch.no_grad(): answer = model.predict(batch, kept)
    assert answer.isfinite().all() and torch.equal(answer[0], answer[2]) and replacement_difference(model, batch, kept) == 0


@pytest.mark.parametrize("backbone, says", [(dict(model_type="mpnet", **SIZES), "'mpnet'"), (dict(model_type="deberta-v2", **SIZES), "'deberta-v2'")])
def test_other_networks_refuse_by_name(backbone, says):
    with pytest.raises(SettingError, match=says): RationaleModel(ModelConfig(backbone, tiny.LABELS, dropped="remove"), tiny.text_processor())


def test_a_convolutional_network_and_a_dropped_cls_refuse():
    resnet = dict(model_type="timm", architecture="resnet18", options=dict(patch_size=8))
    with pytest.raises(SettingError, match="timm/ResNet"): RationaleModel(ModelConfig(resnet, tiny.LABELS, dropped="remove"), ImageProcessor(32, 8))
    with pytest.raises(SettingError, match="select_special=False"): tiny.make_model(select_special=True, dropped="remove")


@pytest.mark.parametrize("estimator", ("gumbel", "exact", "hardkuma"))
def test_estimators_that_ask_dropped_features_refuse_by_name(estimator, text_data):
    model, teacher = tiny.make_model(dropped="remove"), tiny.make_model(seed=1)
    for objective in (RE(estimator=estimator), REKD(teacher, estimator=estimator)):
        with pytest.raises(SettingError, match="cannot learn with dropped='remove'"): fit(model, text_data, objective, TrainConfig(epochs=1), quiet=True)
    with pytest.raises(SettingError, match="estimator='score'"): # a loop of one's own
        RE(estimator=estimator)(model, tiny.make_batch(), StepContext(T=1.0, sparsity=0.25))
    with pytest.raises(SettingError, match=estimator): resolve("demo", "re", overrides={"dropped": "remove", "estimator": estimator})


@pytest.mark.parametrize("kind", ("bert", "timm"))
def test_the_score_function_trains_it_and_it_comes_back(kind, tmp_path, text_data, image_data):
    data = image_data if kind == "timm" else text_data
    model, teacher = tiny.make_model(kind, dropped="remove", generator_layers=1), tiny.make_model(kind, seed=1)
    for objective in (RE(estimator="score:draws=2"), REKD(teacher, estimator="score:draws=2,exact=false")):
        fit(model, data, objective, TrainConfig(epochs=1, batch_size=8, eval_mask="topk"), quiet=True)
    model.save_pretrained(tmp_path / "m")
    again = RationaleModel.from_pretrained(tmp_path / "m")
    assert (again.config.dropped, again.config.generator_layers, again.predictor.dropped) == ("remove", 1, "remove")
    assert validate(again, data.val) == validate(model, data.val)
    assert "taken out" in (tmp_path / "m" / "README.md").read_text()
    warm_start(again)
    mine, theirs = (net.backbone.state_dict() for net in (again.generator, again.predictor))
    assert len(mine) < len(theirs) and all(torch.equal(w, theirs[k]) for k, w in mine.items())


def test_a_model_of_before_answers_as_before():
    model, batch = tiny.make_model(), tiny.make_batch()
    assert (model.config.dropped, model.config.generator_layers) == ("zero", None)
    net, kept = model.predictor.backbone, next(masks(batch, 1)).float()
    with torch.no_grad():
        hidden = net.encode(net.features(batch["inputs"]) * kept.unsqueeze(-1), batch["valid"])
        assert torch.equal(model.predict(batch, kept), model.predictor.head(net.pool(hidden, kept)))


def test_a_saved_model_begins_another_one(tmp_path):
    saved = tiny.make_model(pool="mean", seed=3)
    saved.save_pretrained(tmp_path / "saved")
    model = build_model(str(tmp_path / "saved"), tiny.LABELS, pool="mean", generator_layers=1, dropped="remove", max_length=40)
    for net, theirs in ((model.generator, saved.generator), (model.predictor, saved.predictor)):
        assert all(torch.equal(w, theirs.backbone.state_dict()[k]) for k, w in net.backbone.state_dict().items())
    assert len(model.generator.backbone.net.encoder.layer) == 1 and len(model.predictor.backbone.net.encoder.layer) == 2
    with pytest.raises(SettingError, match="9"): build_model(str(tmp_path / "saved"), tiny.LABELS, pool="mean", generator_layers=9)


def test_several_masks_ask_the_generator_once_a_batch(text_data):
    model, asked = tiny.make_model(), []
    names = ("topk", "deterministic", "sampled", "random", "none")
    apart = {m: validate(model, text_data.test, m) for m in names}
    model.generator.register_forward_hook(lambda *_: asked.append(1))
    assert validate_masks(model, text_data.test, names) == apart # bit for bit
    assert len(asked) == len(list(loader(text_data.test, [[*range(len(text_data.test))]])))
