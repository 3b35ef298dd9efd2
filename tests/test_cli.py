"The command line, in new processes where that matters."
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rekd.cli import main
from rekd.console import parse_changes, table
from rekd.preset import preset_files
from test_presets import home, world  # noqa: F401 (fixtures)

SMALL = ["--set", "n_train=20", "n_test=10", "val_share=0.5", "epochs=3", "batch_size=2", "checkpoint_every=3", "precision=no"]


def test_presets_lists_every_row(capsys):
    main(["presets"])
    out = capsys.readouterr().out
    for name in preset_files(): assert re.search(rf"^{re.escape(name)} ", out, re.M), name
    main(["presets", "--json"])
    assert json.loads(capsys.readouterr().out)["paper-imdb-mini"]["objective"]["re"]["select_lambda"] == 5e-5


@pytest.mark.parametrize("command", ["demo", "train", "evaluate", "explain", "report", "serve", "export", "study", "table", "presets", "starter"])
def test_help_names_no_empty_default(command, capsys):
    with pytest.raises(SystemExit): main([command, "--help"])
    assert not re.search(r"\(default:[\s│]*\)", capsys.readouterr().out)


def test_help_needs_no_torch():
    "`rekd --help` answers without the heavy imports."
    code = "import sys; sys.argv[0] = 'rekd'\nfrom rekd.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    for command in ("demo", "train", "evaluate", "explain", "study", "presets"): assert command in out.stdout


@pytest.mark.parametrize("args, said", [
    (["train", "demo", "--objective", "re", "--teacher", "imdb-teacher"], "no effect on re"),
    (["explain", "imdb-teacher", "--text", "good", "--mask", "deterministic", "--sparsity", "0.5"], "no effect on the deterministic"),
    (["report"], "name a model"),
])
def test_options_without_effect_are_refused(args, said, capsys):
    with pytest.raises(SystemExit) as e: main(args)
    assert said in str(e.value)


def test_own_data_are_used_whole_and_remembered(home, tmp_path, capsys): # noqa: F811
    "Another data set is not cut to the preset's rows, and a run's own data are what `evaluate` and `report` take."
    (tmp_path / "mine").mkdir()
    for part, n in (("train", 60), ("test", 14)): (tmp_path / "mine" / f"{part}.csv").write_text("text,label\n" + "".join(f"the film was {'good' if i % 2 else 'bad'},{'up' if i % 2 else 'down'}\n" for i in range(n)))
    own = ["--set", f"dataset={tmp_path / 'mine'}", "epochs=1", "precision=no"]
    for objective in ("cls", "re"): main(["train", "demo", "--objective", objective, *own])
    row = json.loads((home / "runs/demo/re-paper-2025/row.json").read_text())
    assert (row["n_train"] + row["n_val"], row["n_test"], row["config"]["data"]["starter"]) == (60, 14, False)
    capsys.readouterr()
    main(["evaluate", "demo/re-paper-2025"])
    assert "14 test rows of mine." in capsys.readouterr().out
    main(["report", "demo/re-paper-2025", "--examples", "3", "--out", str(tmp_path / "r.html")])
    assert "3 of the 14 test rows of mine" in (tmp_path / "r.html").read_text()
    main(["evaluate", "demo/cls-paper-2025", "--json", str(tmp_path / "e.json")])
    assert [r["mask"] for r in json.loads((tmp_path / "e.json").read_text())] == ["none", "random"]
    with pytest.raises(SystemExit, match="no rationale"): main(["explain", "demo/cls-paper-2025", "--text", "a film"])
    with pytest.raises(SystemExit, match="a teacher is an RE"): main(["train", "demo", "--teacher", "demo/cls-paper-2025", *own])


def test_changes_and_table():
    assert parse_changes(["a=1", "b=none", "c=x=y", "d=False"]) == dict(a=1, b=None, c="x=y", d=False)
    assert table([dict(a="x", b=1.0), dict(a="long", b=None)], {"a": "", "b": ".1f"}).splitlines() == ["a       b", "x     1.0", "long    -"]


def test_train_evaluate_explain(home, capsys): # noqa: F811
    main(["train", "demo", "--objective", "re", *SMALL])
    folder = home / "runs" / "demo" / "re-paper-2025"
    assert json.loads((folder / "row.json").read_text())["objective"] == "re"
    epochs = [l for l in capsys.readouterr().err.splitlines() if l.startswith("RE: epoch")] # no terminal, so a line each
    assert len(epochs) == len((folder / "metrics.jsonl").read_text().splitlines()) and "epoch 1 of" in epochs[0]
    main(["evaluate", str(folder / "model"), "--starter", "--n-test", "10", "--json", str(home / "e.json")])
    rows = json.loads((home / "e.json").read_text())
    assert [r["mask"] for r in rows] == ["topk", "deterministic", "sampled"] and all(0 <= r["accuracy"] <= 1 for r in rows)
    capsys.readouterr()
    main(["explain", str(folder / "model"), "--text", "the plot is <b>dull</b>", "--json", "--html", str(home / "e.html")])
    told = json.loads(capsys.readouterr().out)
    assert sum(told["mask"]) == max(1, round(0.1 * len(told["mask"]))) and set(told["probabilities"]) == {"negative", "positive"}
    assert "<b>dull" not in (home / "e.html").read_text()


def test_the_shipped_model_of_pictures_is_measured_on_pictures(tmp_path, monkeypatch, capsys):
    "Without --dataset, `evaluate` takes the data set that the model can read; the shipped weights do what their card says."
    from rekd.run import find_model
    monkeypatch.setenv("REKD_ARTIFACTS", str(Path(__file__).parents[1] / "artifacts"))
    main(["evaluate", "cifar10-rekd", "--starter", "--n-test", "100", "--masks", "topk", "--json", str(tmp_path / "e.json")])
    row, = json.loads((tmp_path / "e.json").read_text())
    card = json.loads((Path(find_model("cifar10-rekd")) / "metrics.json").read_text())
    assert row["selection_rate"] == 10 / 64 and abs(row["accuracy"] - card["masks"]["topk"]["accuracy"]) < 0.15 # 3 standard errors


def test_evaluate_goes_by_the_names_of_the_classes(home, tmp_path, capsys): # noqa: F811
    "The same rows with the classes in another order score the same; another task is refused."
    import datasets
    from tiny import make_model, planted_texts
    make_model().save_pretrained(tmp_path / "model") # negative, positive
    texts, labels, _ = planted_texts(20, 0)
    def measured(names):
        for part in ("train", "test"):
            features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=names))
            rows = dict(text=texts, label=[names.index(("negative", "positive")[y]) if "negative" in names else y for y in labels])
            (tmp_path / "data").mkdir(exist_ok=True)
            datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / f"{part}.parquet")
        main(["evaluate", str(tmp_path / "model"), "--dataset", str(tmp_path / "data"), "--json", str(tmp_path / "e.json")])
        return [r["accuracy"] for r in json.loads((tmp_path / "e.json").read_text()) if r["mask"] != "sampled"]
    assert measured(["negative", "positive"]) == measured(["positive", "negative"])
    with pytest.raises(SystemExit, match="cat"): measured(["cat", "dog"])


@pytest.mark.parametrize("changes, said", [
    (["start.warm.train.lr=1e-3"], "take --start warm, or set train.lr"),
    (["objective.rekd.train.lr=1e-3"], "take --objective rekd, or set train.lr"),
    (["alpha=0.5"], "it is a setting of rekd"),
    (["re_lr=1e-3"], "re_lr is called objective.re.train.lr now"),
    (["lr=1e-3", "train.lr=1e-4"], "train.lr is set twice"),
    (["lr=1e-3", "lr=1e-4"], "--set has lr twice"),
    (["backbon=x"], "did you mean 'backbone'?"),
])
def test_a_setting_without_effect_is_refused_by_naming_one_that_has_it(changes, said):
    with pytest.raises(SystemExit) as e: main(["train", "cpu-cifar10", "--objective", "re", "--set", *changes])
    assert said in str(e.value)


def test_demo_writes_what_it_says(home, capsys, monkeypatch): # noqa: F811
    import rekd.preset as preset
    main(["train", "demo", "--objective", "re", *SMALL])
    main(["presets", "demo"])
    text = capsys.readouterr().out.rpartition("# What `rekd demo`")
    (home / "presets").mkdir()
    (home / "presets" / "whole.toml").write_text("".join(text[1:]))
    teacher = home / "runs" / "demo" / "re-paper-2025" / "model"
    (home / "presets" / "demo.toml").write_text(f'extends = "whole"\n[data]\nn_train = 20\nn_test = 10\nval_share = 0.5\n[train]\nepochs = 1\nbatch_size = 8\n[objective.rekd]\nteacher = "{teacher}"\n')
    monkeypatch.setattr(preset, "SHIPPED", home / "presets")
    main(["demo", "--json", str(home / "demo.json"), "--out", str(home / "figures")])
    out = capsys.readouterr().out
    rows = json.loads((home / "demo.json").read_text())
    assert [(r["objective"], r["mask"]) for r in rows] == [("cls", "none"), ("random", "random")] + [(o, m) for o in ("re", "rekd") for m in ("topk", "deterministic", "sampled")]
    for r in rows: assert set(r) == {"objective", "seed", "mask", "accuracy", "selection_rate", "seconds"} and f"{r['accuracy']:.3f}" in out
    assert (home / "figures" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "paper's" in out and "warm" in out and "Review 1" in out
    assert (home / "figures" / "rationales.html").read_text().count("<script") == 2 # the page's own: its data, and what draws them


def test_killed_train_resumes_bit_for_bit(home): # noqa: F811
    "SIGKILL `rekd train` once it is under way, resume, and compare with a run that nobody touched."
    command = [sys.executable, "-m", "rekd.cli", "train", "demo", "--objective", "re", *[s for s in SMALL if s != "epochs=3"], "epochs=15"]
    whole, cut = home / "whole", home / "cut"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    def killed():
        with open(home / "told.txt", "w") as told:
            victim = subprocess.Popen([*command, "--out", str(cut)], stdout=told, stderr=told)
        deadline = time.time() + 120
        while len(list(cut.glob("checkpoint-*"))) < 2 and victim.poll() is None and time.time() < deadline: time.sleep(0.02)
        time.sleep(int.from_bytes(str(home).encode()[-2:], "big") % 100 / 250) # somewhere between two checkpoints
        victim.kill()
        assert victim.wait() in (0, -signal.SIGKILL), (home / "told.txt").read_text()
        return victim.returncode != 0
    while not killed(): shutil.rmtree(cut) # on a busy machine it can be over first
    assert not (cut / "model").exists()
    subprocess.run([*command, "--out", str(cut), "--resume"], check=True, capture_output=True)
    assert (cut / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    assert not list(whole.glob("checkpoint-*")) and not list(cut.glob("checkpoint-*")) # a finished run keeps its model


@pytest.fixture
def shipped(monkeypatch):
    "The repo's own results."
    monkeypatch.setenv("REKD_ARTIFACTS", str(Path(__file__).parents[1] / "artifacts"))


def test_table_rebuilds_the_numbers_from_the_rows(tmp_path, capsys, shipped):
    "`rekd table` trains nothing: its JSON holds the rows' means, and one paired entry a start."
    from rekd.study import read_rows, results_file
    main(["table", "demo", "--json", str(tmp_path / "t.json")])
    found, rows = json.loads((tmp_path / "t.json").read_text()), read_rows(results_file("demo"))
    for line in found["rows"]:
        same = [r["masks"][line["mask"]] for r in rows if (r["objective"], r["start"]) == (line["objective"], line["start"]) and line["mask"] in r["masks"]]
        assert line["n_seeds"] == len(same) and abs(line["accuracy_mean"] - sum(m["accuracy"] for m in same) / len(same)) < 1e-12
    assert [p["start"] for p in found["paired"]] == ["paper", "warm"] and all(p["ci_low"] <= p["rekd_minus_re"] <= p["ci_high"] for p in found["paired"])
    assert "gap_recovery" in capsys.readouterr().out


def test_dry_run_lists_and_trains_nothing(capsys, shipped):
    "Runs that have a row are done, the others are not, and times come from the rows."
    main(["study", "demo", "--starts", "paper", "warm", "--seeds", "2025", "1", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert [("done" in x, "to do" in x) for x in lines[1:13]] == [(True, False)] * 6 + [(False, True)] * 6
    assert "6 of 12 runs are done" in lines[13] and "min" in lines[14]


# --- what a stranger tried ---

SHORT = ["n_train=20", "val_share=0.5", "epochs=1"]


def own_rows(folder, n=40, names=("train", "test")):
    "A folder of one's own: texts of two words, one of which is the class."
    folder.mkdir()
    for k, name in enumerate(names):
        lines = [f"{('good', 'bad')[i % 2]} film {i + 100 * k},{('yes', 'no')[i % 2]}" for i in range(n)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return folder


def test_a_path_may_begin_at_home_wherever_one_is_given(home, monkeypatch, tmp_path): # noqa: F811
    "What is read and what is written: or a folder called ~ is made."
    from rekd.model import RationaleModel
    from rekd.objective import RE
    from rekd.train import TrainConfig, fit
    monkeypatch.setenv("HOME", str(mine := tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(mine))
    mine.mkdir()
    own_rows(mine / "rows")
    main(["train", "demo", "--objective", "re", "--out", "~/run", "--set", "dataset=~/rows", *SHORT])
    assert (mine / "run" / "model" / "model.safetensors").is_file()
    main(["evaluate", "~/run", "--json", "~/rows.json"])
    main(["explain", "~/run", "--text", "a good film", "--html", "~/page.html"])
    main(["explain", "~/run", "--csv", "~/rows/test.csv", "--out", "~/out.jsonl"])
    main(["report", "~/run", "--dataset", "~/rows", "--out", "~/report.html", "--examples", "2"])
    model = RationaleModel.from_pretrained("~/run/model")
    model.save_pretrained("~/saved")
    fit(model, "~/rows", RE(), TrainConfig(epochs=1), out="~/fitted", quiet=True)
    for made in ("rows.json", "page.html", "out.jsonl", "report.html", "saved", "fitted"): assert (mine / made).exists(), made
    monkeypatch.setenv("REKD_RUNS", "~/runs") # as a settings.ini says it, where no shell looks
    main(["train", "demo", "--objective", "cls", "--set", "dataset=~/rows", *SHORT])
    assert (mine / "runs" / "demo" / "cls-paper-2025" / "model").is_dir()
    assert not Path("~").exists()
    with pytest.raises(SystemExit, match="no home folder for '~nobody-at-all/run'"): main(["train", "demo", "--out", "~nobody-at-all/run"])


def test_what_a_run_has_learned_from_is_not_measured_as_new(home, tmp_path, capsys, caplog): # noqa: F811
    "Its own single file is split as it was; its train part is measured with a warning."
    one = own_rows(tmp_path / "one", names=["all"]) / "all.csv"
    main(["train", "demo", "--objective", "re", "--out", "one-run", "--set", f"dataset={one}", *SHORT])
    for i, more in enumerate(([], ["--dataset", str(one)])): main(["evaluate", "one-run", "--json", f"{i}.json", *more])
    assert Path("0.json").read_text() == Path("1.json").read_text() and capsys.readouterr().out.count("8 test rows of all.csv") == 2
    two = own_rows(tmp_path / "two")
    main(["train", "demo", "--objective", "re", "--out", "two-run", "--set", f"dataset={two}", *SHORT])
    said = "rows that the run has learned from, so memory is measured"
    main(["evaluate", "two-run", "--dataset", str(two / "test.csv")])
    assert said not in caplog.text
    main(["evaluate", "two-run", "--dataset", str(two / "train.csv")])
    assert said in caplog.text


def test_names_that_are_nearly_those_of_a_run(home, tmp_path): # noqa: F811
    (folder := home / "runs" / "demo" / "re-paper-2025" / "model").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"no run 're-papr-2025' of 'demo' in .*did you mean 're-paper-2025'.*it has re-paper-2025"): main(["evaluate", "demo/re-papr-2025"])
    with pytest.raises(SystemExit, match="no run 're-paper-1' of 'cpu-imdb' in .*: it has none"): main(["evaluate", "cpu-imdb/re-paper-1"])


def test_a_study_that_is_stopped_says_how_to_go_on(home, monkeypatch, capsys): # noqa: F811
    def stop(*args, **kw): raise KeyboardInterrupt
    monkeypatch.setattr("rekd.train.Step.forward", stop)
    with pytest.raises(SystemExit) as e: main(["study", "demo", "--objectives", "cls", "--seeds", "1", "--set", "n_test=8", *SHORT])
    assert e.value.code == 130 and "finished runs keep their rows, and the same command goes on" in capsys.readouterr().err


# --- what a breaker tried ---

def test_a_full_disk_costs_no_earlier_answer(home, monkeypatch): # noqa: F811
    "A page, a table of numbers, a graph: what is there is replaced by what is whole, or stays."
    import os
    full = lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    calls = {"page.html": ["explain", "imdb-teacher", "--text", "a good film", "--html", "page.html"], "report.html": ["report", "imdb-teacher", "--examples", "2", "--out", "report.html"],
             "rows.json": ["evaluate", "imdb-teacher", "--json", "rows.json"], "m.onnx": ["export", "imdb-teacher", "--onnx", "m.onnx"]}
    for name, call in calls.items():
        Path(name).write_text("the first")
        with monkeypatch.context() as m, pytest.raises(SystemExit, match=rf"cannot write .*{name}: No space left"):
            m.setattr(os, "fsync", full)
            main(call)
        assert Path(name).read_text() == "the first" and not list(Path().glob(".*.tmp")), name
        main(call)
        assert Path(name).read_bytes()[:9] != b"the first"


def test_the_room_that_is_left_is_told_while_the_attempt_still_takes_its_part(tmp_path, monkeypatch):
    import shutil as disk
    from rekd.checkpoint import replacing
    from rekd.errors import WriteError
    seen = []
    monkeypatch.setattr(disk, "disk_usage", lambda path, real=disk.disk_usage: (seen.append((tmp_path / ".model.tmp" / "half").exists()), real(path))[1])
    with pytest.raises(WriteError, match="MB are free there"), replacing(tmp_path / "model") as folder:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")
    assert seen == [True] and not list(tmp_path.iterdir())


def test_a_kill_between_the_renames_of_a_finished_model(home): # noqa: F811
    call = ["train", "demo", "--objective", "re", "--out", "run", "--set", "n_test=8", *SHORT]
    main(call)
    whole = (Path("run") / "model" / "model.safetensors").read_bytes()
    (Path("run") / "model").rename(Path("run") / ".model.old")
    (Path("run") / ".model.tmp").mkdir()
    main([*call, "--resume"])
    assert (Path("run") / "model" / "model.safetensors").read_bytes() == whole and not list(Path("run").glob(".model.*"))


@pytest.mark.parametrize("call", [["train", "demo", "--set", "dataset=toy\udcfc"], ["train", "demo", "--objective", "re", "--out", "runs\udcfc/a", "--set", "n_test=8", *SHORT], ["evaluate", "imdb-teacher", "--json", "m\udcfc"]])
def test_a_name_that_no_text_file_can_hold_is_refused_first(home, call, capsys): # noqa: F811
    with pytest.raises(SystemExit, match=r"the name '.*udcfc.*' is not in UTF-8, or the locale is not"): main(call)
    assert "epoch 1" not in capsys.readouterr().err


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch):
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit, match="the current folder has been deleted"): main(["presets"])
    monkeypatch.chdir(tmp_path)
