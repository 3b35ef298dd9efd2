"Faults of the training loop and its objectives, a kind each: a test named after it, with inputs of its own."

import json
import math
from copy import deepcopy
from dataclasses import replace
import pytest
import tiny
import torch
import torch.nn.functional as F
from rekd.errors import ModelError, SettingError
from rekd.run import run
from rekd.loss import CLS, RE, RandomMask, StepContext
from rekd.model import RationaleModel
from rekd.train import TrainConfig, fit, kept_epoch, validate
from test_presets import home, world # noqa: F401 -- fixtures
from tiny import make_model


# --- CLS distilled from a teacher's predictions: the control that was missing ---

@pytest.mark.parametrize("selects", [True, False])
def test_cls_learns_from_what_its_teacher_says_to_a_user(selects, text_data):
    "alpha CE + (1 - alpha) T^2 KL, written out; a teacher that selects answers from its own top-k rationale."
    teacher, student = make_model("bert", 7), make_model("bert", 5)
    teacher.config.selects = selects
    batch = text_data.train.collate([text_data.train[i] for i in range(6)])
    loss, parts = CLS(teacher, alpha=0.2)(student, batch, StepContext(T=3.0, sparsity=0.25))
    with torch.no_grad():
        kept = teacher.mask(teacher.select(batch), teacher.selectable(batch), "topk") if selects else batch["valid"]
        theirs = (teacher.predict(batch, kept) / 3).softmax(-1)
    mine = student.predict(batch, batch["valid"])
    kl = (theirs * (theirs.log() - (mine / 3).log_softmax(-1))).sum(-1).mean()
    ce = F.cross_entropy(mine, batch["labels"])
    assert loss.item() == pytest.approx((0.2 * ce + 0.8 * 9 * kl).item(), abs=1e-6) and parts.keys() == {"ce", "kd_y"}


def test_a_distilled_classifier_agrees_more_with_its_teacher_and_the_teacher_stays(text_data):
    "Labels are coin tosses, so that only the teacher can be learned."
    rng = torch.Generator().manual_seed(0)
    train = tiny.text_examples(list(text_data.train.rows["input"]), torch.randint(2, (24,), generator=rng).tolist())
    teacher = make_model("bert", 7)
    with torch.no_grad(): teacher.predictor.head.weight.mul_(20)
    before = deepcopy(teacher.state_dict())
    batch = train.collate([train[i] for i in range(24)])
    want = CLS(teacher).teacher_classes(batch).softmax(-1)
    def gap(objective):
        model = make_model("bert", 5)
        fit(model, replace(text_data, train=train), objective, TrainConfig(epochs=15, batch_size=6, lr=3e-3), quiet=True)
        assert not model.config.selects
        with torch.no_grad(): return (model.predict(batch, batch["valid"]).softmax(-1) - want).abs().mean().item()
    assert gap(CLS(teacher, alpha=0.0)) < 0.5 * gap(CLS())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_a_teacher_that_does_not_fit_cls_is_refused_before_training(text_data, image_model):
    student = make_model("bert", 5)
    for teacher in (image_model, student):
        with pytest.raises(ModelError): fit(student, text_data, CLS(teacher), TrainConfig(epochs=1), quiet=True)
    with pytest.raises(SettingError, match="alpha"): CLS(make_model("bert", 7), alpha=2)


SMALL = dict(n_train=20, n_test=8, val_share=0.5, batch_size=5, epochs=1)

def taught(home): # noqa: F811
    "A trained teacher."
    run("demo", "re", seed=3, overrides=SMALL, out=home / "teacher", quiet=True)
    return str(home / "teacher" / "model")


def test_cls_has_a_teacher_only_if_it_is_named(home): # noqa: F811
    "The preset's teacher is REKD's: plain CLS stays plain, and the two have folders of their own."
    teacher = taught(home)
    plain, told = (run("demo", "cls", seed=3, overrides=SMALL, teacher=t, quiet=True)[1] for t in (None, teacher))
    assert plain["teacher"] is None and plain["teacher_weights"] is None and "kd_y" not in plain["epochs"][0]["train"] and "variant" not in plain
    assert told["teacher"] == teacher and told["teacher_weights"] and "kd_y" in told["epochs"][0]["train"] and told["variant"] == "distilled"
    folders = {f.parent.name for f in (home / "runs" / "demo").glob("*/row.json")}
    assert folders == {"cls-paper-3", "cls-paper-3-distilled"}
    assert json.loads((home / "runs" / "demo" / "cls-paper-3-distilled" / "row.json").read_text())["teacher"] == teacher


def test_a_warm_start_does_not_begin_from_a_distilled_classifier(home): # noqa: F811
    teacher = taught(home)
    run("demo", "cls", seed=3, overrides=SMALL, teacher=teacher, out=home / "runs" / "demo" / "cls-paper-3", quiet=True)
    with pytest.raises(SettingError, match="distilled from"): run("demo", "re", seed=3, start="warm", overrides=SMALL, quiet=True)


# --- only epochs at the goal of the curriculum can be kept ---

CURRICULUM = TrainConfig(epochs=4, batch_size=5, lr=3e-3, sparsity_start=0.9, sparsity_share=0.7, eval_mask="deterministic") # 20 steps, the goal is reached at step 14


@pytest.mark.parametrize("objective", [lambda: RE(0.01), RandomMask])
@pytest.mark.parametrize("out", [False, True])
def test_the_kept_epoch_is_at_the_goal(objective, out, tmp_path, text_data, monkeypatch):
    "Epochs 2 and 3 are at the goal; whatever was better before does not count."
    losses = [0.1, 0.2, 0.4, 0.3]
    monkeypatch.setattr("rekd.train.validate", lambda *args, true=validate, **kw: true(*args, **kw) | dict(loss=next(fake)))
    fake, model = iter(losses), make_model("bert", 5)
    rows = fit(model, text_data, objective(), CURRICULUM, out=tmp_path / "run" if out else None, quiet=True)
    assert [r["at_goal"] for r in rows] == [False, False, True, True] and [r["sparsity_target"] == 0.25 for r in rows] == [False, False, True, True]
    assert [r["val"]["loss"] for r in rows] == losses and kept_epoch(rows) == 3
    if out: assert RationaleModel.from_pretrained(tmp_path / "run" / "model").config.selects == rows[3]["val_mask"].startswith("det")
    monkeypatch.undo()
    mask = "random" if isinstance(objective(), RandomMask) else "deterministic"
    assert validate(model, text_data.val, mask)["ce"] == rows[3]["val"]["ce"] # its weights are that epoch's


def test_the_kept_epoch_by_hand():
    rows = [dict(at_goal=g, val=dict(loss=x)) for g, x in ((False, 0.1), (True, 0.5), (True, 0.4))]
    assert kept_epoch(rows) == 2 and kept_epoch(rows[:1]) is None
    assert kept_epoch([dict(val=dict(loss=x)) for x in (0.3, 0.1, 0.2)]) == 1 # an older version's rows do not tell


@pytest.mark.parametrize("settings", [dict(sparsity_share=1.0), dict(epochs=1, batch_size=100), dict(sparsity_share=0.96, epochs=1)])
def test_a_curriculum_that_no_epoch_outlasts_is_refused_before_training(settings, tmp_path, text_data):
    with pytest.raises(SettingError, match="sparsity_share"): fit(make_model("bert", 5), text_data, RE(0.01), replace(CURRICULUM, **settings), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_plain_classification_knows_no_goal(text_data):
    rows = fit(make_model("bert", 5), text_data, CLS(), replace(CURRICULUM, sparsity_share=1.0), quiet=True)
    assert all(r["at_goal"] for r in rows)


def test_one_epoch_reaches_its_goal(text_data):
    rows = fit(make_model("bert", 5), text_data, RE(0.01), replace(CURRICULUM, epochs=1), quiet=True)
    assert rows[0]["at_goal"] and rows[0]["sparsity_target"] == 0.25 and math.isfinite(rows[0]["val"]["loss"])


def test_a_row_says_that_its_model_was_kept_at_the_goal(home): # noqa: F811
    changes = SMALL | dict(epochs=2)
    row = run("demo", "re", seed=3, start="warm", overrides=changes, quiet=True)[1]
    assert row["kept_at_goal"] is True and row["config"]["train"]["sparsity_start"] == 0.5 and [e["at_goal"] for e in row["epochs"]] == [False, True]
