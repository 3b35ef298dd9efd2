"Every preset's code path, end to end, with tiny random weights in place of the hub's; the command line on top."
import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from rekd.errors import MissingError
from rekd.experiment import OBJECTIVES, PRESETS, append_row, cells, get_preset, planned, read_rows, results_file, run, study
from rekd.model import RationaleModel

WORDS = ["good", "bad", "film", "plot", "cast", "dull", "fine", "the", "a", "is"]
# what paper.md lists: sparsity, select_lambda, then RE's own
PAPER = {
    "paper-imdb-base": (0.10, 5e-5), "paper-imdb-small": (0.10, 1e-4), "paper-imdb-mini": (0.10, 1e-4), "paper-imdb-tiny": (0.10, 2e-4),
    "paper-cifar10-base": (0.15, 5e-3), "paper-cifar10-small": (0.15, 1e-2), "paper-cifar10-tiny": (0.15, 5e-2), "paper-cifar10-tiny-1e-2": (0.15, 1e-2),
    "paper-cifar100-20-base": (0.15, 5e-3), "paper-cifar100-20-small": (0.15, 1e-2), "paper-cifar100-20-tiny": (0.15, 5e-2), "paper-cifar100-20-tiny-1e-2": (0.15, 1e-2),
    "paper-cifar100-100-base": (0.20, 5e-3), "paper-cifar100-100-small": (0.20, 1e-2), "paper-cifar100-100-tiny": (0.20, 5e-2),
}


def tiny_bert(folder, layers=2):
    from transformers import BertConfig, BertModel, BertTokenizerFast
    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(vocab), hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=16)).save_pretrained(folder)
    BertTokenizerFast(vocab=vocab, do_lower_case=True).save_pretrained(folder)


def tiny_vit(folder, patch, layers=3):
    from transformers import ViTConfig, ViTModel
    torch.manual_seed(0)
    ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=16, patch_size=patch, image_size=224 // 14 * patch)).save_pretrained(folder)


def reviews(folder):
    import datasets
    rng = np.random.default_rng(0)
    rows = [dict(text=" ".join(rng.choice(WORDS[2:], 9)) + (" good" if i % 2 else " bad"), label=i % 2) for i in range(40)]
    folder.mkdir(parents=True)
    for part in ("train", "test"): datasets.Dataset.from_list(rows).to_parquet(folder / f"{part}.parquet")


def images(folder, columns):
    import datasets
    rng = np.random.default_rng(0)
    image = lambda: Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    rows = [dict(image=image()) | {c: i % n for c, n in columns.items()} for i in range(2 * max(columns.values()))]
    features = datasets.Features(image=datasets.Image(), **{c: datasets.Value("int64") for c in columns})
    folder.mkdir(parents=True)
    for part in ("train", "test"): datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{part}.parquet")
    (folder / "label_names.json").write_text(json.dumps({c: [f"class {k}" for k in range(n)] for c, n in columns.items()}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "A folder of tiny weights and data that stand in for every hub id of the settings."
    top = tmp_path_factory.mktemp("world")
    for name in ("all-MiniLM-L6-v2", "bert-base-uncased", "bert-small", "bert-mini", "bert-tiny", "minilm-l6-imdb", "minilm-l2-imdb"): tiny_bert(top / "weights" / name, 4)
    for name in ("vit-base-patch16-224", "vit-small-patch16-224", "vit-tiny-patch16-224"): tiny_vit(top / "weights" / name, 16)
    tiny_vit(top / "weights" / "vit-small-patch14", 14, 8)
    for root in ("data", "artifacts/data"): reviews(top / root / "imdb")
    images(top / "data" / "cifar10", dict(label=10))
    images(top / "data" / "cifar100", dict(fine_label=100, coarse_label=20))
    return top


@pytest.fixture
def home(world, tmp_path, monkeypatch):
    "The tiny world as the settings' source, and fresh folders for what is written."
    for key, folder in (("DATA", world / "data"), ("WEIGHTS", world / "weights"), ("RUNS", tmp_path / "runs"), ("ARTIFACTS", world / "artifacts")):
        monkeypatch.setenv(f"REKD_{key}", str(folder))
    monkeypatch.delenv("REKD_SETTINGS", raising=False)
    return tmp_path


def small(name):
    preset = PRESETS[name]
    rows = {"cifar100-100": 200, "cifar100-20": 40, "cifar10": 20}.get(preset.dataset, 20)
    test = {"cifar100-100": 100, "cifar100-20": 20, "cifar10": 10}.get(preset.dataset, 10)
    return replace(preset, n_train=rows, n_test=test, val_share=0.5, cls_epochs=1, image_size=preset.image_size, train=replace(preset.train, epochs=1, batch_size=8 if rows < 100 else 64))


@pytest.mark.parametrize("name", PRESETS)
def test_preset_runs_end_to_end(name, home):
    "RE, then REKD from that RE model, on the preset's own path through settings, data, model, loop and evaluation."
    preset = small(name)
    teacher, row = run(name, "re", preset=preset, out=home / "re", quiet=True)
    assert row["config"]["sparsity"] == preset.sparsity and row["config"]["train"]["lr"] == (PRESETS[name].re_lr or PRESETS[name].train.lr)
    _, row = run(name, "rekd", preset=preset, teacher=str(home / "re" / "model"), out=home / "rekd", quiet=True)
    assert row["config"]["train"]["lr"] == PRESETS[name].train.lr
    assert set(row["masks"]) == {"topk", "deterministic", "sampled"}
    assert {"ce", "sparsity", "kd_r", "kd_y", "kept", "agreement", "loss"} == set(row["epochs"][0]["train"])
    assert abs(row["masks"]["topk"]["selection_rate"] - preset.sparsity) < 0.1
    again = RationaleModel.from_pretrained(home / "rekd" / "model")
    assert again.config.sparsity == preset.sparsity and again.config.labels == teacher.config.labels


def test_paper_rows_are_the_papers():
    "To the letter: paper.md's table and its common settings."
    assert {k for k in PRESETS if k.startswith("paper-")} == set(PAPER)
    for name, (sparsity, select_lambda) in PAPER.items():
        p = PRESETS[name]
        assert (p.sparsity, p.select_lambda) == (sparsity, select_lambda), name
        assert p.re_select_lambda == (5e-5 if name == "paper-imdb-mini" else None)
        assert (p.train.lr, p.train.batch_size, p.train.epochs, p.cls_epochs) == (1e-5, 32, 35, 20)
        assert (p.train.T_start, p.train.T_end, p.train.T_every, p.train.eval_mask) == (5.0, 0.1, 100, "sampled")
        assert not p.train.decay and not p.train.warmup and p.train.clip is None and p.train.sparsity_start is None
        assert (p.alpha, p.kd_r_lambda, p.part, p.noise, p.pool, p.select_special, p.freeze_embeddings, p.val_share) == (0.3, 0.5, "both", "independent", "cls", True, "generator", 0.2)
        text = p.dataset == "imdb"
        assert (p.dropout, p.train.weight_decay) == ((0.5, 0.0) if text else (0.1, 1e-3))
        assert p.max_length == 256 if text else p.image_size == 224
        assert p.teacher == (None if name.endswith("-base") else f"paper-{p.dataset}-base")


def test_warm_start_trains_cls_once(home):
    preset = small("demo")
    _, row = run("demo", "re", seed=1, start="warm", preset=preset, quiet=True)
    first = (home / "runs" / "demo" / "cls-paper-1" / "model" / "model.safetensors").stat().st_mtime_ns
    run("demo", "rekd", seed=1, start="warm", preset=preset, teacher=str(home / "runs" / "demo" / "re-warm-1" / "model"), quiet=True)
    assert (home / "runs" / "demo" / "cls-paper-1" / "model" / "model.safetensors").stat().st_mtime_ns == first
    assert row["config"]["train"]["sparsity_start"] == 0.5
    with pytest.raises(ValueError, match="cls-paper-1 was made with dropout=0.1, this run has 0.3"): run("demo", "re", seed=1, start="warm", preset=replace(preset, dropout=0.3), resume=True)


def test_a_warm_start_is_not_taken_from_other_rows(home, tmp_path):
    import datasets
    def write(word):
        (tmp_path / "mine").mkdir(exist_ok=True)
        for part in ("train", "test"): datasets.Dataset.from_list([dict(text=f"the film was {word}", label=i % 2) for i in range(20)]).to_parquet(tmp_path / "mine" / f"{part}.parquet")
    preset = replace(small("demo"), dataset=str(tmp_path / "mine"), starter=False)
    write("good")
    run("demo", "re", seed=1, start="warm", preset=preset, quiet=True, out=home / "runs" / "mine" / "a")
    write("bad")
    with pytest.raises(ValueError, match="cls-paper-1 learned from other rows"): run("demo", "re", seed=1, start="warm", preset=preset, quiet=True, out=home / "runs" / "mine" / "b")


def test_a_study_looks_for_the_teachers_of_its_variants_first(home, monkeypatch):
    import rekd.experiment as experiment
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    monkeypatch.setattr(experiment, "run", lambda *a, **k: pytest.fail("trained before the teachers were looked for"))
    monkeypatch.setattr(experiment, "load_teacher", lambda preset, t=None: (_ for _ in ()).throw(MissingError(t)) if "weak" in t else None)
    with pytest.raises(MissingError, match="cpu-imdb-weak-teacher"): study("cpu-imdb-ablations", seeds=[1])


def test_re_and_rekd_start_alike(home):
    from rekd.experiment import prepare
    a, b = (prepare(small("demo"), seed=7)[0].state_dict() for _ in range(2))
    c = prepare(small("demo"), seed=8)[0].state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_study_goes_on_where_it_stopped(home, monkeypatch):
    import rekd.experiment as experiment
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    ran, config = [], dataclasses.asdict(get_preset("demo"))
    monkeypatch.setattr(experiment, "run", lambda name, objective, seed, start, *a, **k: (None, dict(objective=objective, start=start, seed=seed, config=config)) if not ran.append((objective, start, seed)) else None)
    append_row(results_file("demo"), dict(objective="re", start="paper", seed=1, config=config))
    rows = study("demo", ["cls", "re"], [1, 2], ["paper", "warm"])
    assert ran == [c for c in cells(["cls", "re"], [1, 2], ["paper", "warm"]) if c != ("re", "paper", 1)]
    assert len(rows) == 6 and read_rows(results_file("demo")) == rows
    assert [r["objective"] for r in planned("mine", seeds=[1], preset=get_preset("demo"))] == ["cls", "random", "re", "rekd"] # a preset of one's own
    with pytest.raises(ValueError, match="alpha=0.3, this run has 0.5"): study("demo", ["cls"], [3], preset=get_preset("demo", alpha=0.5))
    with pytest.raises(ValueError, match="lr=0.0001, this run has 0.5"): study("demo", ["cls"], [3], preset=get_preset("demo", lr=0.5))
    with pytest.raises(ValueError, match="teacher='imdb-teacher', this run has 'another'"): study("demo", ["rekd"], [3], teacher="another")


def test_a_search_runs_its_variants_and_is_judged_by_validation(home, monkeypatch):
    import rekd.experiment as experiment
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    ran = []
    def fake(name, objective, seed, start, preset, out, resume, quiet, part):
        ran.append((objective, start, seed, preset.sparsity_per, preset.train.lr, part, out.name))
        return None, dict(objective=objective, start=start, seed=seed, config=dataclasses.asdict(replace(preset, train=experiment.loop_of(preset, objective, start))))
    monkeypatch.setattr(experiment, "run", fake)
    rows = study("cpu-imdb-search", ["re"], starts=["warm"])
    assert [(r["variant"], r["seed"]) for r in rows] == [("example-lr2", 2024), ("example-lr4", 2024)]
    assert ran == [("re", "warm", 2024, "example", 2e-4, "val", "re-warm-2024-example-lr2"), ("re", "warm", 2024, "example", 4e-4, "val", "re-warm-2024-example-lr4")]
    assert study("cpu-imdb-search", ["re"], starts=["warm"]) == rows and len(ran) == 2
    left = [(r["objective"], r["variant"]) for r in planned("cpu-imdb-search") if not r["done"]]
    assert ("cls", "lr2") in left and ("re", "example-lr4-curriculum") in left and len(left) == 20


def test_a_run_that_another_process_makes_is_left_to_it(home, monkeypatch, capsys):
    import rekd.experiment as experiment
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    config = dataclasses.asdict(get_preset("demo"))
    monkeypatch.setattr(experiment, "run", lambda name, objective, seed, start, *a, **k: (None, dict(objective=objective, start=start, seed=seed, config=config)))
    monkeypatch.setattr(experiment, "load_teacher", lambda preset, teacher=None: None)
    with experiment.claimed(experiment.run_folder("demo", "re", "paper", 5)): rows = study("demo", ["re", "rekd"], [5], ["paper"])
    assert [r["objective"] for r in rows] == ["rekd"] and "re-paper-5.lock" in capsys.readouterr().out
    assert [r["objective"] for r in study("demo", ["re", "rekd"], [5], ["paper"])] == ["rekd", "re"]


def test_a_study_without_its_teacher_trains_nothing(home, monkeypatch):
    import rekd.experiment as experiment
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    monkeypatch.setattr(experiment, "run", lambda *a, **k: pytest.fail("trained before the teacher was looked for"))
    with pytest.raises(MissingError, match="cpu-cifar10-teacher --objective re --start warm"): study("cpu-cifar10", ["cls", "rekd"], [1], ["paper"])
    assert "rekd" not in {r["objective"] for r in planned("paper-imdb-base")} and "rekd" in {r["objective"] for r in planned("paper-imdb-mini")}


def test_a_teacher_is_asked_about_each_image_and_its_mirror_image_once(tmp_path, monkeypatch):
    from rekd.experiment import remember
    from rekd.loss import REKD
    teacher, examples = tiny.make_model("vit", 1), tiny.image_examples(6, 0, mirror=True)
    asked = remember(REKD(teacher), examples, "no", tmp_path)
    monkeypatch.setattr(REKD, "remember", lambda *a: pytest.fail("asked again"))
    looked_up = remember(REKD(teacher), examples, "no", tmp_path)
    assert looked_up.cache.keys() == set(range(12)) and all(torch.equal(row, asked.cache[i]) for i, row in looked_up.cache.items())
    batch = examples.collate([examples[i] for i in (2, 8)])
    torch.testing.assert_close(looked_up.teacher_logits(batch), teacher.select(batch), atol=1e-6, rtol=0)
    for other in ((REKD(tiny.make_model("vit", 2)), examples, "no"), (REKD(teacher), tiny.image_examples(6, 1, mirror=True), "no"), (REKD(teacher), examples, "bf16")):
        with pytest.raises(pytest.fail.Exception, match="asked again"): remember(*other, tmp_path)


@pytest.mark.parametrize("wrong, hint", [
    (lambda: get_preset("papper-imdb-small"), "paper-imdb-small"),
    (lambda: get_preset("demo", epoch=1), "epochs"),
    (lambda: get_preset("demo", lr="high"), "lr must be float, got 'high'"),
    (lambda: get_preset("demo", epochs=1.5), "epochs must be int, got 1.5"),
    (lambda: get_preset("demo", starter=1), "starter must be bool, got 1"),
    (lambda: run("demo", "rkd"), "rekd"),
    (lambda: run("demo", "cls", start="warm"), "warm"),
    (lambda: run("demo", "re", start="cold"), "cold"),
])
def test_wrong_names_are_answered(wrong, hint, home):
    with pytest.raises(ValueError, match=hint): wrong()


def test_whole_numbers_pass_for_floats_and_none_where_it_may_stand():
    p = get_preset("demo", sparsity_start=1, alpha=None, n_train=None, clip=2)
    assert (p.train.sparsity_start, p.alpha, p.n_train, p.train.clip) == (1, None, None, 2)


def test_objectives_are_all_there(): assert OBJECTIVES == ("cls", "random", "re", "rekd")
