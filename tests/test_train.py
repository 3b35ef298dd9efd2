"""Interrupted and resumed is the same as never interrupted, bit for bit; a diverged run keeps its last good checkpoint; what is written can be read."""

import json
import random
from dataclasses import replace
import pytest
import tiny
import torch
from safetensors.torch import load_file
from rekd.data import paper_augment
from rekd.loss import CLS, RE, REKD, RandomMask
from rekd.train import TrainConfig, TrainingDiverged, evaluate, fit, warm_start
from tiny import make_model

# 24 texts: 5 batches an epoch, the last one small; every option that has a state or a schedule is on
CONFIG = TrainConfig(epochs=4, batch_size=5, lr=3e-3, weight_decay=0.01, warmup=0.2, decay=True, clip=1.0, T_every=3, sparsity_start=0.6, checkpoint_every=2)
STEPS = 20


class Interrupted(Exception): pass


def at_step(objective, step, act):
    "The objective, that calls `act(loss)` in place of returning the loss of its `step`-th call."
    calls = [0]
    def call(self, model, batch, at):
        loss, parts = type(objective).__call__(self, model, batch, at)
        calls[0] += 1
        return (act(loss), parts) if calls[0] == step + 1 else (loss, parts)
    clone = type(type(objective).__name__, (type(objective),), {"__call__": call})
    return clone(**vars(objective))


def interrupt(loss): raise Interrupted


def objectives(name):
    return dict(cls=CLS, random=RandomMask, re=lambda: RE(0.01), rekd=lambda: REKD(make_model("bert", 7), 0.01, alpha=None))[name]()


def files(folder):
    "Every file's bytes; of progress.json and metrics.jsonl everything but the clock."
    out = {}
    def timeless(x):
        if isinstance(x, dict): return {k: timeless(v) for k, v in x.items() if k not in ("seconds", "examples_per_second")}
        return [timeless(v) for v in x] if isinstance(x, list) else x
    for f in sorted(folder.rglob("*")):
        if f.is_file():
            name = str(f.relative_to(folder))
            if f.suffix in (".json", ".jsonl"): out[name] = [timeless(json.loads(line)) for line in ([f.read_text()] if f.suffix == ".json" else f.read_text().splitlines())]
            elif f.suffix == ".pt": out[name] = torch.load(f, weights_only=True)
            else: out[name] = f.read_bytes()
    return out


def equal(a, b):
    if isinstance(a, torch.Tensor): return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_run(mine, other):
    a, b = files(mine), files(other)
    assert a.keys() == b.keys()
    for name in a: assert equal(a[name], b[name]), name


def train(objective, out, data, model=None, config=CONFIG, resume=False):
    model = model or make_model("bert", 5)
    torch.manual_seed(random.randrange(10**6)) # the state of the caller must not matter
    return model, fit(model, data, objective, config, seed=3, out=out, resume=resume, quiet=True)


STOPS = sorted({1, 5, 10, *random.Random(0).sample(range(2, STEPS), 4)}) # 1: before the first checkpoint; 5 and 10: just after an epoch's end


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory): return {}


@pytest.mark.parametrize("name, stops", [("cls", [7]), ("random", [13]), *(("re", [s]) for s in STOPS), ("re", [3, 4, 12]), ("rekd", [STOPS[-2]]), ("rekd", [5, 19])])
def test_interrupted_and_resumed_is_uninterrupted(name, stops, whole_runs, tmp_path, tmp_path_factory, text_data):
    if name not in whole_runs: whole_runs[name] = tmp_path_factory.mktemp(name), *train(objectives(name), tmp_path_factory.getbasetemp() / f"whole-{name}", text_data)
    whole, (_, model, history) = tmp_path_factory.getbasetemp() / f"whole-{name}", whole_runs[name]
    out, before = tmp_path / "run", 0
    for stop in stops:
        with pytest.raises(Interrupted): train(at_step(objectives(name), stop - before, interrupt), out, text_data, resume=True)
        newest = sorted(out.glob("checkpoint-*"))
        before = int(newest[-1].name.split("-")[1]) if newest else 0
        assert before == max([s for s in range(stop + 1) if s % 5 == 0 or s % 2 == 0]) # a checkpoint every two steps and at epoch ends
    again, resumed = train(objectives(name), out, text_data, resume=True)
    assert equal(again.state_dict(), model.state_dict())
    assert [r["val"] for r in resumed] == [r["val"] for r in history] and [r["train"] for r in resumed] == [r["train"] for r in history]
    assert_same_run(out, whole)
    assert any(not torch.equal(v, w) for v, w in zip(model.state_dict().values(), make_model("bert", 5).state_dict().values())) # it did learn something


@pytest.mark.parametrize("kind", ["vit", "timm"])
def test_images_with_augmentation_resume_too(kind, tmp_path):
    data, config = tiny.image_data(10, augment=paper_augment), TrainConfig(epochs=2, batch_size=4, lr=1e-3, checkpoint_every=1)
    backbone = dict(hidden_dropout_prob=0.2) if kind == "vit" else None
    run = lambda objective, out, resume=False: train(objective, tmp_path / out, data, make_model(kind, 5, backbone), config, resume)
    run(RE(0.01), "a")
    with pytest.raises(Interrupted): run(at_step(RE(0.01), 4, interrupt), "b")
    run(RE(0.01), "b", True)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_resuming_a_finished_run_only_reads_it(tmp_path, text_data):
    model, history = train(RE(0.01), tmp_path / "run", text_data)
    before = files(tmp_path / "run")
    again, same = train(at_step(RE(0.01), 0, interrupt), tmp_path / "run", text_data, resume=True)
    assert equal(files(tmp_path / "run"), before) and same == history and equal(again.state_dict(), model.state_dict())


def test_a_run_is_not_started_over_an_earlier_one(tmp_path, text_data):
    train(RE(0.01), tmp_path / "run", text_data)
    before = files(tmp_path / "run")
    with pytest.raises(FileExistsError, match="resume"): train(RE(0.01), tmp_path / "run", text_data)
    assert equal(files(tmp_path / "run"), before)


@pytest.mark.parametrize("change", [dict(lr=1e-2), dict(epochs=5), dict(batch_size=6), dict(T_end=0.5)])
def test_a_run_is_not_resumed_under_other_settings(change, tmp_path, text_data):
    with pytest.raises(Interrupted): train(at_step(RE(0.01), 3, interrupt), tmp_path / "run", text_data)
    before = files(tmp_path / "run")
    with pytest.raises(ValueError, match=next(iter(change))): train(RE(0.01), tmp_path / "run", text_data, config=replace(CONFIG, **change), resume=True)
    with pytest.raises(ValueError, match="select_lambda"): train(RE(0.02), tmp_path / "run", text_data, resume=True)
    assert equal(files(tmp_path / "run"), before)


def test_the_seed_decides_everything(text_data):
    config = TrainConfig(epochs=1, batch_size=5, lr=1e-3)
    def run(seed):
        torch.manual_seed(random.randrange(10**6))
        model = make_model("bert", 5)
        fit(model, text_data, RE(0.01), config, seed=seed, quiet=True)
        return model.state_dict()
    assert equal(run(1), run(1)) and not equal(run(1), run(2))


def test_the_best_epoch_is_kept(tmp_path, text_data):
    model, history = train(RE(0.01), tmp_path / "run", text_data)
    losses = [r["val"]["loss"] for r in history]
    best = losses.index(min(losses))
    assert [p.name for p in tmp_path.glob("run/best-*")] == [f"best-{best:03d}"]
    assert evaluate(model, text_data.val, "sampled", select_lambda=0.01) == history[best]["val"]
    in_memory = make_model("bert", 5) # nothing on disk, the same result
    fit(in_memory, text_data, RE(0.01), CONFIG, seed=3, quiet=True)
    assert equal(in_memory.state_dict(), model.state_dict())


# --- divergence ---

@pytest.mark.parametrize("value, step", [(float("nan"), 4), (float("inf"), 5), (float("nan"), 9)])
def test_a_diverged_run_stops_and_keeps_its_last_checkpoint(value, step, tmp_path, text_data):
    out = tmp_path / "run"
    with pytest.raises(Interrupted): train(at_step(RE(0.01), step, interrupt), out, text_data)
    before, newest = files(out), int(sorted(out.glob("checkpoint-*"))[-1].name.split("-")[1])
    with pytest.raises(TrainingDiverged, match=rf"step {step}\b"): train(at_step(RE(0.01), step - newest, lambda loss: loss * value), out, text_data, resume=True)
    after = files(out)
    assert after.pop("diverged.json")[0]["step"] == step and equal(after, before) # nothing else was written
    train(RE(0.01), out, text_data, resume=True) # it can go on from there, and the note is gone
    train(RE(0.01), tmp_path / "whole", text_data)
    assert_same_run(out, tmp_path / "whole")


class InfiniteGradient(torch.autograd.Function):
    "The identity, whose gradient is not a number."
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, grad): return grad * float("nan")


@pytest.mark.parametrize("step, clip", [(3, None), (4, 1.0), (STEPS - 1, None)]) # before a checkpoint, at an epoch's end, at the very end
def test_a_finite_loss_with_a_gradient_that_is_not_does_not_reach_a_checkpoint(step, clip, tmp_path, text_data):
    config = replace(CONFIG, clip=clip)
    with pytest.raises(TrainingDiverged): train(at_step(RE(0.01), step, InfiniteGradient.apply), tmp_path / "run", text_data, config=config)
    for file in (tmp_path / "run").rglob("*.safetensors"): assert all(v.isfinite().all() for v in load_file(file).values()), file


# --- what a run writes ---

@pytest.mark.parametrize("name, parts", [("cls", {"ce"}), ("random", {"ce"}), ("re", {"ce", "sparsity"}), ("rekd", {"ce", "sparsity", "kd_r", "kd_y"})])
def test_metrics_are_a_json_line_an_epoch(name, parts, tmp_path, text_data):
    _, history = train(objectives(name), tmp_path / "run", text_data)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    strict = lambda x: pytest.fail(f"{x} is not JSON")
    rows = [json.loads(line, parse_constant=strict) for line in lines]
    assert rows == history and [r["epoch"] for r in rows] == [0, 1, 2, 3] and [r["step"] for r in rows] == [5, 10, 15, 20]
    for r in rows:
        assert {"temperature", "sparsity_target", "lr", "train", "val", "examples_per_second"} <= r.keys()
        assert r["train"].keys() == parts | {"loss"} and {"loss", "ce", "sparsity", "accuracy", "selection_rate"} <= r["val"].keys()
        assert 0 <= r["val"]["accuracy"] <= 1 and 0 <= r["val"]["selection_rate"] <= 1 and r["examples_per_second"] > 0
    if name == "re":
        assert all(r["train"]["loss"] == pytest.approx(r["train"]["ce"] + 0.01 * r["train"]["sparsity"]) for r in rows)
        assert all(r["val"]["loss"] == pytest.approx(r["val"]["ce"] + 0.01 * r["val"]["sparsity"]) for r in rows)
    # the schedules, at the last step of each epoch: T steps every 3, the target falls to 0.25 in 10 steps, the rate to 0 in 16 after 4 of warm-up
    assert [r["temperature"] for r in rows] == pytest.approx([5 * 0.02 ** (s / 20) for s in (3, 9, 12, 18)])
    assert [r["sparsity_target"] for r in rows] == pytest.approx([0.46, 0.285, 0.25, 0.25])
    assert [r["lr"] for r in rows] == pytest.approx([3e-3 * (20 - s) / 16 for s in (4, 9, 14, 19)])


def test_only_the_last_two_checkpoints_stay_and_no_debris(tmp_path, text_data):
    train(RE(0.01), tmp_path / "run", text_data)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert [n for n in names if n.startswith("checkpoint")] == ["checkpoint-0000018", "checkpoint-0000020"]
    assert len(names) == 4 and not [n for n in names if n.startswith(".")]


def test_a_checkpoint_that_is_cut_short_is_an_error_and_not_a_fresh_start(tmp_path, text_data):
    train(RE(0.01), tmp_path / "run", text_data)
    file = sorted(tmp_path.glob("run/checkpoint-*"))[-1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Exception, match="(?i)header|deserializ|incomplete|buffer"): train(RE(0.01), tmp_path / "run", text_data, resume=True)


# --- what learns ---

def test_cls_and_random_masks_leave_the_generator_alone(text_data):
    for objective in (CLS(), RandomMask()):
        model, _ = train(objective, None, text_data)
        start = make_model("bert", 5)
        assert equal(model.generator.state_dict(), start.generator.state_dict())
        assert not equal(model.predictor.state_dict(), start.predictor.state_dict())


def test_re_can_follow_cls_in_the_same_model(text_data):
    "CLS freezes the generator: RE must wake it up, but for its word table."
    model, _ = train(CLS(), None, text_data)
    warm_start(model)
    assert equal(model.generator.backbone.state_dict(), model.predictor.backbone.state_dict())
    before = {k: v.clone() for k, v in model.generator.state_dict().items()}
    train(RE(0.01), None, text_data, model)
    changed = {k for k, v in model.generator.state_dict().items() if not torch.equal(v, before[k])}
    assert "head.0.weight" in changed and "backbone.net.encoder.layer.0.output.dense.weight" in changed
    assert not [k for k in changed if "word_embeddings" in k]


def test_evaluation_repeats_and_leaves_the_random_state_alone(text_model, text_data):
    state = torch.get_rng_state()
    for mask in ("topk", "deterministic", "sampled", "random", "none"):
        assert evaluate(text_model, text_data.val, mask) == evaluate(text_model, text_data.val, mask)
    assert torch.equal(torch.get_rng_state(), state)
    assert evaluate(text_model, text_data.val, "sampled", seed=0) != evaluate(text_model, text_data.val, "sampled", seed=1)


def test_evaluation_written_out(text_model, text_data):
    "Accuracy, cross-entropy and sparsity from the definitions, one example at a time, against batches of three."
    model, data = text_model, text_data.test
    right, ce, kept, excess = 0, 0.0, 0, 0.0
    with torch.no_grad():
        for i in range(len(data)):
            batch = data.collate([data[i]])
            mask = model.mask(model.select(batch), model.selectable(batch), "topk")
            logits = model.predict(batch, mask)[0]
            n = int(model.selectable(batch).sum())
            right += int(logits.argmax()) == data.labels[i]
            ce -= logits.log_softmax(-1)[data.labels[i]].item()
            kept += int(mask.sum())
            excess += int(mask.sum()) - 0.25 * n
    ours = evaluate(model, data, "topk", batch_size=3, select_lambda=2.0)
    assert ours["accuracy"] == right / len(data)
    assert ours["ce"] == pytest.approx(ce / len(data), abs=1e-5) and ours["sparsity"] == pytest.approx((excess / len(data)) ** 2, abs=1e-5)
    assert ours["loss"] == pytest.approx(ours["ce"] + 2 * ours["sparsity"])
