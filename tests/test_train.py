"""Interrupted and resumed is the same as never interrupted, bit for bit; a diverged run keeps its last good checkpoint; what is written can be read."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from rekd.data import paper_augment
from rekd.errors import DataError, ModelError, SettingError, WriteError
from rekd.objective import CLS, RE, REKD, RandomMask
from rekd.model import RationaleModel
from rekd.train import TrainConfig, TrainingDiverged, fit, validate, warm_start
from tiny import make_model

# 24 texts: 5 batches an epoch, the last one small; every option that has a state or a schedule is on
CONFIG = TrainConfig(epochs=4, batch_size=5, lr=3e-3, head_lr=1e-2, weight_decay=0.01, warmup=0.2, decay=True, clip=1.0, T_every=3, sparsity_start=0.6, checkpoint_every=2)
STEPS = 20


class Interrupted(Exception): pass


def at_step(objective, step, act):
    "The objective, that calls `act(loss)` in place of returning the loss of its `step`-th call."
    calls = [0]
    def call(self, model, batch, context):
        loss, parts = type(objective).__call__(self, model, batch, context)
        calls[0] += 1
        return (act(loss), parts) if calls[0] == step + 1 else (loss, parts)
    clone = type(type(objective).__name__, (type(objective),), {"__call__": call})
    return clone(**vars(objective))


def interrupt(loss): raise Interrupted


def objectives(name):
    return dict(cls=CLS, random=RandomMask, re=lambda: RE(0.01), rekd=lambda: REKD(make_model("bert", 7), 0.01, alpha=None))[name]()


def files(folder):
    "Every file's bytes; of progress.json and metrics.jsonl everything but the clock, of checksums.json all but that of progress.json."
    out = {}
    def timeless(x):
        if isinstance(x, dict): return {k: timeless(v) for k, v in x.items() if k not in ("seconds", "examples_per_second", "progress.json")}
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


def train(objective, out, data, model=None, config=CONFIG, resume=False, callbacks=()):
    model = model or make_model("bert", 5)
    torch.manual_seed(random.randrange(10**6)) # the state of the caller must not matter
    return model, fit(model, data, objective, config, seed=3, out=out, resume=resume, quiet=True, callbacks=callbacks)


def unfinished(objective, out, data, config=CONFIG, resume=False):
    "All steps of a run, but for its finish: the last checkpoints are still there."
    def stop(row):
        if row["epoch"] == config.epochs - 1: raise Interrupted
    with pytest.raises(Interrupted): train(objective, out, data, config=config, resume=resume, callbacks=[stop])


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
    steps = tmp_path_factory.getbasetemp() / f"steps-{name}"
    if not steps.exists(): unfinished(objectives(name), steps, text_data)
    unfinished(objectives(name), out, text_data, resume=True)
    assert_same_run(out, steps) # the optimizer too
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
    with pytest.raises(WriteError, match="resume"): train(RE(0.01), tmp_path / "run", text_data)
    assert equal(files(tmp_path / "run"), before)


@pytest.mark.parametrize("change", [dict(lr=1e-2), dict(epochs=5), dict(batch_size=6), dict(T_end=0.5)])
def test_a_run_is_not_resumed_under_other_settings(change, tmp_path, text_data):
    with pytest.raises(Interrupted): train(at_step(RE(0.01), 3, interrupt), tmp_path / "run", text_data)
    before = files(tmp_path / "run")
    with pytest.raises(SettingError, match=next(iter(change))): train(RE(0.01), tmp_path / "run", text_data, config=replace(CONFIG, **change), resume=True)
    with pytest.raises(SettingError, match="select_lambda"): train(RE(0.02), tmp_path / "run", text_data, resume=True)
    assert equal(files(tmp_path / "run"), before)


@pytest.mark.parametrize("change", [dict(sparsity=0.5), dict(dropout=0.3), dict(select_special=True)])
def test_a_run_is_not_resumed_with_another_network_or_other_data(change, tmp_path, text_data):
    with pytest.raises(Interrupted): train(at_step(RE(0.01), 3, interrupt), tmp_path / "run", text_data)
    before = files(tmp_path / "run")
    with pytest.raises(SettingError, match=next(iter(change))): train(RE(0.01), tmp_path / "run", text_data, make_model("bert", 5, **change), resume=True)
    for others in (tiny.text_data(seed=77), replace(text_data, train=tiny.text_examples(list(text_data.train.rows["input"]), [1 - y for y in text_data.train.labels]))):
        with pytest.raises(SettingError, match="data="): train(RE(0.01), tmp_path / "run", others, resume=True)
    assert equal(files(tmp_path / "run"), before)


def test_a_run_is_not_resumed_into_a_network_of_the_same_shapes(tmp_path, text_data):
    "Other heads and another activation have the same weights' shapes."
    with pytest.raises(Interrupted): train(at_step(RE(0.01), 3, interrupt), tmp_path / "run", text_data)
    other = make_model("bert", 5, backbone=dict(num_attention_heads=4, hidden_act="relu"))
    with pytest.raises(SettingError, match="backbone"): train(RE(0.01), tmp_path / "run", text_data, other, resume=True)


def test_a_teachers_answers_to_other_data_are_refused(text_model, text_data):
    other, batch = tiny.text_data(seed=77), text_data.train.collate([text_data.train[i] for i in range(24)])
    objective = REKD(make_model("bert", 1)).remember([batch], of=text_data.train.fingerprint())
    with pytest.raises(DataError, match="other examples"): fit(text_model, other, objective, CONFIG)
    with pytest.raises(DataError, match="other examples"): fit(text_model, text_data, REKD(make_model("bert", 1)).remember([batch]), CONFIG)
    fit(make_model("bert", 5), text_data, objective, replace(CONFIG, epochs=1), quiet=True)


def test_a_model_that_never_selected_neither_explains_nor_teaches(tmp_path, text_data):
    for objective in (CLS(), RandomMask()):
        model, _ = train(objective, None, text_data, config=replace(CONFIG, epochs=1))
        model.save_pretrained(tmp_path / "model")
        model = RationaleModel.from_pretrained(tmp_path / "model")
        with pytest.raises(ModelError, match="no rationale"): model.explain("good film")
        with pytest.raises(ModelError, match="a teacher is an RE"): REKD(model)
        assert "was not trained" in (tmp_path / "model" / "README.md").read_text()
    train(RE(0.01), None, text_data, warm_start(model), replace(CONFIG, epochs=1))
    assert REKD(model).teacher.explain("good film").features == ["good", "film"]


def test_two_do_not_train_into_one_folder(tmp_path, text_data):
    said = []
    def meanwhile(loss):
        with torch.random.fork_rng(), pytest.raises(WriteError, match="in use") as e: train(RE(0.01), tmp_path / "run", text_data, resume=True)
        said.append(e.value)
        return loss
    train(at_step(RE(0.01), 7, meanwhile), tmp_path / "run", text_data)
    assert said and equal(train(RE(0.01), None, text_data)[0].state_dict(), train(RE(0.01), tmp_path / "run", text_data, resume=True)[0].state_dict())


def test_a_teacher_can_go_on_learning_and_its_old_numbers_are_dropped(text_data):
    teacher = make_model("bert", 7)
    train(REKD(teacher, 0.01), None, text_data)
    assert equal(teacher.state_dict(), make_model("bert", 7).state_dict())
    teacher.metrics, teacher.picture = dict(dataset="x", examples=1, masks={}), b"png"
    train(RE(0.01), None, text_data, teacher)
    assert not equal(teacher.predictor.state_dict(), make_model("bert", 7).predictor.state_dict())
    assert teacher.metrics is None and teacher.picture is None


def test_the_seed_decides_everything(text_data):
    config = TrainConfig(epochs=1, batch_size=5, lr=1e-3)
    def run(seed):
        torch.manual_seed(random.randrange(10**6))
        model = make_model("bert", 5)
        fit(model, text_data, RE(0.01), config, seed=seed, quiet=True)
        return model.state_dict()
    assert equal(run(1), run(1)) and not equal(run(1), run(2))


@pytest.mark.trains
def test_the_best_epoch_is_kept(tmp_path, text_data):
    model, history = train(RE(0.01), tmp_path / "run", text_data)
    losses = [r["val"]["loss"] for r in history]
    best = min((i for i in range(4) if history[i]["at_goal"]), key=losses.__getitem__)
    assert equal(load_file(tmp_path / "run" / "model" / "model.safetensors"), {k: v for k, v in model.state_dict().items()})
    assert validate(model, text_data.val, "sampled", select_lambda=0.01) == history[best]["val"]
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

@pytest.mark.parametrize("name, parts", [("cls", {"ce"}), ("random", {"ce"}), ("re", {"ce", "sparsity", "kept"}), ("rekd", {"ce", "sparsity", "kd_r", "kd_y", "kept", "agreement"})])
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
    unfinished(RE(0.01), tmp_path / "run", text_data)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert [n for n in names if n.startswith("checkpoint")] == ["checkpoint-0000018", "checkpoint-0000020"]
    assert len(names) == 4 and not [n for n in names if n.startswith(".")]
    train(RE(0.01), tmp_path / "run", text_data, resume=True)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"finished.json", "metrics.jsonl", "model"}


DAMAGE = {
    "weights cut": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
    "weights empty": lambda f: (f / "model.safetensors").write_bytes(b""),
    "one bit of the weights": lambda f: flip(f / "model.safetensors", -1),
    "one bit of the optimizer": lambda f: flip(f / "optimizer.pt", 4000),
    "junk for an optimizer": lambda f: (f / "optimizer.pt").write_bytes(b"junk"),
    "half the progress": lambda f: (f / "progress.json").write_text((f / "progress.json").read_text()[:200]),
    "no progress": lambda f: (f / "progress.json").unlink(),
    "binary progress": lambda f: (f / "progress.json").write_bytes(b"\xff\xfe\x00"),
    "no checksums": lambda f: (f / "checksums.json").unlink(),
    "a list of checksums": lambda f: (f / "checksums.json").write_text("[1]"),
    "empty": lambda f: [x.unlink() for x in f.iterdir()],
}


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A run whose steps are all done, before it was finished; the model and the history of the finished one."
    folder = tmp_path_factory.mktemp("finished")
    unfinished(RE(0.01), folder / "run", tiny.text_data())
    return folder / "run", *train(RE(0.01), folder / "whole", tiny.text_data())


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(how, finished, tmp_path, text_data):
    whole, model, history = finished
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    newest = sorted(out.glob("checkpoint-*"))[-1]
    DAMAGE[how](newest)
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged .*: going on from checkpoint-0000018"):
        again, resumed = train(RE(0.01), out, text_data, resume=True)
    assert equal(again.state_dict(), model.state_dict()) and [r["val"] for r in resumed] == [r["val"] for r in history]
    assert_same_run(out, whole.with_name("whole"))


@pytest.mark.parametrize("how", ["weights cut", "empty"])
def test_if_no_checkpoint_is_sound_nothing_is_touched(how, finished, tmp_path, text_data):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    for folder in out.glob("checkpoint-*"): DAMAGE[how](folder)
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    with pytest.raises(ModelError, match="checkpoint-0000020 is damaged .*checkpoint-0000018 is damaged .*nothing to go on from"):
        train(RE(0.01), out, text_data, resume=True)
    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == before


def test_a_checkpoint_of_another_version_is_refused(finished, tmp_path, text_data):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    for folder in out.glob("checkpoint-*"):
        file = folder / "progress.json"
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "format"}))
    with pytest.raises(ModelError, match="another version"): train(RE(0.01), out, text_data, resume=True)


def test_another_teacher_is_refused(tmp_path, text_data):
    run = lambda seed, resume=False: train(REKD(make_model("bert", seed), 0.01), tmp_path / "run", text_data, config=replace(CONFIG, epochs=1), resume=resume)
    run(7)
    run(7, True) # the same weights, another object
    with pytest.raises(SettingError, match="teacher="): run(8, True)


def test_progress_tells_what_a_result_depends_on(finished):
    config = json.loads((finished[0] / "checkpoint-0000020" / "progress.json").read_text())["config"]
    assert {k: config[k] for k in ("seed", "processes", "threads", "num_workers", "device", "torch", "teacher")} == dict(
        seed=3, processes=1, threads=torch.get_num_threads(), num_workers=0, device="cpu", torch=torch.__version__, teacher=None)


def test_other_threads_are_a_warning(finished, tmp_path, text_data):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    n = torch.get_num_threads()
    torch.set_num_threads(n + 1)
    try:
        with pytest.warns(UserWarning, match=f"threads={n}, and now threads={n + 1}"): train(RE(0.01), out, text_data, resume=True)
    finally: torch.set_num_threads(n)


def test_a_kill_leaves_nothing_behind_after_a_resume(finished, tmp_path, text_data):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    (out / ".checkpoint-0000022.tmp").mkdir()
    (out / ".checkpoint-0000022.tmp" / "model.safetensors").write_bytes(b"half")
    (out / ".metrics.jsonl.tmp").write_text("half")
    train(RE(0.01), out, text_data, resume=True)
    assert_same_run(out, finished[0].with_name("whole"))


def test_what_cannot_be_written_is_said(tmp_path, text_data, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WriteError, match="cannot write .*file/run"): train(RE(0.01), tmp_path / "file" / "run", text_data)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard)) # as on a full disk: the weights do not fit
    try:
        with pytest.raises(WriteError, match="cannot write .*(checkpoint|best)"): train(RE(0.01), tmp_path / "run", text_data)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "run").iterdir())
    train(RE(0.01), tmp_path / "run", text_data) # there is room again


# --- what does not fit together ---

@pytest.mark.parametrize("bad", [dict(epochs=0), dict(epochs=1.5), dict(batch_size=True), dict(lr=0), dict(lr=float("nan")), dict(lr="fast"), dict(T_end=0), dict(T_start=-1),
                                 dict(T_start=0.05), dict(clip=0), dict(warmup=1.5), dict(sparsity_start=0), dict(num_workers=-1), dict(eval_mask="none"), dict(precision="fp16")])
def test_settings_without_sense(bad):
    with pytest.raises(SettingError, match=next(iter(bad))): TrainConfig(**bad)


def test_parts_that_do_not_fit_are_refused_before_training(text_model, text_data, image_model):
    for objective in (RE, "re", None, lambda *_: 0):
        with pytest.raises(SettingError, match="objective must be"): fit(text_model, text_data, objective, CONFIG)
    with pytest.raises(DataError, match="the train part of the data is empty"): fit(text_model, replace(text_data, train=[]), RE(), CONFIG)
    with pytest.raises(DataError, match="classes"): fit(text_model, replace(text_data, labels=["positive", "negative"]), RE(), CONFIG)
    with pytest.raises(ModelError, match="same inputs"): fit(text_model, text_data, REKD(image_model), CONFIG)
    with pytest.raises(SettingError, match="did you mean 'topk'"): validate(text_model, text_data.val, "tokp")
    with pytest.raises(DataError, match="no examples"): validate(text_model, [], "topk")


@pytest.mark.parametrize("change, what", [(dict(labels=["a", "b", "c"]), "classes"), (dict(size=32), "size"), (dict(patch=8), "patch"), (dict(mean=(0, 0, 0)), "mean")])
def test_a_teacher_of_another_kind_is_refused(change, what):
    student, teacher = make_model("vit"), make_model("vit", 1)
    for key, value in change.items(): setattr(teacher.config if key == "labels" else teacher.processor, key, value)
    with pytest.raises(ModelError, match=f"same {what}"): REKD(teacher).fits(student)


def test_a_teacher_that_reads_less_far_is_refused():
    student = make_model("bigru")
    student.processor.max_length = 80
    with pytest.raises(ModelError, match="up to 80 word pieces, the teacher has 64"): REKD(make_model("bert", 1)).fits(student)


def test_a_teacher_with_other_words_is_refused():
    student, teacher = make_model("bert"), make_model("bert", 1)
    teacher.processor.tokenizer.add_tokens(["more"])
    with pytest.raises(ModelError, match="same pieces: the teacher has 32 word pieces, the student 31"): REKD(teacher).fits(student)


# --- the same twice ---

@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_workers_do_not_change_a_bit(kind):
    "The same weights with 0, 1 and 2 processes that prepare batches; images are augmented."
    data, out = tiny.text_data() if kind == "bert" else tiny.image_data(augment=paper_augment), []
    for workers in (0, 1, 2):
        config = TrainConfig(epochs=2, batch_size=5, lr=3e-3, num_workers=workers)
        out.append(train(RE(0.01), None, data, make_model(kind, 5), config)[0].state_dict())
    assert equal(out[0], out[1]) and equal(out[0], out[2])


# --- precision ---

@pytest.mark.trains
def test_bf16_on_the_cpu_trains_and_resumes(tmp_path, text_data):
    config = replace(CONFIG, precision="bf16")
    whole, history = train(RE(0.01), tmp_path / "whole", text_data, config=config)
    _, full = train(RE(0.01), None, text_data)
    assert all(v.dtype == torch.float32 for v in whole.parameters())
    assert history[0]["train"]["loss"] == pytest.approx(full[0]["train"]["loss"], rel=0.1) and history[0]["train"] != full[0]["train"]
    with pytest.raises(Interrupted): train(at_step(RE(0.01), 7, interrupt), tmp_path / "cut", text_data, config=config)
    train(RE(0.01), tmp_path / "cut", text_data, config=config, resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


GPU = """
import torch
if not torch.cuda.is_available(): raise SystemExit(77)
import tiny
from dataclasses import asdict
from rekd.objective import RE, REKD
from rekd.train import TrainConfig, fit, validate
for precision in ("no", "bf16"):
    config = TrainConfig(epochs=2, batch_size=5, lr=3e-3, precision=precision, checkpoint_every=2)
    for name, objective in dict(re=RE(0.01), rekd=REKD(tiny.make_model("bert", 7), 0.01)).items():
        model, out = tiny.make_model("bert", 5), f"{name}-{precision}"
        history = fit(model, tiny.text_data(), objective, config, out=out, quiet=True)
        assert model.device.type == "cuda" and all(p.isfinite().all() for p in model.parameters())
        assert fit(tiny.make_model("bert", 5), tiny.text_data(), objective, config, out=out, quiet=True, resume=True) == history
        assert validate(model, tiny.text_data().val, "sampled") == validate(model, tiny.text_data().val, "sampled")
"""


def test_on_a_gpu_if_there_is_one(tmp_path):
    "In a process of its own: these tests hide GPUs from torch."
    env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", GPU], capture_output=True, text=True, cwd=tmp_path, env=env | dict(PYTHONPATH=os.pathsep.join(p for p in sys.path if p)))
    if done.returncode == 77: pytest.skip("there is no GPU")
    assert done.returncode == 0, done.stderr


# --- what learns ---

def test_cls_and_random_masks_leave_the_generator_alone(text_data):
    for objective in (CLS(), RandomMask()):
        model, _ = train(objective, None, text_data)
        start = make_model("bert", 5)
        assert equal(model.generator.state_dict(), start.generator.state_dict())
        assert not equal(model.predictor.state_dict(), start.predictor.state_dict())


def test_a_refused_training_leaves_the_model_as_it_was(text_data, tmp_path):
    "The model could explain before, and still can."
    model = make_model("bert")
    fit(model, text_data, RE(0.01), CONFIG, out=tmp_path / "re")
    with pytest.raises(WriteError, match="finished run"): fit(model, text_data, CLS(), CONFIG, out=tmp_path / "re")
    assert model.config.selects and model.explain("the film was good").features
    with pytest.raises(ModelError, match="its own teacher"): fit(model, text_data, REKD(model, 0.01), CONFIG)


def test_what_was_frozen_stays_frozen_and_nothing_else_is(text_data):
    "A backbone that shall not learn does not, under any objective; a generator that CLS left alone can learn afterwards."
    model = make_model("bert", 5)
    model.generator.backbone.requires_grad_(False)
    before = {k: v.clone() for k, v in model.generator.state_dict().items()}
    train(RE(0.01), None, text_data, model)
    moved = {k for k, v in model.generator.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith("head") for k in moved)
    model, _ = train(CLS(), None, text_data)
    assert any(p.requires_grad for p in model.generator.head.parameters())


@dataclass
class Weighted(RE):
    "Class weights of its own, a field."
    weights: tuple = (1.0, 1.0)


def test_a_resume_compares_what_the_objective_holds(text_data, tmp_path):
    train(Weighted(0.01, weights=(1.0, 2.0)), tmp_path / "run", text_data)
    with pytest.raises(SettingError, match="weights"): train(Weighted(0.01, weights=(1.0, 50.0)), tmp_path / "run", text_data, resume=True)
    train(Weighted(0.01, weights=(1.0, 2.0)), tmp_path / "run", text_data, resume=True)


def test_a_teacher_inside_a_module_stays_in_eval_mode(text_data):
    class Watch(torch.nn.Module):
        selects, seen = True, []
        def __init__(self, teacher):
            super().__init__()
            self.teacher = teacher.eval()
        def forward(self, model, batch, context):
            self.seen.append((model.training, self.teacher.training))
            return RE(0.01)(model, batch, context)
    train(Watch(make_model("bert", 6)), None, text_data)
    assert set(Watch.seen) == {(True, False)}


def test_re_can_follow_cls_in_the_same_model(text_data):
    "The generator learns after CLS, but for its word table."
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
        assert validate(text_model, text_data.val, mask) == validate(text_model, text_data.val, mask)
    assert torch.equal(torch.get_rng_state(), state)
    assert validate(text_model, text_data.val, "sampled", seed=0) != validate(text_model, text_data.val, "sampled", seed=1)


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
    ours = validate(model, data, "topk", batch_size=3, select_lambda=2.0)
    assert ours["accuracy"] == right / len(data)
    assert ours["ce"] == pytest.approx(ce / len(data), abs=1e-5) and ours["sparsity"] == pytest.approx((excess / len(data)) ** 2, abs=1e-5)
    assert ours["loss"] == pytest.approx(ours["ce"] + 2 * ours["sparsity"])


def test_the_predictors_head_has_a_rate_of_its_own():
    "With next to no rate for the rest, `head_lr` moves the predictor's head and nothing else; without it the head stays with them."
    data = tiny.text_data()
    for head_lr, moves in ((1e-2, True), (None, False)):
        model = make_model("bert")
        before = {k: v.clone() for k, v in model.state_dict().items()}
        fit(model, data, RE(0.01), TrainConfig(epochs=1, batch_size=8, lr=1e-12, head_lr=head_lr))
        moved = {k for k, v in model.state_dict().items() if (v - before[k]).abs().max() > 1e-6}
        assert moved == ({"predictor.head.weight", "predictor.head.bias"} if moves else set())


def test_the_generators_head_has_a_rate_of_its_own():
    "From the blind start its last layer is zero, and what is behind it learns only once that has moved."
    model, data = make_model("bert"), tiny.text_data()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit(model, data, RE(0.01), TrainConfig(epochs=1, batch_size=8, lr=1e-12, generator_head_lr=1e-2))
    moved = {k for k, v in model.state_dict().items() if (v - before[k]).abs().max() > 1e-6}
    assert moved == {k for k in before if k.startswith("generator.head.")}
    fit(make_model("bert"), data, CLS(), TrainConfig(epochs=1, batch_size=8, generator_head_lr=1e-2)) # it has nothing to learn there


@pytest.mark.parametrize("bad", [0, -1e-3, "1e-3", float("nan")])
def test_a_head_rate_that_makes_no_sense_is_refused(bad):
    for name in ("head_lr", "generator_head_lr"):
        with pytest.raises(SettingError, match=f"^{name} "): TrainConfig(**{name: bad})


def test_an_objective_may_hold_an_array(tmp_path, text_data):
    from dataclasses import dataclass, field
    @dataclass
    class Weighted(CLS):
        weights: np.ndarray = field(default_factory=lambda: np.ones(2))
    train(Weighted(), tmp_path / "w", text_data, config=TrainConfig(epochs=1, batch_size=5, precision="no"))
