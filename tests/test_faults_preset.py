"Presets and studies of a stranger: files, plugins, and rows that are not taken for others."
import json
from pathlib import Path

import pytest
from test_presets import home, tiny_bert, world # noqa: F401 (fixtures)

from rekd.cli import main
from rekd.errors import MissingError, SettingError
from rekd.preset import load_preset, preset_files, preset_text, resolve
from rekd.registry import OBJECTIVES
from rekd.study import changed_sources, planned, read_rows, results_file, study_plan

SHORT = "[data]\nn_train = 20\nn_test = 10\nval_share = 0.5\n[train]\nepochs = 1\nbatch_size = 8\nprecision = \"no\"\n"


def refused(args):
    with pytest.raises(SystemExit) as e: main(args)
    line = e.value.code
    assert isinstance(line, str) and line.startswith("rekd: ") and "\n" not in line, line
    return line


def test_a_strangers_preset_and_study_from_the_command_line(home, monkeypatch, capsys): # noqa: F811
    "Saved, edited, trained, studied, tabled and studied again, in one's own folder."
    monkeypatch.setenv("REKD_ARTIFACTS", str(home / "artifacts"))
    monkeypatch.chdir(home)
    main(["presets", "demo"])
    (home / "base.toml").write_text(capsys.readouterr().out)
    lines = "text,label\n" + "".join(f"the film is {'good' if i % 2 else 'bad'},{'up' if i % 2 else 'down'}\n" for i in range(24))
    (home / "mine").mkdir()
    for part in ("train", "test"): (home / "mine" / f"{part}.csv").write_text(lines)
    tiny_bert(home / "net")
    (home / "my.toml").write_text('extends = "base"\n[data]\nname = "mine"\n[model]\nbackbone = "net"\n[train]\nepochs = 2\nprecision = "no"\n[objective.cls.train]\nepochs = 1\n[start.warm.train]\nlr = 1e-3\n'
                                  '[study]\nmeasure_on = "val"\nseeds = [7]\ncells = [\n  { objective = "cls" },\n  { objective = "re", start = "warm", name = "heavy", set = { select_lambda = 0.5, train.clip = 2 } },\n]\n')
    main(["train", "my.toml", "--objective", "re", "--set", "epochs=1", "select_lambda=0.5"])
    row = json.loads((home / "runs" / "my" / "re-paper-2025" / "row.json").read_text())
    assert (row["study"], row["config"]["data"]["name"], row["config"]["train"]["epochs"], row["config"]["objective"]["options"]["select_lambda"]) == ("my", str(Path("mine").absolute()), 1, 0.5)
    assert row["made_from"]["rows"] == dict(train=24, test=24) and row["made_from"]["weights"]
    main(["study", "my.toml"])
    rows = read_rows(results_file("my"))
    assert [(r["objective"], r["start"], r["seed"], r["variant"], r["part"], r["config"]["train"]["epochs"]) for r in rows] == [("cls", "paper", 7, "", "val", 1), ("re", "warm", 7, "heavy", "val", 2)]
    assert (rows[1]["config"]["train"]["clip"], rows[1]["config"]["train"]["lr"], rows[0]["config"]["train"]["clip"]) == (2, 1e-3, 1.0)
    capsys.readouterr()
    main(["study", "my.toml", "--dry-run"])
    assert "2 of 2 runs are done" in capsys.readouterr().out
    main(["table", "my.toml"])
    assert "validation part" in capsys.readouterr().out
    main(["evaluate", "my/re-paper-2025"])
    assert "24 test rows of mine" in capsys.readouterr().out
    assert "--name NAME" in refused(["study", "my.toml", "--set", "dropout=0.3"])
    main(["study", "my.toml", "--objectives", "cls", "--set", "dropout=0.3", "--name", "other"])
    assert len(read_rows(results_file("my"))) == 2 and len(read_rows(results_file("other"))) == 1
    main(["table", "other"])


PLUGIN = """
import torch.nn.functional as F
from dataclasses import dataclass
from rekd.registry import register_objective

@register_objective("smooth")
@dataclass
class Smooth:
    amount: float = 0.1
    selects = False
    def __post_init__(self):
        if not 0 <= self.amount < 1: raise ValueError(f"amount must be in [0, 1), got {self.amount}")
    def __call__(self, model, batch, at):
        loss = F.cross_entropy(model.predict(batch, batch["valid"]), batch["labels"], label_smoothing=self.amount)
        return loss, dict(ce=loss)
"""


@pytest.fixture
def plugin(home, monkeypatch): # noqa: F811
    "A folder with a stranger's objective, that this process forgets again."
    import sys
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (home / "my_smooth.py").write_text(PLUGIN)
    before = dict(OBJECTIVES)
    yield home
    sys.modules.pop("my_smooth", None)
    OBJECTIVES.clear(); OBJECTIVES.update(before)


def test_a_plugins_objective_has_a_name_everywhere(plugin, monkeypatch, capsys):
    "In help, presets, settings, studies; its own options are checked by itself."
    monkeypatch.setenv("REKD_ARTIFACTS", str(plugin / "artifacts"))
    main_at = lambda *args: main([*args, "--plugin", "my_smooth"])
    assert "unknown objective 'smooth'" in refused(["study", str(_file(plugin)), "--dry-run"]) # its plugin is not there yet
    with pytest.raises(SystemExit): main_at("train", "--help")
    assert "smooth" in capsys.readouterr().out
    assert "amount must be in [0, 1), got 3" in refused(["train", "demo", "--objective", "smooth", "--set", "amount=3", "--plugin", "my_smooth"])
    assert "amount has no effect on re: it is a setting of smooth" in refused(["train", "demo", "--objective", "re", "--set", "amount=0.3", "--plugin=my_smooth.py"])
    assert "is for 're' and 'rekd', not 'smooth'" in refused(["train", "demo", "--objective", "smooth", "--start", "warm", "--plugin", "my_smooth"])
    main_at("study", str(plugin / "mine.toml"), "--dry-run")
    assert "smooth" in capsys.readouterr().out
    assert resolve(plugin / "mine.toml", "smooth").objective.options == dict(amount=0.3)


def _file(folder):
    file = folder / "mine.toml"
    file.write_text('extends = "demo"\n[objective.smooth]\namount = 0.3\n[study]\nobjectives = ["cls", "smooth"]\nseeds = [1]\n')
    return file


def test_a_plugins_objective_trains(plugin, monkeypatch, capsys):
    main(["train", "demo", "--objective", "smooth", "--plugin", "my_smooth", "--set", "amount=0.2", "n_train=20", "n_test=10", "val_share=0.5", "epochs=1", "batch_size=8", "precision=no"])
    row = json.loads((plugin / "runs" / "demo" / "smooth-paper-2025" / "row.json").read_text())
    assert set(row["masks"]) == {"none"} and row["config"]["objective"] == dict(name="smooth", start="paper", teacher=None, options=dict(amount=0.2))


@pytest.mark.parametrize("text, said", [("import nothing_of_that_name", "nothing_of_that_name"), ("x = (", "SyntaxError"), ("raise RuntimeError('no')", "RuntimeError: no")])
def test_a_plugin_that_fails_is_named_with_its_place(plugin, text, said):
    (plugin / "broken_part.py").write_text(text)
    line = refused(["presets", "--plugin", "broken_part"])
    assert said in line and "broken_part" in line


def test_a_backbone_of_a_plugin_reaches_the_model(plugin, monkeypatch):
    "The name goes through as it is; who builds it is the backbone's registry."
    import rekd.run as module
    asked = []
    class Stop(Exception): pass
    def build(backbone, labels, **options):
        asked.append(backbone)
        raise Stop
    monkeypatch.setattr(module, "build_model", build)
    with pytest.raises(Stop): main(["train", "demo", "--objective", "re", "--plugin", "my_smooth", "--set", "model.backbone=wordcnn"])
    with pytest.raises(Stop): main(["train", "demo", "--objective", "cls", "--plugin", "my_smooth", "--set", "backbone=wordcnn"])
    assert asked == ["wordcnn", "wordcnn"]


@pytest.mark.parametrize("changes", [["dataset=cifar10"], ["data.starter=false"], ["train.epochs=9"], ["per=example"], ["objective.re.train.lr=1e-2"]])
def test_rows_of_other_settings_are_not_called_done(changes, capsys):
    "Fault 13: a plan with other data, network, loop or objective has its own runs, and says where the rows are not its own."
    main(["study", "demo", "--set", *changes, "--dry-run"])
    out = capsys.readouterr().out
    own = 9 if changes[0].startswith("objective.re") else 0 # only RE has changed
    if changes == ["per=example"]: own = 6 # CLS and random know no such setting
    assert f"{own} of 12 runs are done" in out and "it would not start" in out and "--name NAME" in out


@pytest.fixture(autouse=True)
def shipped(monkeypatch):
    "The repo's own rows, where a test does not say otherwise."
    from pathlib import Path
    monkeypatch.setenv("REKD_ARTIFACTS", str(Path(__file__).parents[1] / "artifacts"))


def test_every_study_that_has_rows_says_what_they_were_made_from():
    "Fault 40: each of the main studies pins rows and content; the shipped starter set needs no hub."
    for name in preset_files(study=True):
        p = load_preset(name, study=True)
        if name.startswith(("paper", "demo", "starter")) or not read_rows(results_file(name)): continue
        assert p.made_from["rows"]["train"] and p.made_from["data"] and p.made_from["note"], name
        if p.settings["model"]["backbone"] == "vit-small-patch14": assert "dinov2-small" in p.made_from["note"] and p.made_from["weights"], name


@pytest.mark.parametrize("here, said", [
    (dict(rows=dict(train=50000, test=10000), data="x", weights="w"), ["train has 50,000 rows, not 10,000", "test has 10,000 rows, not 2,000"]),
    (dict(rows=dict(train=10000, test=2000), data="x", weights="w"), ["the data have other content"]),
    (dict(rows=dict(train=10000, test=2000), data="d", weights=None), ["the pretrained weights are others"]),
    (dict(rows=dict(train=10000, test=2000, val=5), data="d", weights="w"), []),
])
def test_other_data_or_weights_are_told(here, said):
    assert changed_sources(dict(rows=dict(train=10000, test=2000), data="d", weights="w"), here) == said


@pytest.mark.parametrize("text, said", [
    ("", "has no data.name"),
    ('extends = "demo"\n[trian]\nlr = 1', "did you mean 'train'"),
    ('extends = "demo"\n[train]\nlr = "1e-4"', "train.lr must be float, got '1e-4'"),
    ('extends = "demo"\n[train]\nlr = -1.0', "lr must be a number in (0, inf)"),
    ('extends = "demo"\n[train]\nlr = nan', "lr must be a number in (0, inf), got nan"),
    ('extends = "demo"\n[objective.rekd]\npart = "rational"', "did you mean 'rationale'"),
    ('extends = "demo"\n[objective.rekd.train]\nlr.x = 1', "objective.rekd.train.lr.x"),
    ('extends = "demo"\n[objective]\nre = 3', "objective.re"),
    ('extends = "demo"\n[model]\ndropout = true', "dropout must be float, got True"),
    ('extends = ["demo"]', "extends must be"),
    ('extends = "mine"', "unknown preset 'mine'"),
    ('extends = "mine.toml"', "extends itself"),
    ('extends = "no.toml"', "no preset"),
    ('train = 5', "train must be a table"),
    ("[train\nlr = 1", "is not a preset, which is TOML"),
    ("\x00", "is not a preset"),
])
def test_a_wrong_file_is_refused_in_one_line_that_names_it(text, said, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    line = refused(["train", "mine.toml"])
    assert said in line and ("mine.toml" in line or said.startswith("lr must") or "rationale" in said), line


@pytest.mark.parametrize("text, said", [
    ('seeds = []', "seeds must be a list of int"), ('seeds = [1.5]', "seeds must be a list of int"), ("seeds = [-1]", "seed must be"), ("seed = [1]", "did you mean 'seeds'"),
    ('objectives = ["rked"]', "did you mean 'rekd'"), ('starts = ["worm"]', "did you mean 'warm'"), ("few = -1", "few"), ('measure_on = "vla"', "did you mean 'val'"),
    ('cells = [{ name = "a" }]', "needs an objective"), ('cells = [{ objective = "re", set = { alpha = 0.1 } }]', "it is a setting of rekd"),
    ('cells = [{ objective = "cls", start = "warm" }]', "a warm start is for"), ('cells = [{ objective = "re" }, { objective = "re", set = { lr = 1.0 } }]', "two cells are called re paper"),
    ('cells = [{ objective = "re", sets = {} }]', "did you mean 'set'"), ('cells = [{ objective = "re", name = "../x" }]', "becomes a part of a folder's"),
    ('[made_from]\nrows = 3', "made_from.rows must be a table of numbers"), ('[made_from]\nweights = 5', "made_from.weights must be a text"), ('[made_from]\nrow = {}', "did you mean 'rows'"), ('cells = 3', "cells must be a list"),
])
def test_a_wrong_study_is_refused_in_one_line(text, said, tmp_path):
    (tmp_path / "mine.toml").write_text(f'extends = "demo"\n[study]\n{text}\n')
    line = refused(["study", "mine.toml", "--dry-run"])
    assert said in line and "mine.toml" in line, line


@pytest.mark.parametrize("args, said", [
    (["train", "./"], "unknown preset './'"), (["presets", "/"], "unknown preset"), (["train", "no.toml"], "no preset no.toml"),
    (["study", "demo", "--name", "../x", "--dry-run"], "no path in it"), (["study", "demo", "--name", "", "--dry-run"], "no path in it"),
])
def test_odd_names_are_refused(args, said): assert said in refused(args)


def test_a_seed_named_twice_is_run_once(): assert [r["seed"] for r in planned("demo", ["cls"], [1, 1, 2])] == [1, 2]


def test_names_do_not_steer(tmp_path):
    "A file called -search or -teacher is like any other."
    for name in ("my-search", "my-teacher", "cpu-mine", "my-ablations"):
        (tmp_path / f"{name}.toml").write_text('extends = "demo"\n')
        assert study_plan(tmp_path / f"{name}.toml") == study_plan("demo")


def test_a_name_without_its_ending_is_told_of_the_file(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "demo"\n')
    with pytest.raises(SettingError, match="did you mean 'mine.toml'"): load_preset("mine")
    with pytest.raises(MissingError, match="did you mean 'mine.toml'"): load_preset("mime.toml")


def test_a_printed_preset_is_the_same_preset(tmp_path):
    for name in preset_files():
        (tmp_path / "again.toml").write_text(preset_text(name))
        for run in (("cls", "paper"), ("re", "warm"), ("rekd", "paper")): assert resolve(tmp_path / "again.toml", *run) == resolve(name, *run), name


def test_the_study_beside_a_notebook_has_the_shipped_settings():
    shipped, own = preset_files(), preset_files(study=True)
    both = [n for n in shipped if shipped[n] != own[n]]
    assert len(both) == 9
    for n in both: assert load_preset(n).settings == load_preset(n, study=True).settings, n


def test_plans_are_as_before():
    "How many runs, of how many cells, and how many have a row: the studies before they were files."
    counts = {"cpu-imdb": (26, 26), "cpu-imdb-gru": (26, 6), "cpu-cifar10": (26, 26), "gpu-cifar10": (26, 26), "gpu-cifar10-search": (24, 24), "cpu-imdb-ablations": (44, 44),
              "cpu-cifar10-ablations": (14, 13), "cpu-cifar100-100": (6, 4), "cpu-imdb-longer": (18, 6), "cpu-cifar10-teacher": (2, 2), "demo": (12, 12)}
    for name, (n, done) in counts.items():
        runs = planned(name)
        assert (len(runs), sum(r["done"] for r in runs)) == (n, done), name
