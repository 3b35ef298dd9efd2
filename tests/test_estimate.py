"The estimators against what can be counted, their settings, and the blind start."
import itertools
import json
import math

import pytest
import tiny
import torch
from test_presets import home, world  # noqa: F401 (fixtures)

from rekd.checkpoint import RunFolder
from rekd.cli import main
from rekd.errors import SettingError
from rekd.estimate import HardKuma, Score, above, blind_start, exact, free_choice, hard_kuma, ordered_choice, relaxed_topk
from rekd.model import RationaleModel
from rekd.objective import RE, REKD, StepContext, find_estimator, gumbel
from rekd.run import run
from rekd.select import gumbel_noise
from rekd.train import TrainConfig, fit

L, K = 6, 2
EACH = torch.tensor(list(itertools.product([0.0, 1.0], repeat=L)))
ALL = (gumbel, exact, Score(4), Score(4, exact=False), HardKuma())


def cost(masks):
    "What a mask costs: places that matter alone, together, and not at all."
    return masks @ torch.tensor([1.0, -2.0, 0.5, 0.0, 0.3, -1.0]) + 2 * masks[..., 0] * masks[..., 3]


def logits(seed=0): return torch.randn(L, 2, generator=torch.Generator().manual_seed(seed))


def drawn(estimator, z, n=20_000, T=1.0):
    "The gradient of each of many examples, and their masks."
    many = z.expand(n, L, 2).clone().requires_grad_()
    loss, masks = estimator(many, torch.ones(n, L).bool(), StepContext(T=T, sparsity=K / L).of({}), cost)
    loss.backward()
    return many.grad * n, masks.detach()


def chance_of_sets(scores):
    "Mask -> probability of k features drawn one after the other, by counting all orders."
    out = {}
    for order in itertools.permutations(range(L), K):
        p, left = 1.0, scores.exp().sum()
        for i in order: p, left = p * scores[i].exp() / left, left - scores[i].exp()
        out[tuple(sorted(order))] = out.get(tuple(sorted(order)), 0) + p
    return {tuple(float(i in places) for i in range(L)): p for places, p in out.items()}


def test_the_chance_of_an_order_is_the_product_of_its_draws():
    scores = (z := logits())[:, 1] - z[:, 0]
    noise = gumbel_noise(torch.zeros(20_000, L))
    mask, log_prob = ordered_choice(scores.expand(20_000, L), torch.ones(20_000, L).bool(), noise, K / L)
    first, second = scores.exp()[(scores + noise).argsort(-1, descending=True)[:, :K]].T
    whole = scores.exp().sum()
    torch.testing.assert_close(log_prob.exp(), first / whole * second / (whole - first))
    chances = chance_of_sets(scores)
    torch.testing.assert_close(sum(chances.values()), torch.tensor(1.0))
    for places, p in chances.items(): # each set is drawn as often as it should be: 5 standard errors
        assert abs((mask == torch.tensor(places)).all(-1).float().mean() - p) < 5 * (p * (1 - p) / 20_000) ** 0.5 + 1e-4


@pytest.mark.parametrize("estimator, choose", [
    (Score(4, exact=False), lambda z: ((z.softmax(-1)[:, 1] * EACH + z.softmax(-1)[:, 0] * (1 - EACH)).prod(-1) * cost(EACH)).sum()),
    (Score(4), lambda z: sum(p * cost(torch.tensor(m)) for m, p in chance_of_sets(z[:, 1] - z[:, 0]).items())),
])
def test_the_score_function_is_unbiased(estimator, choose):
    z = logits().requires_grad_()
    choose(z).backward()
    found, _ = drawn(estimator, z.detach())
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - z.grad).abs() < 5 * error + 1e-6).all()


def test_the_free_choice_knows_its_chance():
    z = logits()
    mask, log_prob = free_choice((z[:, 1] - z[:, 0]).expand(500, L), torch.ones(500, L).bool(), gumbel_noise(torch.zeros(500, L, 2)))
    torch.testing.assert_close(log_prob.exp(), (mask * z.softmax(-1)[:, 1] + (1 - mask) * z.softmax(-1)[:, 0]).prod(-1))


def test_relaxed_topk_adds_up_and_has_the_gradient_of_its_value():
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 7, dtype=torch.float64, generator=g).requires_grad_()
    selectable, k = torch.arange(7) < torch.tensor([[7], [4], [1]]), torch.tensor([[3.0], [2.0], [1.0]])
    for T in (5.0, 0.5):
        soft = relaxed_topk(scores, selectable, k, T)
        torch.testing.assert_close(soft.sum(-1, keepdim=True), k.double(), atol=1e-6, rtol=0)
        assert (soft[~selectable] == 0).all() and (soft <= 1).all()
        assert torch.autograd.gradcheck(lambda s, T=T: relaxed_topk(s, selectable, k, T)[:2], scores, eps=1e-5, atol=1e-4)


def test_hardkuma_says_how_often_it_keeps():
    z = logits(3).expand(20_000, L, 2)
    sample = hard_kuma(z, gumbel_noise(z[..., 0]))
    assert 0 <= sample.min() and sample.max() <= 1 and (sample == 0).any() and (sample == 1).any()
    for h in (0.0, 0.5, 0.9): torch.testing.assert_close((sample > h).float().mean(0), above(z[0], h), atol=0.02, rtol=0) # 5 standard errors


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: getattr(e, "__name__", str(e)))
@pytest.mark.parametrize("large", [1.0, 60.0])
def test_texts_of_any_length_and_loud_logits(estimator, large):
    "Padding is never kept and gets no gradient; a text without a selectable word is no accident."
    z = (torch.randn(4, 9, 2, generator=torch.Generator().manual_seed(1)) * large).requires_grad_()
    selectable = torch.arange(9) < torch.tensor([[9], [5], [1], [0]])
    for T in (5.0, 0.1):
        z.grad = None
        loss, masks = estimator(z, selectable, StepContext(T=T, sparsity=0.3).of({}), lambda m: (m - 0.2).pow(2).sum(-1))
        loss.backward()
        many = selectable.repeat(len(masks) // 4, 1)
        assert loss.isfinite() and z.grad.isfinite().all() and (masks[~many] == 0).all() and (z.grad[~selectable] == 0).all()
        if estimator in (exact, Score(4)): torch.testing.assert_close(masks.detach().sum(-1), torch.tensor([3.0, 2, 1, 0]).repeat(len(masks) // 4))


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: getattr(e, "__name__", str(e)))
def test_each_example_has_choices_of_its_own(estimator):
    "In another order and with other neighbours, an example's masks are the same."
    batch, z, seen = tiny.make_batch(), torch.randn(3, 12, 2), {}
    for order in ([0, 1, 2], [2, 0, 1]):
        mine = {k: v[order] for k, v in batch.items()}
        masks = estimator(z[order], mine["valid"], StepContext(T=1.0, sparsity=0.3, seed=5).of(mine), lambda m: m.sum(-1))[1].detach().unflatten(0, (-1, 3))
        for i, b in enumerate(order): seen.setdefault(b, []).append(masks[:, i])
    for one, other in seen.values(): torch.testing.assert_close(one, other)


def test_the_flag_for_dropped_features():
    assert [find_estimator(name).needs_dropped for name in ("gumbel", "exact", "hardkuma", "score")] == [True, True, True, False]


@pytest.mark.parametrize("wrong, said", [
    ("score:draws=4,draws=4", "score is given draws twice"), ("score:draws=1", "draws must be a whole number in [2"), ("score:draws=2.5", "draws must be"), ("score:draws=true", "draws must be"), ("score:draws=nan", "draws must be"),
    ("score:exact=maybe", "exact must be true or false, got 'maybe'"), ("score:draw=4", "did you mean 'draws'"), ("score:4", "score has no setting '4'"),
    ("exact:draws=4", "exact has no setting 'draws=4'"), ("hardkuma:ascent=-1", "ascent must be"), ("scor:draws=4", "did you mean 'score'"), ("", "unknown estimator ''"),
])
def test_settings_of_an_estimator_in_a_word(wrong, said):
    with pytest.raises(SettingError) as e: RE(estimator=wrong)
    assert said in str(e.value) and "\n" not in str(e.value)


def test_an_estimator_by_name_or_as_it_is():
    assert RE(estimator="score:draws=4,exact=false") == RE(estimator=Score(4, False)) != RE(estimator="score")


@pytest.mark.parametrize("estimator", ("exact", "score:draws=3", "score:draws=3,exact=false", "hardkuma"))
@pytest.mark.parametrize("kind", ("bert", "vit"))
def test_every_estimator_trains_both_halves(estimator, kind):
    batch, at = tiny.make_batch(kind), StepContext(T=1.0, sparsity=0.3)
    for objective in (RE(1e-2, estimator=estimator), *(REKD(tiny.make_model(kind, 7), 1e-2, estimator=estimator, kd_mask=m) for m in ("student", "teacher"))):
        model = tiny.make_model(kind, 5)
        loss, parts = objective(model, batch, at)
        loss.backward()
        assert loss.isfinite() and all(v.ndim == 0 for v in parts.values())
        for half in (model.generator, model.predictor): assert sum(p.grad.abs().sum() for p in half.parameters() if p.grad is not None) > 0


def test_the_value_is_the_mean_loss_of_all_draws():
    "So that the log and a test for infinity see what they should; with one kind of mask, draws change nothing."
    model, batch = tiny.make_model("bert", 5), tiny.make_batch()
    loss, parts = RE(0.5, estimator=Score(5))(model, batch, StepContext(T=1.0, sparsity=0.3, seed=1))
    torch.testing.assert_close(loss, parts["ce"] + 0.5 * parts["sparsity"])
    one, many = (RE(0.5, estimator=e)(model, batch, StepContext(T=1.0, sparsity=0.99, seed=1))[0] for e in (Score(2), Score(7))) # everything is kept
    torch.testing.assert_close(one, many)


@pytest.mark.trains
def test_the_multiplier_rises_while_too_much_is_kept_and_survives_a_stop(tmp_path, monkeypatch):
    data, loop = tiny.text_data(), TrainConfig(epochs=3, batch_size=8, lr=1e-3, checkpoint_every=2)
    objective = lambda: RE(0.01, estimator=HardKuma(ascent=0.5))
    whole, kept = tiny.make_model("bert", 5), []
    save = RunFolder.save
    monkeypatch.setattr(RunFolder, "save", lambda self, step, model, optimizer, progress: (kept.append(progress["state"]["multiplier"]), save(self, step, model, optimizer, progress))[1])
    fit(whole, data, objective(), loop, out=tmp_path / "whole", quiet=True)
    assert 0 < kept[0] < kept[-1]
    def stop(row):
        if row["epoch"] == 1: raise InterruptedError
    with pytest.raises(InterruptedError): fit(tiny.make_model("bert", 5), data, objective(), loop, out=tmp_path / "cut", quiet=True, callbacks=[stop])
    fit(again := tiny.make_model("bert", 6), data, objective(), loop, out=tmp_path / "cut", quiet=True, resume=True)
    for a, b in zip(whole.parameters(), again.parameters()): assert torch.equal(a, b)
    with pytest.raises(SettingError, match="ascent=0.5.*ascent=0.1"): fit(tiny.make_model("bert", 5), data, RE(0.01, estimator="hardkuma"), loop, out=tmp_path / "cut", resume=True)


@pytest.mark.parametrize("kind", ("bert", "bigru", "vit"))
def test_a_blind_generator_tells_no_feature_from_another(kind):
    model, batch = blind_start(tiny.make_model(kind, sparsity=0.3)), tiny.make_batch(kind)
    torch.testing.assert_close(model.select(batch).softmax(-1)[..., 1], torch.full(batch["valid"].shape, 0.3))


SMALL = ["n_train=20", "n_test=10", "val_share=0.5", "epochs=1", "batch_size=4", "precision=no"]


def test_the_blind_start_from_the_command_line(home, capsys):  # noqa: F811
    main(["train", "demo", "--objective", "re", "--start", "blind", "--set", "estimator=score:draws=2", *SMALL])
    first, mine = (json.loads((home / "runs/demo" / f"{name}/row.json").read_text()) for name in ("random-paper-2025", "re-blind-2025"))
    assert (first["objective"], first["start"], mine["start"]) == ("random", "paper", "blind")
    assert mine["config"]["objective"]["options"]["estimator"] == "score:draws=2" and mine["config"]["train"]["sparsity_start"] is None
    assert "topk" in capsys.readouterr().out
    main(["study", "demo", "--objectives", "re", "--starts", "blind", "--seeds", "1", "--dry-run"])
    assert "blind" in capsys.readouterr().out
    for args, said in ((["--objective", "cls", "--start", "blind"], "a blind start is for"), (["--objective", "re", "--set", "estimator=scor"], "did you mean 'score'"),
                       (["--objective", "re", "--set", "estimator=score:draws=0"], "draws must be"), (["--objective", "cls", "--set", "estimator=score"], "no effect on cls")):
        with pytest.raises(SystemExit) as e: main(["train", "demo", *args])
        assert said in str(e.value)


def test_where_training_begins(home, monkeypatch):  # noqa: F811
    "Blind: the predictor of the model of random masks, its backbone for the generator too, and a head of zeros. A score function's generator begins with zeros from any start."
    begun = {}
    def look(model, *args, **kw):
        begun[args[1].__class__.__name__] = {k: v.clone() for k, v in model.state_dict().items()}
        return fit(model, *args, **kw)
    monkeypatch.setattr("rekd.run.fit", look)
    changes = dict(n_train=20, n_test=10, val_share=0.5, epochs=1, batch_size=4, precision="no")
    run("demo", "re", seed=1, start="blind", overrides=changes, quiet=True)
    blind, first = begun["RE"], RationaleModel.from_pretrained(home / "runs/demo/random-paper-1/model").state_dict()
    head = [k for k in blind if k.startswith("generator.head.")][-2:]
    assert not blind[head[0]].any() and math.isclose(blind[head[1]].softmax(0)[1], 0.1, rel_tol=1e-5)
    assert all(torch.equal(v, first[k]) for k, v in blind.items() if k.startswith("predictor."))
    assert all(torch.equal(v, blind[k.replace("predictor", "generator", 1)]) for k, v in blind.items() if k.startswith("predictor.backbone."))
    for estimator, zero in (("score:draws=2", True), ("gumbel", False)):
        run("demo", "re", seed=1, overrides=changes | dict(estimator=estimator), out=home / "runs" / estimator.replace(":", "-"), quiet=True)
        assert begun["RE"][head[0]].any() != zero
