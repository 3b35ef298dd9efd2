"""What the architecture promises: nothing dropped leaks, padding is nothing, all ones is the plain classifier, saving loses nothing."""

import copy
import dataclasses
import json
import pytest
import tiny
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from rekd.objective import CLS, RE, REKD, StepContext, gumbel
from rekd.loss import prediction_kd_loss
from rekd.model import ModelConfig, RationaleModel
from rekd.train import validate
from tiny import BACKBONES, IMAGES, TEXTS, make_batch, make_model

KINDS = [*TEXTS, *IMAGES]
MASKS = ["topk", "deterministic", "sampled"]
AT = StepContext(T=1.3, sparsity=0.25)
# two models of each kind, built once; they are in eval mode and no test changes their weights
MODELS = {(kind, special): make_model(kind, select_special=special) for kind in KINDS for special in (False, True)}
kinds, seeds = st.sampled_from(KINDS), st.integers(0, 10_000)
lengths = st.lists(st.integers(3, 20), min_size=1, max_size=4).map(tuple) # [CLS], a word or more, [SEP]
cases = given(kinds, lengths, seeds, st.booleans())


def some_mask(batch, seed, share=0.5):
    "0/1 everywhere, padding and special tokens included."
    return (torch.rand(batch["valid"].shape, generator=torch.Generator().manual_seed(seed)) < share).float()


def padded(batch, columns):
    "The same texts with more padding."
    wider = lambda x, value: torch.nn.functional.pad(x, (0, columns), value=value)
    return batch | {k: wider(batch[k], v) for k, v in dict(inputs=0, valid=False, special=False).items()}


def scrambled(kind, batch, where, seed):
    "Other words or pixels at the features `where` is true."
    g = torch.Generator().manual_seed(seed + 1)
    if kind in TEXTS: return batch | dict(inputs=torch.where(where, torch.randint(len(tiny.VOCAB), where.shape, generator=g), batch["inputs"]))
    side, p = tiny.SIZE // tiny.PATCH, tiny.PATCH
    pixels = where.unflatten(1, (side, side)).repeat_interleave(p, 1).repeat_interleave(p, 2).unsqueeze(1) # (B, 1, H, W)
    return batch | dict(inputs=torch.where(pixels, torch.randn(batch["inputs"].shape, generator=g) * 5, batch["inputs"]))


# --- nothing dropped leaks ---

@cases
@torch.no_grad()
def test_dropped_features_and_padding_do_not_reach_the_prediction(kind, lengths, seed, special):
    model, batch = MODELS[kind, special], make_batch(kind, seed, lengths)
    mask = some_mask(batch, seed)
    gone = ~batch["valid"] | (model.selectable(batch) & ~mask.bool())
    other = scrambled(kind, batch, gone, seed)
    assert (model.predict(batch, mask) - model.predict(other, mask)).abs().max() == 0.0


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_kept_features_do_reach_the_prediction(kind):
    "The test above would pass for a model that reads nothing."
    model, batch = MODELS[kind, False], make_batch(kind)
    mask = some_mask(batch, 0)
    kept = model.selectable(batch) & mask.bool()
    assert kept.any(-1).all()
    change = (model.predict(batch, mask) - model.predict(scrambled(kind, batch, kept, 0), mask)).abs().amax(-1)
    assert (change > 1e-4).all()


@given(st.sampled_from(TEXTS), lengths, seeds)
@torch.no_grad()
def test_padding_does_not_reach_the_selection(kind, lengths, seed):
    model, batch = MODELS[kind, False], make_batch(kind, seed, lengths)
    other = scrambled(kind, batch, ~batch["valid"], seed)
    assert torch.equal(model.select(batch)[batch["valid"]], model.select(other)[batch["valid"]])


def test_special_tokens_are_kept_whatever_the_mask_unless_they_may_be_dropped():
    batch = make_batch()
    nothing, special = torch.zeros_like(some_mask(batch, 0)), batch["special"].float()
    change = lambda model: (model.predict(batch, nothing) - model.predict(batch, special)).abs().max()
    assert change(MODELS["bert", False]) == 0 and change(MODELS["bert", True]) > 1e-4


# --- padding is nothing ---

@given(st.sampled_from(TEXTS), lengths, seeds, st.booleans(), st.integers(1, 12))
@torch.no_grad()
def test_more_padding_changes_nothing(kind, lengths, seed, special, columns):
    model, batch = MODELS[kind, special], make_batch(kind, seed, lengths)
    wider, L = padded(batch, columns), batch["valid"].shape[1]
    logits, more = model.select(batch), model.select(wider)
    torch.testing.assert_close(more[:, :L][batch["valid"]], logits[batch["valid"]], atol=1e-5, rtol=0)
    mask = some_mask(wider, seed) # may well be 1 on padding
    torch.testing.assert_close(model.predict(wider, mask), model.predict(batch, mask[:, :L]), atol=1e-5, rtol=0)


@cases
@torch.no_grad()
def test_no_mask_selects_padding_or_special_tokens(kind, lengths, seed, special):
    model, batch = MODELS[kind, special], make_batch(kind, seed, lengths)
    selectable = model.selectable(batch)
    assert torch.equal(selectable, batch["valid"] if special else batch["valid"] & ~batch["special"])
    logits = torch.randn(*batch["valid"].shape, 2, generator=torch.Generator().manual_seed(seed))
    for how in MASKS:
        mask = model.mask(logits, selectable, how)
        assert not (mask.bool() & ~selectable).any() and set(mask.unique().tolist()) <= {0.0, 1.0}
    counts = selectable.sum(-1)
    assert torch.equal(model.mask(logits, selectable).sum(-1), torch.maximum((counts * 0.25).round(), torch.tensor(1.0)))
    all_kept = model.mask(torch.tensor([0.0, 9.0]).expand(logits.shape), selectable, "deterministic")
    assert torch.equal(all_kept.bool(), selectable)


@torch.no_grad()
@pytest.mark.parametrize("special", [False, True])
def test_padding_is_not_counted_by_the_losses(special, monkeypatch):
    "Under the same noise, RE and REKD of a batch and of the same batch with more padding are the same."
    noise = [torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    student, batch = MODELS["bert", special], make_batch()
    teacher = make_model("bert", 1, select_special=special)
    def parts(objective, batch):
        left = iter(noise)
        for module in ("select", "context"): monkeypatch.setattr(f"rekd.{module}.gumbel_noise", lambda logits, generator=None: next(left)[:, :logits.shape[1]])
        return {k: v.item() for k, v in objective(student, batch, AT)[1].items()}
    for objective in (RE(0.1), REKD(teacher, 0.1)):
        assert parts(objective, padded(batch, 9)) == pytest.approx(parts(objective, batch), abs=1e-5)


def test_selection_rate_counts_selectable_features_only(text_model):
    data = tiny.text_data().test # 6 to 10 words
    words = [n - 2 for n in data.lengths]
    kept = sum(max(1, round(n * 0.25)) for n in words)
    assert validate(text_model, data, "topk", batch_size=3)["selection_rate"] == pytest.approx(kept / sum(words))
    assert validate(text_model, data, "none", batch_size=3)["selection_rate"] == 1.0


def test_mask_refuses_a_name_it_does_not_know(text_model):
    with pytest.raises(ValueError, match="topk.*deterministic.*sampled"): text_model.mask(torch.zeros(1, 4, 2), torch.ones(1, 4).bool(), "top-k")


# --- all ones is the plain classifier ---

def plain(model, kind, batch):
    "The network's own forward pass, read from the [CLS] state (or the mean of real words), and one linear layer."
    net = model.predictor.backbone
    if kind == "bert": hidden = net.net(input_ids=batch["inputs"], attention_mask=batch["valid"].long()).last_hidden_state
    elif kind == "timm": hidden = net.net.forward_features(batch["inputs"])
    elif kind == "bigru":
        states = [net.gru(net.words(ids[ok])[None])[0][0].mean(0) for ids, ok in zip(batch["inputs"], batch["valid"])]
        return model.predictor.head(torch.stack(states))
    else: # the final norm is not applied: the last of `hidden_states`, from a whole network of transformers with our weights
        whole = {"vit": transformers.ViTModel, "dinov2": transformers.Dinov2Model}[kind](net.net.config, **({"add_pooling_layer": False} if kind == "vit" else {})).eval()
        missing, unexpected = whole.load_state_dict(net.net.state_dict(), strict=False)
        assert not unexpected and all(k.startswith("layernorm.") or k.endswith("mask_token") for k in missing)
        hidden = whole(pixel_values=batch["inputs"], output_hidden_states=True).hidden_states[-1]
    return model.predictor.head(hidden[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_all_ones_is_the_plain_classifier_exactly(kind, special):
    model, batch = MODELS[kind, special], make_batch(kind)
    ours, theirs = model.predict(batch, torch.ones(batch["valid"].shape)), plain(model, kind, batch)
    if kind == "bert": assert torch.equal(ours, theirs)
    else: torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0) # other kernels or another order of sums
    loss = CLS()(model, batch, AT)[0]
    torch.testing.assert_close(loss, -theirs.log_softmax(-1)[range(len(theirs)), batch["labels"]].mean(), atol=2e-6, rtol=0)


@cases
@torch.no_grad()
def test_all_ones_equals_no_mask_at_all(kind, lengths, seed, special):
    "The mask multiplies features by exactly one."
    model, batch = MODELS[kind, special], make_batch(kind, seed, lengths)
    net = model.predictor.backbone
    hidden = net.encode(net.features(batch["inputs"]), batch["valid"])
    theirs = model.predictor.head(net.pool(hidden, batch["valid"].float()))
    assert torch.equal(model.predict(batch, torch.ones(batch["valid"].shape)), theirs)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_mean_pooling_is_over_kept_features(kind):
    model = make_model(kind, pool="mean")
    batch, net = make_batch(kind), model.predictor.backbone
    mask = some_mask(batch, 0) * model.selectable(batch)
    kept = (mask + (batch["valid"] & ~model.selectable(batch))).bool()
    hidden = net.encode(net.features(batch["inputs"]) * kept[..., None], batch["valid"])[:, net.prefix:]
    theirs = model.predictor.head(torch.stack([h[k].mean(0) for h, k in zip(hidden, kept)]))
    torch.testing.assert_close(model.predict(batch, mask), theirs, atol=1e-6, rtol=0)


# --- distillation at rest ---

@cases
@settings(max_examples=20)
@torch.no_grad()
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_under_shared_noise(kind, lengths, seed, special):
    student, batch = MODELS[kind, special], make_batch(kind, seed, lengths)
    twin, other = copy.deepcopy(student), copy.deepcopy(student)
    for p in other.parameters(): p.mul_(1.05)
    for noise in ("shared", "none"):
        torch.manual_seed(seed)
        parts = REKD(twin, noise=noise)(student, batch, AT)[1]
        assert parts["kd_r"] == 0.0 and parts["kd_y"] == 0.0
        assert REKD(other, noise=noise)(student, batch, AT)[1]["kd_r"] > 1e-9
    assert REKD(twin)(student, batch, AT)[1]["kd_r"] > 1e-3 # the paper's independent noise has a floor


def test_the_remembered_teacher_is_the_teacher(text_model):
    teacher, data = make_model("bert", 1), tiny.text_data()
    at_once, looked_up = REKD(teacher), REKD(teacher).remember([data.train.collate([data.train[i] for i in range(24)])])
    batch = data.train.collate([data.train[i] for i in (5, 11, 2)])
    assert not batch["valid"].all()
    def parts(objective):
        torch.manual_seed(0)
        return {k: v.item() for k, v in objective(text_model, batch, AT)[1].items()}
    assert parts(looked_up) == pytest.approx(parts(at_once), abs=1e-5)
    assert len(looked_up.cache) == 24


@torch.no_grad()
def test_alpha_1_is_re_with_a_teacher_who_watches(text_model):
    teacher, batch = make_model("bert", 1), make_batch("bert", 0, [7, 5, 9])
    at = dataclasses.replace(AT, seed=3)
    model = copy.deepcopy(text_model).eval()
    alone, parts = RE(0.1)(model, batch, at)
    watched, more = REKD(teacher, 0.1, alpha=1.0)(model, batch, at)
    assert watched.item() == pytest.approx(alone.item()) and more["kept"] == parts["kept"] and "kd_y" not in more
    assert 0 <= more["agreement"] < 1 == REKD(copy.deepcopy(model), alpha=1.0)(model, batch, at)[1]["agreement"]


@torch.no_grad()
def test_the_teacher_may_predict_from_its_own_rationale(text_model):
    teacher, batch, model = make_model("bert", 1), make_batch("bert", 0, [7, 5, 9]), copy.deepcopy(text_model).eval()
    at = dataclasses.replace(AT, seed=3)
    own = teacher.mask(teacher.select(batch), teacher.selectable(batch), "topk", at.sparsity)
    mask = gumbel(model.select(batch), model.selectable(batch), at.of(batch), lambda mask: mask.sum(-1))[1]
    for kd_mask, read in (("student", mask), ("teacher", own)):
        expected = prediction_kd_loss(model.predict(batch, mask), teacher.predict(batch, read), at.T)
        assert REKD(teacher, kd_mask=kd_mask)(model, batch, at)[1]["kd_y"].item() == pytest.approx(expected.item(), abs=1e-6)
    with pytest.raises(ValueError, match="kd_mask"): REKD(teacher, kd_mask="both")


@torch.no_grad()
def test_what_a_teacher_says_from_its_own_rationale_is_remembered_at_its_size(text_model, monkeypatch):
    teacher, data, model = make_model("bert", 1), tiny.text_data(), copy.deepcopy(text_model).eval()
    batch = data.train.collate([data.train[i] for i in (5, 11, 2)])
    at = dataclasses.replace(AT, seed=3)
    asked, wider = (REKD(teacher, kd_mask="teacher")(model, batch, a)[1]["kd_y"].item() for a in (at, dataclasses.replace(at, sparsity=0.9)))
    assert wider != asked # so that the size matters
    told = REKD(teacher, kd_mask="teacher").remember([data.train.collate([data.train[i] for i in range(24)])], sparsity=at.sparsity)
    assert told(model, batch, dataclasses.replace(at, sparsity=0.9))[1]["kd_y"].item() == pytest.approx(wider, abs=1e-6)
    plain = type(teacher).predict
    monkeypatch.setattr(type(teacher), "predict", lambda who, batch, mask: pytest.fail("the teacher was asked again") if who is teacher else plain(who, batch, mask))
    assert told(model, batch, at)[1]["kd_y"].item() == pytest.approx(asked, abs=1e-6)
    assert not REKD(teacher).remember([batch], sparsity=at.sparsity).cache_classes # it reads the student's mask, which changes


# --- saving ---

def same(a, b):
    assert a.keys() == b.keys()
    for k in a: assert a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]), k


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_before_the_heads_makes_them_blind_to_scale(kind):
    "Heads with a norm read a hundredth of a hidden state as they read the whole; heads without one do not."
    for norm in (True, False):
        model = make_model(kind, 3, norm=norm).eval()
        for head in (model.generator.head, model.predictor.head):
            hidden = torch.randn(4, next(p for p in head.parameters() if p.dim() == 2).shape[1]) * 3 + 1
            assert torch.allclose(head(hidden), head(hidden / 100), atol=2e-2) == norm


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("share", ["generator", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_loses_nothing(kind, share, half, tmp_path):
    model = make_model(kind, 3, freeze_embeddings=share, sparsity=0.35, dropout=0.2, norm=share == "both")
    if half: model.half()
    model.save_pretrained(tmp_path / "a")
    loaded = RationaleModel.from_pretrained(tmp_path / "a")
    assert not loaded.training and loaded.config == model.config and loaded.processor.to_dict() == model.processor.to_dict()
    same(loaded.state_dict(), model.float().state_dict()) # half precision is for the disk: what is loaded computes in float32
    batch = make_batch(kind)
    assert torch.equal(loaded.select(batch), model.select(batch))
    assert torch.equal(loaded.predict(batch, some_mask(batch, 0)), model.predict(batch, some_mask(batch, 0)))
    frozen = lambda m: [k for k, p in m.named_parameters() if not p.requires_grad]
    assert frozen(loaded) == frozen(model)
    (loaded.half() if half else loaded).save_pretrained(tmp_path / "b")
    for name in ("model.safetensors", "config.json"): assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("kind", TEXTS)
def test_a_shared_word_table_is_stored_once_and_stays_shared(kind, tmp_path):
    for share in ("generator", "both"): make_model(kind, freeze_embeddings=share).save_pretrained(tmp_path / share)
    size = lambda share: (tmp_path / share / "model.safetensors").stat().st_size
    assert size("generator") - size("both") > 0.9 * len(tiny.VOCAB) * 32 * 4
    loaded = RationaleModel.from_pretrained(tmp_path / "both")
    mine, other = (n.backbone.embeddings()[0].weight for n in (loaded.generator, loaded.predictor))
    assert mine is other and not mine.requires_grad


def test_explanations_survive_saving(tmp_path, text_model, image_model):
    for model, x in ((text_model, "kala good MENO, xyzzy!"), (image_model, tiny.images(1, 0, 20)[0])):
        model.save_pretrained(tmp_path / type(model.processor).__name__)
        before, after = (m.explain(x).to_dict() for m in (model, RationaleModel.from_pretrained(tmp_path / type(model.processor).__name__)))
        assert before == after and json.loads(json.dumps(after))


def test_an_explanation_is_about_the_words_of_the_text(text_model):
    text, one = "ka good me, bad ni", text_model.explain("ka good me, bad ni")
    assert one.features == [text[a:b] for a, b in one.spans] and "".join(one.features).replace(" ", "") == text.replace(" ", "")
    assert len(one.features) == len(one.mask) == len(one.scores) and sum(one.mask) == max(1, round(0.25 * len(one.mask)))
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5) and one.label == max(one.probabilities, key=one.probabilities.get)
    kept = sorted(s for s, m in zip(one.scores, one.mask) if m)
    assert kept[0] >= max(s for s, m in zip(one.scores, one.mask) if not m)
    several = text_model.explain([text, "ka"]) # the same beside another text, that is padded
    assert [e.features for e in several] == [one.features, ["ka"]] and several[0].mask == one.mask
    assert several[0].scores == pytest.approx(one.scores, abs=1e-5)


def test_explaining_leaves_the_mode_as_it_was(text_model):
    for training in (True, False):
        text_model.train(training).explain("ka good")
        assert text_model.training is training


def test_an_image_explanation_names_every_patch(image_model):
    e = image_model.explain(tiny.images(1, 0)[0])
    assert e.features == [(r, c) for r in range(4) for c in range(4)] and sum(e.mask) == 4


def test_a_save_that_fails_leaves_the_old_folder_as_it_was(tmp_path, text_model, monkeypatch):
    text_model.save_pretrained(tmp_path / "m")
    before = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}
    def fail(*args, **kwargs): raise OSError("disk full")
    monkeypatch.setattr(type(text_model.processor.tokenizer), "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"): make_model("bert", 9).save_pretrained(tmp_path / "m")
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()} == before


def test_a_folder_of_another_format_is_refused(tmp_path, text_model):
    text_model.save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(format=99)))
    with pytest.raises(ValueError, match="format"): RationaleModel.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("bad", [dict(norm=1), dict(sparsity=0.0), dict(sparsity=1.5), dict(freeze_embeddings="all"), dict(pool="max")])
def test_an_impossible_config_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))): RationaleModel(ModelConfig(BACKBONES["bert"], tiny.LABELS, **bad), tiny.text_processor())


# --- what learns ---

@pytest.mark.parametrize("objective", ["re", "rekd"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_networks_learn_and_the_teacher_does_not(kind, objective):
    model, teacher = make_model(kind), make_model(kind, 1)
    loss, _ = (RE(0.1) if objective == "re" else REKD(teacher, 0.1))(model, make_batch(kind), AT)
    loss.backward()
    for n in (model.generator, model.predictor): assert all(p.grad.abs().sum() > 0 for p in n.head.parameters())
    assert all(p.grad is None for m in (teacher.generator, teacher.predictor) for p in m.parameters())
    assert all(t.weight.grad is None for t in model.generator.backbone.embeddings())
    assert all(t.weight.grad.abs().sum() > 0 for t in model.predictor.backbone.embeddings())


def test_spans_of_a_text_with_half_a_character(text_model):
    text = "good \ud83d bad"
    assert [text[a:b] for a, b in text_model.processor.spans(text) if b > a] == ["good", "bad"]


def test_roberta_reads_as_long_as_its_positions_reach():
    model = tiny.make_model(backbone=dict(model_type="roberta", max_position_embeddings=42, pad_token_id=1)) # 40 of them can be used
    assert len(model.explain("good " * 60).mask) == 38 # and [CLS] and [SEP]


def test_a_model_replaces_its_older_self(tmp_path):
    "Without the metrics and the picture that it no longer has; but nothing that is not its own is deleted."
    model = make_model("bert")
    model.metrics, model.picture = dict(dataset="toy", examples=1, masks={}), b"png"
    model.save_pretrained(tmp_path / "model")
    model.metrics = model.picture = None
    model.save_pretrained(tmp_path / "model")
    assert not {"metrics.json", "rationale.png"} & {p.name for p in (tmp_path / "model").iterdir()}
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="notes.txt"): model.save_pretrained(tmp_path / "model")


def test_special_tokens_that_may_be_dropped_are_features_of_an_explanation():
    e = MODELS["bert", True].explain("ka good")
    assert e.features == ["", "ka", "good", ""] and e._repr_html_() # [CLS] and [SEP] are empty slices of the text


def test_explanations_are_the_same_in_chunks_of_any_size(text_model):
    texts = ["ka good", "bad me ni bad", "superb"] * 3
    for a, b in zip(text_model.explain(texts, batch_size=2), text_model.explain(texts)):
        assert a.mask == b.mask and a.probabilities == pytest.approx(b.probabilities, abs=1e-5)


def test_a_grey_picture_is_read_as_a_coloured_one(image_model):
    picture = tiny.images(1, 0)[0].convert("L")
    assert image_model.explain(picture).scores == image_model.explain(picture.convert("RGB")).scores
