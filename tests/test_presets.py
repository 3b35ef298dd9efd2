"Every preset's code path, end to end, with tiny random weights in place of the hub's; the command line on top."
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from rekd.errors import MissingError
from rekd.model import RationaleModel, build_model
from rekd.preset import objectives, preset_files, resolve
from rekd.run import run
from rekd.study import append_row, cells, planned, read_rows, results_file, study

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
    teacher = build_model(str(top / "weights" / "minilm-l2-imdb"), ["negative", "positive"], pool="mean", max_length=128)
    teacher.save_pretrained(top / "artifacts" / "models" / "imdb-teacher")
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
    "Overrides that make a run of a preset short."
    data = resolve(name, "re").data.name
    rows = {"cifar100-100": 200, "cifar100-20": 40, "cifar10": 20}.get(data, 20)
    test = {"cifar100-100": 100, "cifar100-20": 20, "cifar10": 10}.get(data, 10)
    return dict(n_train=rows, n_test=test, val_share=0.5, epochs=1, batch_size=8 if rows < 100 else 64)


@pytest.mark.parametrize("name", preset_files())
def test_preset_runs_end_to_end(name, home):
    "RE, then REKD from that RE model, on the preset's own path through settings, data, model, loop and evaluation."
    changes = small(name)
    teacher, row = run(name, "re", overrides=changes, out=home / "re", quiet=True)
    re, rekd = (resolve(name, o) for o in ("re", "rekd"))
    assert row["config"] == json.loads(json.dumps(asdict(resolve(name, "re", overrides=changes))))
    assert (row["config"]["model"]["sparsity"], row["config"]["train"]["lr"]) == (re.model.sparsity, re.train.lr)
    _, row = run(name, "rekd", overrides=changes, teacher=str(home / "re" / "model"), out=home / "rekd", quiet=True)
    assert row["config"]["train"]["lr"] == rekd.train.lr and row["config"]["objective"]["teacher"] == str(home / "re" / "model")
    assert set(row["masks"]) == {"topk", "deterministic", "sampled"}
    assert {"ce", "sparsity", "kd_r", "kd_y", "kept", "agreement", "loss"} == set(row["epochs"][0]["train"])
    assert abs(row["masks"]["topk"]["selection_rate"] - re.model.sparsity) < 0.1
    again = RationaleModel.from_pretrained(home / "rekd" / "model")
    assert again.config.sparsity == re.model.sparsity and again.config.labels == teacher.config.labels


def test_paper_rows_are_the_papers():
    "To the letter: paper.md's table and its common settings."
    assert {k for k in preset_files() if k.startswith("paper-")} == set(PAPER)
    for name, (sparsity, select_lambda) in PAPER.items():
        cls, re, rekd = (resolve(name, o) for o in ("cls", "re", "rekd"))
        o, m, t = rekd.objective, rekd.model, rekd.train
        assert (m.sparsity, o.options["select_lambda"]) == (sparsity, select_lambda), name
        assert re.objective.options["select_lambda"] == (5e-5 if name == "paper-imdb-mini" else select_lambda)
        assert re.train == t and resolve(name, "random").train == cls.train == replace(t, epochs=20)
        assert (t.lr, t.batch_size, t.epochs) == (1e-5, 32, 35)
        assert (t.T_start, t.T_end, t.T_every, t.eval_mask) == (5.0, 0.1, 100, "sampled")
        assert not t.decay and not t.warmup and t.clip is None and t.sparsity_start is None
        assert [o.options[k] for k in ("alpha", "kd_r_lambda", "part", "noise")] == [0.3, 0.5, "both", "independent"]
        assert (m.pool, m.select_special, m.freeze_embeddings, rekd.data.val_share) == ("cls", True, "generator", 0.2)
        text = rekd.data.name == "imdb"
        assert (m.dropout, t.weight_decay) == ((0.5, 0.0) if text else (0.1, 1e-3))
        assert m.max_length == 256 if text else m.image_size == 224
        assert o.teacher == (None if name.endswith("-base") else f"paper-{rekd.data.name}-base")


def test_warm_start_trains_cls_once(home):
    changes = small("demo")
    _, row = run("demo", "re", seed=1, start="warm", overrides=changes, quiet=True)
    first = (home / "runs" / "demo" / "cls-paper-1" / "model" / "model.safetensors").stat().st_mtime_ns
    run("demo", "rekd", seed=1, start="warm", overrides=changes, teacher=str(home / "runs" / "demo" / "re-warm-1" / "model"), quiet=True)
    assert (home / "runs" / "demo" / "cls-paper-1" / "model" / "model.safetensors").stat().st_mtime_ns == first
    assert row["config"]["train"]["sparsity_start"] == 0.5
    with pytest.raises(ValueError, match="cls-paper-1 was made with model.dropout=0.1, here 0.3"): run("demo", "re", seed=1, start="warm", overrides=changes | dict(dropout=0.3))
    with pytest.raises(ValueError, match="cls-paper-1 was made with train.lr=0.0005, here 0.5"): run("demo", "re", seed=1, start="warm", overrides=changes | dict(lr=0.5))


def test_a_setting_of_the_objective_does_not_touch_its_warm_start(home):
    "Two runs that differ in RE's own rate begin with the same CLS model; an older, flat row of it is read too."
    changes = small("demo")
    run("demo", "re", seed=1, start="warm", overrides=changes, quiet=True)
    file = home / "runs" / "demo" / "cls-paper-1" / "row.json"
    row = json.loads(file.read_text())
    c = row["config"]
    row["config"] = {("dataset" if k == "name" else k): v for k, v in c["data"].items()} | c["model"] | dict(train=c["train"], select_lambda=9, teacher="x", cls_epochs=9)
    file.write_text(json.dumps(row))
    run("demo", "re", seed=1, start="warm", overrides=changes | {"objective.re.train.lr": 0.5, "select_lambda": 0.1}, out=home / "runs" / "demo" / "other", quiet=True)
    told = json.loads((home / "runs" / "demo" / "other" / "row.json").read_text())["config"]
    assert (told["train"]["lr"], told["objective"]["options"]["select_lambda"]) == (0.5, 0.1)


def test_a_warm_start_is_not_taken_from_other_rows(home, tmp_path):
    import datasets
    def write(word):
        (tmp_path / "mine").mkdir(exist_ok=True)
        for part in ("train", "test"): datasets.Dataset.from_list([dict(text=f"the film was {word}", label=i % 2) for i in range(20)]).to_parquet(tmp_path / "mine" / f"{part}.parquet")
    changes = small("demo") | dict(dataset=str(tmp_path / "mine"))
    write("good")
    _, row = run("demo", "re", seed=1, start="warm", overrides=changes, quiet=True, out=home / "runs" / "mine" / "a")
    assert row["config"]["data"]["starter"] is False
    write("bad")
    with pytest.raises(ValueError, match="cls-paper-1 learned from other rows"): run("demo", "re", seed=1, start="warm", overrides=changes, quiet=True, out=home / "runs" / "mine" / "b")


def test_a_run_is_resumed_with_its_own_settings(home):
    "All of them are compared, and the message names the first; what cannot change the result may change."
    changes = small("demo") | dict(checkpoint_every=1)
    run("demo", "re", overrides=changes, out=home / "re", quiet=True)
    for other in (dict(select_lambda=0.5), dict(dropout=0.3), {"n_train": 18}):
        with pytest.raises(ValueError, match="re was made with"): run("demo", "re", overrides=changes | other, out=home / "re", resume=True, quiet=True)
    run("demo", "re", overrides=changes | dict(checkpoint_every=7), out=home / "re", resume=True, quiet=True)


def test_a_study_looks_for_the_teachers_of_its_variants_first(home, monkeypatch):
    import rekd.study as module
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    monkeypatch.setattr(module, "run", lambda *a, **k: pytest.fail("trained before the teachers were looked for"))
    monkeypatch.setattr("rekd.run.load_teacher", lambda t, **k: (_ for _ in ()).throw(MissingError(t)) if "weak" in t else None)
    with pytest.raises(MissingError, match="cpu-imdb-weak-teacher"): study("cpu-imdb-ablations", seeds=[1])


def test_re_and_rekd_start_alike(home):
    from rekd.run import prepare
    config = resolve("demo", "re", overrides=small("demo"))
    a, b = (prepare(config, seed=7)[0].state_dict() for _ in range(2))
    c = prepare(config, seed=8)[0].state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


@pytest.fixture
def faked(home, monkeypatch):
    "`study` with runs that train nothing: what ran, in order."
    import rekd.study as module
    ran = []
    def fake(preset, objective, seed, start, overrides, out, resume, quiet, part, name):
        from rekd.preset import fitting, read_overrides
        config = resolve(preset, objective, start, fitting(read_overrides(overrides), objective, start))
        ran.append((objective, start, seed, config, part, out.name))
        return None, dict(objective=objective, start=start, seed=seed, config=json.loads(json.dumps(asdict(config))))
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    monkeypatch.setattr(module, "run", fake)
    monkeypatch.setattr(module, "guide_of", lambda config: None)
    monkeypatch.setattr(module, "made_from", lambda config: dict(rows={}, data="x", weights="y"))
    return ran


def test_study_goes_on_where_it_stopped(faked, home):
    assert [r["objective"] for r in study("demo", ["cls"], [3])] == ["cls"]
    assert [r[:3] for r in faked] == [("cls", "paper", 3)]
    append_row(results_file("demo"), study("demo", ["cls"], [3])[0] | dict(seed=4))
    assert [(r["objective"], r["seed"]) for r in study("demo", ["cls", "re"], [3, 4])] == [("cls", 3), ("cls", 4), ("re", 3), ("re", 4)]
    assert len(faked) == 3
    assert [r["done"] for r in planned("demo", ["cls", "re"], [3, 5])] == [True, True, False, False]
    for changes, what in ((dict(lr=0.5), "train.lr=0.0005, here 0.5"), (dict(dataset="toy"), "data.name='imdb', here 'toy'"), (dict(per="example"), "objective.per='batch', here 'example'")):
        with pytest.raises(ValueError, match=what) as e: study("demo", ["re"], [3], overrides=changes)
        assert "--name NAME" in str(e.value)
    assert [r["seed"] for r in study("demo", ["re"], [3], overrides=dict(lr=0.5), name="mine")] == [3] and len(read_rows(results_file("mine"))) == 1


def test_rows_of_other_data_are_not_done(faked, home, tmp_path):
    "A folder with the same name and other content is other data, if the row tells what it was made from."
    from rekd.run import content_hash
    from rekd.rows import load_rows
    for part in ("train", "test"): (home / f"{part}.csv").write_text("text,label\ngood,1\nbad,0\n")
    changes = dict(dataset=str(home))
    study("demo", ["cls"], [3], overrides=changes, name="mine")
    file = results_file("mine")
    def told(hash): file.write_text(json.dumps(read_rows(file)[0] | dict(made_from=dict(rows={}, data=hash, weights=None))) + "\n")
    told(content_hash(load_rows(str(home))[0]))
    assert [r["done"] for r in planned("demo", ["cls"], [3], overrides=changes, name="mine")] == [True]
    (home / "train.csv").write_text("text,label\ngood,0\nbad,1\n")
    assert [r["done"] for r in planned("demo", ["cls"], [3], overrides=changes, name="mine")] == [False]
    with pytest.raises(ValueError, match="of other content"): study("demo", ["cls"], [3], overrides=changes, name="mine")


def test_a_study_says_what_its_rows_were_made_from(faked, capsys):
    "Other rows or weights are told before anything is trained, and the new rows are marked."
    rows = study("cpu-cifar10", ["cls"], [3])
    said = capsys.readouterr().out
    assert "train has 0 rows, not 10,000" in said and "the pretrained weights are others" in said and "dinov2-small" in said
    assert len(rows[0]["differs"]) == 3
    assert "differs" not in study("demo", ["cls"], [3])[0]


def test_a_search_runs_its_variants_and_is_judged_by_validation(faked):
    rows = study("cpu-imdb-search", ["re"], starts=["warm"])
    assert [(r["variant"], r["seed"]) for r in rows] == [("example-lr2", 2024), ("example-lr4", 2024)]
    assert [(*r[:3], r[3].objective.options["per"], r[3].train.lr, *r[4:]) for r in faked] == [
        ("re", "warm", 2024, "example", 2e-4, "val", "re-warm-2024-example-lr2"), ("re", "warm", 2024, "example", 4e-4, "val", "re-warm-2024-example-lr4")]
    assert study("cpu-imdb-search", ["re"], starts=["warm"]) == rows and len(faked) == 2
    left = [(r["objective"], r["variant"]) for r in planned("cpu-imdb-search") if not r["done"]]
    assert ("cls", "lr2") in left and ("re", "example-lr4-curriculum") in left and len(left) == 20


def test_a_run_that_another_process_makes_is_left_to_it(faked, capsys):
    from rekd.run import claimed, run_folder
    with claimed(run_folder("demo", "re", "paper", 5)): rows = study("demo", ["re", "rekd"], [5], ["paper"])
    assert [r["objective"] for r in rows] == ["rekd"] and "re-paper-5.lock" in capsys.readouterr().out
    assert [r["objective"] for r in study("demo", ["re", "rekd"], [5], ["paper"])] == ["rekd", "re"]


def test_a_study_without_its_teacher_trains_nothing(home, monkeypatch):
    import rekd.study as module
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    monkeypatch.setattr(module, "run", lambda *a, **k: pytest.fail("trained before the teacher was looked for"))
    with pytest.raises(MissingError, match="cpu-cifar10-teacher --objective re --start warm"): study("cpu-cifar10", ["cls", "rekd"], [1], ["paper"])
    assert "rekd" not in {r["objective"] for r in planned("paper-imdb-base")} and "rekd" in {r["objective"] for r in planned("paper-imdb-mini")}


def test_few_seeds_for_what_does_not_select():
    assert cells(["cls", "re"], [1, 2], ["paper", "warm"], few=1) == [("cls", "paper", 1), ("re", "paper", 1), ("re", "warm", 1), ("re", "paper", 2), ("re", "warm", 2)]


def test_a_teacher_is_asked_about_each_image_and_its_mirror_image_once(tmp_path, monkeypatch):
    from rekd.run import remember
    from rekd.objective import REKD
    teacher, examples = tiny.make_model("vit", 1), tiny.image_examples(6, 0, mirror=True)
    asked = remember(REKD(teacher), examples, "no", tmp_path)
    monkeypatch.setattr(REKD, "remember", lambda *a, **k: pytest.fail("asked again"))
    looked_up = remember(REKD(teacher), examples, "no", tmp_path)
    assert looked_up.cache.keys() == set(range(12)) and all(torch.equal(row, asked.cache[i]) for i, row in looked_up.cache.items())
    batch = examples.collate([examples[i] for i in (2, 8)])
    torch.testing.assert_close(looked_up.teacher_logits(batch), teacher.select(batch), atol=1e-6, rtol=0)
    monkeypatch.undo()
    own = [remember(REKD(teacher, kd_mask="teacher"), examples, "no", tmp_path, share) for share in (0.5, 0.5, 0.2)]
    assert all(torch.equal(own[0].cache_classes[i], own[1].cache_classes[i]) for i in range(12)) and own[1].cache_sparsity == 0.5 and own[2].cache_sparsity == 0.2
    assert not torch.equal(own[0].cache_classes[0], own[2].cache_classes[0]) and len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(REKD, "remember", lambda *a, **k: pytest.fail("asked again"))
    assert remember(REKD(teacher, kd_mask="teacher"), examples, "no", tmp_path, 0.2).cache_classes.keys() == set(range(12))
    for other in ((REKD(tiny.make_model("vit", 2)), examples, "no"), (REKD(teacher), tiny.image_examples(6, 1, mirror=True), "no"), (REKD(teacher), examples, "bf16")):
        with pytest.raises(pytest.fail.Exception, match="asked again"): remember(*other, tmp_path)


@pytest.mark.parametrize("wrong, hint", [
    (lambda: resolve("papper-imdb-small", "re"), "paper-imdb-small"),
    (lambda: resolve("demo", "rekd", overrides=dict(epoch=1)), "epochs"),
    (lambda: resolve("demo", "rekd", overrides=dict(lr="high")), "lr must be float, got 'high'"),
    (lambda: resolve("demo", "rekd", overrides=dict(epochs=1.5)), "epochs must be int, got 1.5"),
    (lambda: resolve("demo", "rekd", overrides=dict(starter=1)), "starter must be bool, got 1"),
    (lambda: resolve("demo", "cls", overrides=dict(alpha=0.1)), "alpha has no effect on cls: it is a setting of rekd"),
    (lambda: run("demo", "rkd"), "rekd"),
    (lambda: run("demo", "cls", start="warm"), "warm"),
    (lambda: run("demo", "re", start="cold"), "cold"),
])
def test_wrong_names_are_answered(wrong, hint, home):
    with pytest.raises(ValueError, match=hint): wrong()


def test_whole_numbers_pass_for_floats_and_none_where_it_may_stand():
    c = resolve("demo", "rekd", overrides=dict(sparsity_start=1, alpha=None, n_train="none", clip=2))
    assert (c.train.sparsity_start, c.objective.options["alpha"], c.data.n_train, c.train.clip) == (1, None, None, 2)


def test_objectives_are_all_there(): assert list(objectives()) == ["cls", "random", "re", "rekd", "reader"]
