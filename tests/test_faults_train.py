"Faults of the training loop and its objectives, a kind each: a test named after it, with inputs of its own."

import json
import logging
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
import pytest
import tiny
import torch
import torch.nn.functional as F
from rekd.checkpoint import named_weights, sync
from rekd.errors import ModelError, SettingError
from rekd.run import run
from rekd.objective import CLS, RE, REKD, RandomMask, StepContext, build_objective
from rekd.loss import prediction_kd_loss
from rekd.model import RationaleModel
from rekd.registry import ESTIMATORS, OBJECTIVES, load_plugins
from rekd.train import TrainConfig, fit, kept_epoch, validate
from rekd.train import TrainingStopped
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


@pytest.mark.trains
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


# --- the hard variant hardens the choice of words alone ---

@pytest.mark.parametrize("T", [0.5, 4.0])
def test_hard_keeps_the_teachers_classes_soft(T):
    "The prediction's cross-entropy has the gradient of the KL at any temperature; the teacher's class as a label would not."
    z, theirs, grads = torch.randn(5, 3), torch.randn(5, 3), []
    for hard in (False, True):
        mine = z.clone().requires_grad_()
        prediction_kd_loss(mine, theirs, T, hard).backward()
        grads.append(mine.grad)
    torch.testing.assert_close(*grads)


def test_hard_differs_from_soft_in_the_rationale_loss_alone(text_data):
    teacher, student, batch = make_model("bert", 7), make_model("bert", 5), text_data.train.collate([text_data.train[i] for i in range(6)])
    def pull(part, hard):
        student.zero_grad()
        REKD(teacher, alpha=0.0, part=part, hard=hard, noise="shared")(student, batch, StepContext(T=2.0, sparsity=0.25, seed=1))[0].backward()
        return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
    torch.testing.assert_close(pull("prediction", False), pull("prediction", True))
    assert not torch.allclose(pull("rationale", False), pull("rationale", True), atol=1e-4)


# --- what cannot be trained or saved is known before the first step ---

def test_half_weights_are_refused_with_the_remedy(tmp_path, text_data):
    for change in (lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.predictor.head.half() and m):
        model = change(make_model("bert", 5))
        with pytest.raises(SettingError, match=r"half precision.*model\.float\(\)"): fit(model, text_data, RE(0.01), TrainConfig(epochs=1), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    fit(make_model("bert", 5).half().float(), text_data, RE(0.01), TrainConfig(epochs=1), quiet=True)


class Calls(RE):
    n = 0
    def __call__(self, *args):
        Calls.n += 1
        return super().__call__(*args)


def shared_views(model):
    "Two weights as views of one storage, as some networks load theirs."
    layer = model.predictor.backbone.net.encoder.layer[0].attention.self
    whole = torch.cat([layer.query.weight.data, layer.key.weight.data])
    n = len(whole) // 2
    layer.query.weight.data, layer.key.weight.data = whole[:n], whole[n:]


def renamed(model): model.predictor.head = torch.compile(model.predictor.head, backend="eager") # saved under other names


@pytest.mark.parametrize("spoil", [shared_views, renamed])
def test_what_lies_otherwise_in_memory_is_saved_and_loaded(spoil, tmp_path, text_data):
    model = make_model("bert", 5)
    spoil(model)
    fit(model, text_data, RE(0.01), TrainConfig(epochs=1, checkpoint_every=1), out=tmp_path / "run", quiet=True)
    mine, again = (named_weights(m)[0] for m in (model, RationaleModel.from_pretrained(tmp_path / "run" / "model")))
    assert mine.keys() == again.keys() and all(torch.equal(mine[k], again[k]) for k in mine)


@pytest.mark.parametrize("spoil", [lambda m: setattr(m.predictor, "head", torch.nn.Linear(32, 5)), lambda m: m.register_buffer("mine", torch.ones(3))])
def test_what_cannot_be_saved_is_refused_before_the_first_step(spoil, tmp_path, text_data):
    model, Calls.n = make_model("bert", 5), 0
    spoil(model)
    with pytest.raises(ModelError, match="cannot be saved and loaded again"): fit(model, text_data, Calls(0.01), TrainConfig(epochs=1), out=tmp_path / "run", quiet=True)
    assert Calls.n == 0 and not list((tmp_path / "run").iterdir())


def test_in_memory_a_model_that_cannot_be_saved_trains_with_a_warning(text_data):
    model = make_model("bert", 5)
    model.register_buffer("mine", torch.ones(3))
    with pytest.warns(UserWarning, match="stays in memory"): fit(model, text_data, RE(0.01), TrainConfig(epochs=1), quiet=True)


# --- Ctrl-C, callbacks, and what a finished run keeps ---

LOOP = TrainConfig(epochs=3, batch_size=5, lr=3e-3, checkpoint_every=2) # 15 steps


class CtrlC(RE):
    at, n = 7, 0
    def __call__(self, *args):
        CtrlC.n += 1
        if CtrlC.n == CtrlC.at: raise KeyboardInterrupt
        return super().__call__(*args)


@pytest.mark.parametrize("at, says", [(8, r"stopped after step 7 of 15.*checkpoint of step 6: .*--resume"), (2, "stopped after step 1 of 15; no checkpoint is written yet.*starts again")])
def test_ctrl_c_says_how_to_go_on_and_the_result_is_the_same(at, says, tmp_path, text_data):
    CtrlC.at, CtrlC.n = at, 0
    run = lambda out, **kw: fit(model := make_model("bert", 5), text_data, CtrlC(0.01), LOOP, seed=3, out=tmp_path / out, quiet=True, **kw) and model
    with pytest.raises(KeyboardInterrupt, match=says) as e: run("cut")
    assert isinstance(e.value, TrainingStopped) and "\n" not in str(e.value)
    assert not [f for f in (tmp_path / "cut").rglob("*") if f.name.startswith(".")]
    CtrlC.at = 0
    cut, whole = run("cut", resume=True), run("whole")
    assert all(torch.equal(v, w) for v, w in zip(cut.state_dict().values(), whole.state_dict().values()))


def test_ctrl_c_on_the_command_line_is_one_line_and_code_130(home, capsys, monkeypatch): # noqa: F811
    from rekd.cli import main
    def stop(*args, **kw): raise KeyboardInterrupt
    monkeypatch.setattr("rekd.train.Step.forward", stop)
    with pytest.raises(SystemExit) as e: main(["train", "demo", "--objective", "re", "--set", "n_train=20", "n_test=8", "val_share=0.5", "epochs=1"])
    assert e.value.code == 130
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("rekd: stopped after step 0")] == lines[-1:]


@pytest.fixture
def nobody_listens():
    "To the log `rekd`; an earlier test may have."
    log = logging.getLogger("rekd")
    before = log.level
    log.setLevel(logging.NOTSET)
    yield
    log.setLevel(before)


def test_a_finished_run_keeps_its_result_and_not_its_optimizer(tmp_path, text_data, capsys, nobody_listens):
    model = make_model("bert", 5)
    rows = fit(model, text_data, RE(0.01), LOOP, out=tmp_path / "run", quiet=True)
    assert {f.name for f in (tmp_path / "run").iterdir()} == {"model", "metrics.jsonl", "finished.json"}
    Calls.n, again = 0, make_model("bert", 6)
    with pytest.raises(SettingError, match="objective='RE', and now objective='Calls'"): fit(again, text_data, Calls(0.01), LOOP, out=tmp_path / "run", resume=True)
    assert fit(again, text_data, RE(0.01), LOOP, out=tmp_path / "run", resume=True) == rows
    assert "is finished" in capsys.readouterr().err
    assert all(torch.equal(v, w) for v, w in zip(model.state_dict().values(), again.state_dict().values()))
    with pytest.raises(SettingError, match="seed=2025, and now seed=1"): fit(again, text_data, RE(0.01), LOOP, 1, tmp_path / "run", resume=True)


@pytest.mark.parametrize("stage", ["finished.json", "model"])
def test_a_kill_while_a_run_is_finished_loses_nothing(stage, tmp_path, text_data, monkeypatch):
    class Killed(BaseException): pass
    def cut(*args): raise Killed
    if stage == "model": monkeypatch.setattr("rekd.checkpoint.sync", lambda path, real=sync: cut() if (path / "finished.json").exists() and (path / "model").exists() else real(path))
    else: monkeypatch.setattr("pathlib.Path.rename", lambda self, to, real=Path.rename: cut() if self.name.startswith("best") else real(self, to))
    model = make_model("bert", 5)
    with pytest.raises(Killed): fit(model, text_data, RE(0.01), LOOP, out=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    rows = fit(again := make_model("bert", 6), text_data, RE(0.01), LOOP, out=tmp_path / "run", resume=True, quiet=True)
    whole = fit(model := make_model("bert", 5), text_data, RE(0.01), LOOP, quiet=True)
    assert [r["val"] for r in rows] == [r["val"] for r in whole] and {f.name for f in (tmp_path / "run").iterdir()} == {"model", "metrics.jsonl", "finished.json"}
    assert all(torch.equal(v, w) for v, w in zip(model.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:-50])])
def test_a_finished_run_without_its_model_is_named(damage, tmp_path, text_data):
    fit(make_model("bert", 5), text_data, RE(0.01), LOOP, out=tmp_path / "run", quiet=True)
    damage(tmp_path / "run" / "model" / "model.safetensors")
    with pytest.raises(ModelError, match="is finished, but .*model.safetensors cannot be read"): fit(make_model("bert", 5), text_data, RE(0.01), LOOP, out=tmp_path / "run", resume=True, quiet=True)
    (tmp_path / "run" / "finished.json").write_text("{")
    with pytest.raises(ModelError, match="finished.json is damaged"): fit(make_model("bert", 5), text_data, RE(0.01), LOOP, out=tmp_path / "run", resume=True, quiet=True)


def test_callbacks_get_each_row_and_one_that_fails_loses_nothing(tmp_path, text_data):
    seen = []
    def fail(row):
        row["val"]["loss"] = row["val"].pop("accuracy") # a copy, all of it: history and metrics.jsonl keep their own
        row.clear()
        if len(seen) == 2: raise ZeroDivisionError
    run = lambda **kw: fit(make_model("bert", 5), text_data, RE(0.01), LOOP, out=tmp_path / "run", quiet=True, **kw)
    with pytest.raises(ZeroDivisionError): run(callbacks=[lambda row: seen.append(row["epoch"]), fail])
    assert seen == [0, 1] and (tmp_path / "run" / "checkpoint-0000010").is_dir()
    rows = run(callbacks=[lambda row: seen.append(row["epoch"])], resume=True)
    assert seen == [0, 1, 2] and len(rows) == 3 and all(r["val"]["accuracy"] <= 1 and r["val"]["loss"] != r["val"]["accuracy"] for r in rows)
    for wrong in (print, "print", [print, 3]):
        with pytest.raises(SettingError, match="callbacks must be"): fit(make_model("bert", 5), text_data, RE(0.01), LOOP, callbacks=wrong)


def test_a_script_hears_of_a_long_training_and_not_of_a_short_one(text_data, capsys, monkeypatch, nobody_listens):
    run = lambda **kw: fit(make_model("bert", 5), text_data, RE(0.01), LOOP, **kw)
    monkeypatch.setattr("time.monotonic", lambda: 0) # however slow the machine
    run()
    assert capsys.readouterr().err == ""
    clock = iter(range(0, 10**6, 3))
    monkeypatch.setattr("time.monotonic", lambda: next(clock)) # each look three seconds later
    run()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("RE: epoch 1 of 3, validation accuracy")
    run(quiet=True)
    assert capsys.readouterr().err == ""


# --- parts of one's own ---

OWN = '''
from dataclasses import dataclass
import torch.nn.functional as F
from rekd.registry import register_objective, register_estimator

@register_objective("smooth")
@dataclass
class Smooth:
    amount: float = 0.1 # of label smoothing
    selects = False
    def __call__(self, model, batch, context):
        loss = F.cross_entropy(model.predict(batch, batch["valid"]), batch["labels"], label_smoothing=self.amount)
        return loss, dict(ce=loss)

@register_estimator("reinforce")
def reinforce(logits, selectable, context, loss_of_each): # REINFORCE with the batch's mean as baseline
    mask = (logits + context.noise(logits)).argmax(-1) * selectable
    losses = loss_of_each(mask.float())
    chance = (logits.log_softmax(-1).gather(-1, mask.unsqueeze(-1)).squeeze(-1) * selectable).sum(-1)
    advantage = (losses - losses.mean()).detach()
    return losses.mean() + (advantage * (chance - chance.detach())).mean(), mask
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    "A stranger's file with an objective and an estimator, in the current folder."
    (tmp_path / "my_parts.py").write_text(OWN)
    load_plugins("my_parts")
    yield
    import sys
    del sys.modules["my_parts"], OBJECTIVES["smooth"], ESTIMATORS["reinforce"]


def test_an_objective_of_ones_own_trains_by_name(plugin, tmp_path, text_data):
    objective = build_objective("smooth", amount=0.2)
    rows = fit(make_model("bert", 5), text_data, objective, LOOP, out=tmp_path / "run", quiet=True)
    assert len(rows) == 3
    with pytest.raises(SettingError, match="objective.amount=0.2, and now objective.amount=0.3"): fit(make_model("bert", 5), text_data, build_objective("smooth", amount=0.3), LOOP, out=tmp_path / "run", resume=True)
    with pytest.raises(SettingError, match="no setting 'amout'.*did you mean 'amount'"): build_objective("smooth", amout=1)
    with pytest.raises(SettingError, match="no effect on smooth"): build_objective("smooth", make_model("bert"))
    with pytest.raises(SettingError, match="rekd needs a teacher"): build_objective("rekd")


def test_an_estimator_of_ones_own_follows_the_true_gradient(plugin):
    "Over many samples the score function's gradient is that of the expected loss, which can be computed exactly here."
    logits, cost = torch.tensor([[[0.2, -0.3], [0.0, 0.5], [-0.4, 0.1]]]), torch.tensor([1.0, -2.0, 0.5])
    n, z = 40_000, None
    z = logits.clone().requires_grad_()
    (z.softmax(-1)[..., 1] * cost).sum().backward() # the expectation of a cost that adds up
    exact, z = z.grad, logits.clone().requires_grad_()
    batch = dict(valid=torch.ones(n, 3).bool(), index=torch.arange(n))
    many = z.expand(n, 3, 2)
    ESTIMATORS["reinforce"](many, batch["valid"], StepContext(T=1.0, sparsity=0.3).of(batch), lambda mask: mask @ cost)[0].backward()
    torch.testing.assert_close(z.grad, exact, atol=0.03, rtol=0)


@pytest.mark.trains
@pytest.mark.parametrize("objective", [lambda **kw: RE(0.01, **kw), lambda **kw: REKD(make_model("bert", 7), 0.01, **kw)])
def test_an_estimator_of_ones_own_trains_the_generator(plugin, objective, text_data):
    model = make_model("bert", 5)
    rows = fit(model, text_data, objective(estimator="reinforce"), LOOP, quiet=True)
    moved = [k for k, v in model.generator.state_dict().items() if not torch.equal(v, make_model("bert", 5).generator.state_dict()[k])]
    assert any(k.startswith("head") for k in moved) and all(math.isfinite(r["train"]["loss"]) for r in rows)
    with pytest.raises(SettingError, match="did you mean 'reinforce'"): objective(estimator="reinforc")


def test_an_estimator_with_a_state_keeps_it_from_step_to_step(text_data, monkeypatch):
    "Such as a moving baseline: one object trains, and not a new one in each step."
    class Counting:
        made = 0
        def __init__(self): self.steps, Counting.made = 0, Counting.made + 1
        def __call__(self, logits, selectable, context, loss_of_each):
            self.steps += 1
            return ESTIMATORS["gumbel"](logits, selectable, context, loss_of_each)
    monkeypatch.setitem(ESTIMATORS, "counting", Counting)
    for objective in (RE(0.01, estimator="counting"), REKD(make_model("bert", 7), 0.01, estimator="counting")):
        Counting.made = 0
        fit(make_model("bert", 5), text_data, objective, TrainConfig(epochs=2, batch_size=8), quiet=True)
        assert (objective.estimator.steps, Counting.made) == (6, 0)
