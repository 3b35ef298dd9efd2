"What the chapters on losses, objectives, training and evaluation say in passing: edges that would bore a reader."

import itertools
import math
from copy import deepcopy
from dataclasses import replace
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rekd.errors import DataError, ModelError, SettingError
from rekd.evaluate import comprehensiveness, iou_f1, sufficiency, task_scores, token_f1
from rekd.loss import prediction_kd_loss, rekd_loss
from rekd.objective import CLS, RE, REKD, StepContext, example_noise, gumbel
from rekd.steps import TrainConfig, learning_rate, share_of, sparsity_target
from tiny import make_batch, make_model

AT = StepContext(T=1.0, sparsity=0.3)


def test_the_hard_prediction_loss_is_a_cross_entropy():
    student, teacher = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[4.0, 2.0]])
    soft = (teacher / 2).softmax(-1)
    assert prediction_kd_loss(student, teacher, T=2.0, hard=True).item() == pytest.approx(-(soft * F.log_softmax(student / 2, -1)).sum().item())
    assert prediction_kd_loss(student, teacher, T=1.0, each=True).shape == (1,)
    for T in (0, -1.0):
        with pytest.raises(SettingError, match=r"temperature must be a number in \(0, inf\)"): prediction_kd_loss(student, teacher, T)
    with pytest.raises(SettingError, match="alpha must be"): rekd_loss(1.0, 1.0, 1.0, 1.0, 1.5)
    with pytest.raises(SettingError, match="part must be"): rekd_loss(1.0, 1.0, 1.0, 1.0, 0.5, 0.5, "all")


def test_each_examples_noise_is_gumbel_and_unrelated():
    many = dict(valid=torch.ones(500, 40).bool(), index=torch.arange(500))
    noise = example_noise(many["valid"].float(), many, "demo", 1)
    assert noise.mean() == pytest.approx(0.5772, abs=0.03) and noise.var() == pytest.approx(math.pi ** 2 / 6, abs=0.05)
    for other in (noise.roll(1, 0), example_noise(many["valid"].float(), many, "demo", 2)):
        assert abs(torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]) < 0.03


def test_cls_with_a_teacher_adds_up_remembered_or_asked():
    model, guide, batch = make_model("bert", 1), make_model("bert", 2), make_batch()
    loss, parts = CLS(guide, alpha=0.25)(model, batch, replace(AT, T=2.0))
    assert loss.item() == pytest.approx((0.25 * parts["ce"] + 0.75 * 4 * parts["kd_y"]).item())
    assert CLS(guide, alpha=1.0)(model, batch, AT)[0].item() == CLS()(model, batch, AT)[0].item()
    for selects in (True, False): # a classifier reads everything
        guide.config.selects = selects
        torch.testing.assert_close(CLS(guide).remember([batch]).teacher_classes(batch), CLS(guide).teacher_classes(batch))
    torch.testing.assert_close(CLS(guide).teacher_classes(batch), guide.predict(batch, batch["valid"]))


def test_re_is_its_parts_and_repeats_with_a_seed():
    model, batch = make_model("bert", 1), make_batch()
    total, parts = RE(0.5)(model, batch, AT)
    assert total.item() == pytest.approx((parts["ce"] + 0.5 * parts["sparsity"]).item())
    losses = {RE(0.5, estimator=e)(model, batch, replace(AT, seed=1))[0].item() for e in ("gumbel", "gumbel", gumbel)}
    assert len(losses) == 1 and RE(0.5)(model, batch, replace(AT, seed=2))[0].item() not in losses
    with pytest.raises(SettingError, match="an estimator is"): RE(estimator=3)


def test_rekd_of_a_copy_is_re_and_what_has_no_weight_is_not_asked():
    teacher, batch = make_model("bert", 2), make_batch()
    total, parts = REKD(teacher, noise="shared").remember([batch])(deepcopy(teacher), batch, AT)
    assert parts["kd_r"].item() == pytest.approx(0, abs=1e-5) and parts["agreement"].item() == pytest.approx(1)
    assert total.item() == pytest.approx(0.3 * (parts["ce"] + 1e-4 * parts["sparsity"]).item(), abs=1e-5)
    model = make_model("bert", 1)
    for options in (dict(alpha=1.0), dict(part="rationale")): assert "kd_y" not in REKD(teacher, **options)(model, batch, AT)[1]
    for options in (dict(alpha=None), dict(hard=True), dict(part="prediction"), dict(noise="none"), dict(kd_mask="teacher")):
        assert REKD(teacher, **options)(model, batch, AT)[0].isfinite()
    objective = REKD(teacher).remember([batch])
    assert not any(v.requires_grad for v in objective.cache.values())
    with pytest.raises(SettingError, match="noise must be"): REKD(teacher, noise="some")
    with pytest.raises(ModelError, match="same features"): objective.rationale_loss(model.select(batch)[:, :5], batch, model.selectable(batch), AT.of(batch))


def test_schedules_begin_and_end_where_they_should():
    assert [learning_rate(s, 4, TrainConfig(lr=1.0)) for s in range(4)] == [1.0] * 4
    assert [sparsity_target(s, 4, 0.1, TrainConfig(sparsity_start=0.5)) for s in range(4)] == pytest.approx([0.5, 0.3, 0.1, 0.1])


@pytest.mark.parametrize("n", range(1, 9))
def test_shares_hold_every_example_once_with_the_weights_of_a_mean(n):
    parts = [p for k in range(3) for p in [share_of(list(range(n)), k, 3)] if p[1]]
    assert sorted(itertools.chain(*(p for p, _ in parts))) == list(range(n)) and sum(w for _, w in parts) == pytest.approx(3)
    for p, w in parts: assert w / len(p) == pytest.approx(3 / n)


def test_plausibility_at_its_edges():
    model, human = [0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert token_f1([0, 0, 0], [0, 1, 0]) == 0 # an empty rationale finds nothing
    assert token_f1([model, [0, 0]], [human, [0, 0]]) == token_f1(model, human) # nothing to judge in the second
    assert iou_f1([[]], [[(0, 2)]]) == 0 and iou_f1([(0, 2), (2, 4)], [(0, 4)]) == 1 # two halves of a whole
    assert iou_f1([(0, 2)], [(1, 2)]) == 1 and iou_f1([(0, 2)], [(1, 2)], 0.6) == 0 # exactly 0.5 is a match
    for f, args, said in ((token_f1, ([[0, 0]], [[0, 0]]), "nothing to compare"), (token_f1, ([[0, 1]], [[0, 2]]), "0 or 1"), (iou_f1, ([[]], [[]]), "nothing to compare"),
                          (iou_f1, ([(2, 2)], [(0, 1)]), "start < end"), (comprehensiveness, ([[0.5, 0.5]], [[1, 0], [0, 1]]), r"\(N, C\)"),
                          (sufficiency, ([[0.5, 0.5]], [[math.nan, 0]]), "not finite")):
        with pytest.raises(DataError, match=said): f(*args)
    with pytest.raises(SettingError, match="threshold"): iou_f1([], [], 0)


def test_the_calibration_error_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet([1, 1, 1], 500), rng.integers(3, size=500)
    sure, right = probs.max(1), probs.argmax(1) == labels
    bins = np.minimum((sure * 15).astype(int), 14)
    by_hand = sum((bins == b).mean() * abs(sure[bins == b].mean() - right[bins == b].mean()) for b in range(15) if (bins == b).any())
    assert task_scores(probs, labels)["ece"] == pytest.approx(by_hand)
    assert task_scores([[1.0, 0.0], [0.0, 1.0]], [0, 0])["ece"] == pytest.approx(0.5) # certain, and right once
