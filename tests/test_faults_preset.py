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
    ('extends = "demo"\n[train]\nlr = nan', "mine.toml: train.lr must be a finite number, got nan"),
    ('extends = "demo"\n[objective.rekd]\npart = "rational"', "did you mean 'rationale'"),
    ('extends = "demo"\n[objective.rekd.train]\nlr.x = 1', "objective.rekd.train.lr.x"),
    ('extends = "demo"\n[objective]\nre = 3', "objective.re"),
    ('extends = "demo"\n[model]\ndropout = true', "dropout must be float, got True"),
    ('extends = ["demo"]', "extends must be"),
    ('extends = "mine"', "mine.toml extends itself"),
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
    assert len(both) == 10
    for n in both: assert load_preset(n).settings == load_preset(n, study=True).settings, n


def test_plans_are_as_before():
    "How many runs, of how many cells, and how many have a row: the studies before they were files."
    counts = {"cpu-imdb": (26, 26), "cpu-imdb-gru": (26, 6), "cpu-cifar10": (26, 26), "gpu-cifar10": (26, 26), "gpu-cifar10-search": (24, 24), "cpu-imdb-ablations": (44, 44),
              "cpu-cifar10-ablations": (14, 13), "cpu-cifar100-100": (6, 4), "cpu-imdb-longer": (18, 6), "cpu-cifar10-teacher": (2, 2), "demo": (12, 12)}
    for name, (n, done) in counts.items():
        runs = planned(name)
        assert (len(runs), sum(r["done"] for r in runs)) == (n, done), name


TINY = ["--set", "n_train=40", "n_test=10", "epochs=1", "precision=no", "num_workers=0"]


def trained(home, *more): # noqa: F811
    main(["train", "demo", "--objective", "re", *TINY, *more])
    return home / "runs" / "demo" / "re-paper-2025"


def test_a_refused_run_leaves_the_settings_of_another_alone(home, monkeypatch): # noqa: F811
    "Of a run that is finished, that another process holds, or that an older version began."
    from filelock import FileLock
    folder = trained(home)
    was = (folder / "run.json").read_text()
    assert "resume it" in refused(["train", "demo", "--objective", "re", *TINY, "dropout=0.3"])
    assert "dropout=0.1" in refused(["train", "demo", "--objective", "re", "--resume", *TINY, "dropout=0.3"])
    assert (folder / "run.json").read_text() == was
    (folder / "run.json").unlink() # as of an older version
    assert "resume it" in refused(["train", "demo", "--objective", "re", *TINY, "dropout=0.3"])
    held = home / "held"
    held.mkdir()
    with FileLock(held / ".lock"): assert "is in use" in refused(["train", "demo", "--objective", "re", "--out", str(held), *TINY])
    assert not (folder / "run.json").exists() and not (held / "run.json").exists()


def test_a_row_says_what_evaluate_says(home, tmp_path): # noqa: F811
    "To the last digit, though the run itself computed in bf16."
    main(["train", "demo", "--objective", "re", "--set", "n_train=40", "n_test=10", "epochs=1", "num_workers=0", "precision=bf16"])
    folder = home / "runs" / "demo" / "re-paper-2025"
    main(["evaluate", "demo", "--json", str(tmp_path / "e.json")])
    told = {r.pop("mask"): r for r in json.loads((tmp_path / "e.json").read_text())}
    assert told == json.loads((folder / "row.json").read_text())["masks"]


def test_a_row_is_not_taken_for_other_weights(home, tmp_path): # noqa: F811
    "Nor for a folder of another name; the row of an older version, which does not tell, is."
    from safetensors.torch import load_file, save_file

    from rekd.answers import its_row
    folder = trained(home)
    assert its_row(str(folder / "model"))["objective"] == "re"
    (folder / "other").mkdir()
    (folder / "other" / "model.safetensors").write_bytes((folder / "model" / "model.safetensors").read_bytes())
    assert its_row(str(folder / "other")) == {}
    weights = load_file(folder / "model" / "model.safetensors")
    save_file({k: w + 1 for k, w in weights.items()}, folder / "model" / "model.safetensors")
    assert its_row(str(folder / "model")) == {}
    row = json.loads((folder / "row.json").read_text())
    del row["weights"]
    (folder / "row.json").write_text(json.dumps(row))
    assert its_row(str(folder / "model")) == row


def test_a_model_is_found_by_one_meaning(home, monkeypatch, tmp_path, caplog): # noqa: F811
    "The newest RE run and nothing that is called alike; a run's folder has its model; a name of two things is refused."
    import os

    from rekd.run import find_model
    monkeypatch.setenv("REKD_ARTIFACTS", str(tmp_path / "art"))
    def put(folder, age):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        os.utime(folder / "config.json", (age, age))
        return str(folder)
    runs = home / "runs" / "demo"
    right = put(runs / "re-warm-7" / "model", 10)
    for i, other in enumerate(("re-own", "re-own-paper-7", "re-paper-7-heavy", "re-old-7", "re-paper-x")): put(runs / other / "model", 20 + i)
    with caplog.at_level("INFO", "rekd.run"): assert find_model("demo") == right
    assert right in caplog.text
    assert find_model(runs / "re-warm-7") == right == find_model("demo/re-warm-7")
    shipped = put(tmp_path / "art" / "models" / "mine", 1)
    assert find_model("mine") == shipped
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "mine", 1), put(tmp_path / "demo", 1), put(tmp_path / "free" / "model", 1)
    for name in ("mine", "demo"):
        with pytest.raises(SettingError, match=f"./{name}"): find_model(name)
    assert (find_model("./mine"), find_model("free")) == ("mine", "free/model")


def test_changed_data_are_noticed_whatever_their_columns(tmp_path, monkeypatch):
    "And data that cannot be read any more are not the same."
    from rekd.config import DataSettings
    from rekd.study import _content
    (tmp_path / "d").mkdir()
    def put(word):
        for part in ("train", "test"): (tmp_path / "d" / f"{part}.csv").write_text("review,stars\n" + "".join(f"{word} {i},{'ab'[i % 2]}\n" for i in range(8)))
    settings, seen = DataSettings("d", text_column="review", label_column="stars"), []
    for word in ("film", "book", "film"):
        put(word)
        seen.append(_content(settings))
    assert seen[0] == seen[2] != seen[1] and None not in seen
    assert "cannot be read" in _content(DataSettings("d", text_column="film", label_column="stars"))
    assert _content(DataSettings(str(tmp_path / "gone"))) is None


def test_a_file_of_ones_own_does_not_take_a_presets_name(tmp_path, monkeypatch, home): # noqa: F811
    "Their runs and rows would be mixed; a study may be given a name."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REKD_ARTIFACTS", str(tmp_path / "art"))
    for name in ("demo", "paper-imdb-tiny"):
        Path(f"{name}.toml").write_text('extends = "cpu-imdb"\n')
        for args in (["train"], ["study"], ["table"], ["study", "--dry-run"]):
            said = refused([args[0], f"{name}.toml", *args[1:]])
            assert f"{name}.toml has the name of the preset" in said and "another name" in said
        main(["study", f"{name}.toml", "--dry-run", "--name", "mine"])
    assert resolve("demo", "re").data.name == "imdb"


def test_data_beside_a_file_are_read_from_there(tmp_path, monkeypatch):
    "From any folder; by way of `extends` too; two of one name are refused."
    (tmp_path / "a" / "toy").mkdir(parents=True)
    (tmp_path / "a" / "base.toml").write_text('extends = "demo"\n[data]\nname = "toy"\n')
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.toml").write_text('extends = "../a/base.toml"\n')
    right = str(tmp_path / "a" / "toy")
    for here in (tmp_path, tmp_path / "a", tmp_path / "b"):
        monkeypatch.chdir(here)
        assert resolve(tmp_path / "a" / "base.toml", "re").data.name == resolve(tmp_path / "b" / "mine.toml", "re").data.name == right
    (tmp_path / "b" / "toy").mkdir()
    with pytest.raises(SettingError) as e: resolve("../a/base.toml", "re")
    assert str(tmp_path / "a") in str(e.value) and str(tmp_path / "b" / "toy") in str(e.value)
    (tmp_path / "a" / "imdb").mkdir() # a name of the library stays one
    assert resolve("demo", "re").data.name == "imdb"


def test_the_starter_set_has_no_folders_of_ones_own(tmp_path):
    (tmp_path / "toy").mkdir()
    with pytest.raises(SettingError, match="starter"): resolve("demo", "re", overrides={"dataset": "toy", "data.starter": True})
    assert resolve("demo", "re", overrides={"dataset": "imdb", "data.starter": True}).data.starter


@pytest.mark.parametrize("pair, value", [("freeze_embeddings=none", "none"), ("dataset=2024", "2024"), ("dataset=true", "true"), ("dataset=1e5", "1e5"),
                                         ("dataset=null", "null"), ("objective.teacher=none", None), ("text_column=7", "7"), ("num_layers=None", None),
                                         ("lr=1e-4", 1e-4), ("starter=TRUE", True), ("alpha=none", None), ("epochs=3", 3)])
def test_a_setting_is_read_as_its_type_asks(pair, value):
    from rekd.console import parse_changes
    assert list(parse_changes([pair]).values()) == [value]


OWN = "from rekd.registry import register_objective\n@register_objective({!r})\nclass Part:\n    selects = False\n"


def test_a_plugin_is_the_file_that_is_named(tmp_path, monkeypatch):
    "Though Python has a module of that name; by its path, too, and with what lies beside it."
    import calendar
    import sys
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "calendar", calendar)
    (tmp_path / "calendar.py").write_text(OWN.format("cal-own"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "pathplug.py").write_text("import besideplug\n" + OWN.format("path-own"))
    (tmp_path / "sub" / "besideplug.py").write_text("")
    try:
        for name, part in (("calendar", "cal-own"), ("./calendar.py", "cal-own"), ("sub/pathplug.py", "path-own"), (str(tmp_path / "sub" / "pathplug.py"), "path-own")):
            load(name)
            assert part in OBJECTIVES
        assert sys.modules["calendar"] is calendar
    finally:
        for part in ("cal-own", "path-own"): OBJECTIVES.pop(part, None)


def load(name):
    from rekd.console import bring
    bring([name])


@pytest.mark.parametrize("name, text, said", [
    ("exity", "import sys\nsys.exit(3)\n", "'exity' ends Python"), ("quits", "raise SystemExit\n", "'quits' ends Python"),
    ("needs", "import not_there_at_all\n", "not_there_at_all"), ("odd", "raise ModuleNotFoundError('x', name='odd')\n", "odd.py, line 1")])
def test_a_plugin_that_ends_or_fails_is_named(tmp_path, name, text, said):
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(SettingError, match=said): load(name)
    with pytest.raises(MissingError, match="no file"): load("./nowhere.py")


@pytest.mark.parametrize("error, said, room", [
    (OSError(28, "No space left on device"), "Make room", True), (OSError(122, "Disk quota exceeded"), "Make room", True),
    (PermissionError(13, "Permission denied"), "may write to", False), (OSError(30, "Read-only file system"), "may write to", False),
    (NotADirectoryError(20, "Not a directory"), "has that name", False), (OSError(36, "File name too long"), "another name", False),
    (OSError(5, "Input/output error"), "another folder", False)])
def test_what_cannot_be_written_has_its_own_remedy(error, said, room, tmp_path):
    from rekd.errors import WriteError, writing
    with pytest.raises(WriteError) as e:
        with writing(tmp_path / "x"): raise error
    assert said in str(e.value) and ("Make room" in str(e.value)) == room == ("MB" in str(e.value))


def test_a_plan_says_what_is_missing(tmp_path, capsys, monkeypatch):
    "Data that a file names and that are not there; lists with nothing in them."
    assert "nonexist" in refused(["study", "demo", "--dry-run", "--set", "dataset=nonexist"])
    (tmp_path / "m.toml").write_text('extends = "demo"\n[data]\nname = "nonexist"\n')
    monkeypatch.setenv("REKD_ARTIFACTS", str(tmp_path / "art"))
    main(["study", "m.toml", "--dry-run"])
    assert "would not start" in (out := capsys.readouterr().out) and "nonexist" in out
    for key in ("seeds", "objectives", "starts"): assert f"needs {key}" in refused(["study", "demo", f"--{key}", "--dry-run"])
    assert "got ''" in refused(["presets", ""])


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path):
    import os
    import subprocess
    import sys
    read, write = os.pipe()
    os.close(read)
    code = "import rekd.cli; rekd.cli.main(['presets', 'demo'])"
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, env=os.environ | dict(PYTHONPATH=str(Path(__file__).parents[1])))
    os.close(write)
    assert done.stderr == "" and done.returncode == 1


def test_a_file_may_begin_with_a_mark(tmp_path):
    "As Windows editors write it."
    for head in ("", "# mine\n"):
        (tmp_path / "w.toml").write_text(head + 'extends = "demo"\n[train]\nepochs = 9\n', encoding="utf-8-sig")
        assert resolve("w.toml", "re").train.epochs == 9 and not preset_text("w.toml").startswith("\ufeff")


def test_a_goal_out_of_reach_is_told_before_anything_is_trained(home, monkeypatch): # noqa: F811
    import rekd.run as module
    monkeypatch.setattr(module, "fit", lambda *a, **k: pytest.fail("it trained"))
    for share in ("1.0", "0.999999"):
        assert "sparsity_share" in refused(["train", "demo", "--objective", "re", "--start", "warm", *TINY, f"sparsity_share={share}"])
    assert not (home / "runs" / "demo" / "cls-paper-2025" / "row.json").exists()


def test_shipped_rows_are_rows_of_their_studies(shipped):
    "But for the shipped teacher's, which was trained with other settings than its preset has now."
    from rekd.study import conflict
    names = [n for n in preset_files(study=True) if results_file(n).is_file()]
    assert len(names) > 20 and [n for n in names if conflict(load_preset(n, study=True), n, {})] == ["starter-teacher"]
    assert all(r["done"] for r in planned("demo")) and len(planned("demo")) == 12


@pytest.mark.parametrize("body, said", [('extends = "mine"\n', "mine.toml extends itself"), ('extends = "mine.toml"\n', "mine.toml extends itself"),
                                        ("[train]\nlr = inf\n", "mine.toml: train.lr must be a finite number, got inf"),
                                        ("[model]\nsparsity = nan\n", "mine.toml: model.sparsity must be a finite number, got nan")])
def test_a_file_that_extends_itself_and_what_is_no_number_name_the_file(body, said, tmp_path):
    (tmp_path / "mine.toml").write_text(body)
    with pytest.raises(SettingError, match=said): load_preset(tmp_path / "mine.toml")


def test_a_plan_says_what_cannot_start(home, capsys): # noqa: F811
    "What a run would refuse before it trains, a dry run refuses as well."
    for change, said in [("n_train=1", "leaves no row of"), ("label_column=nope", "nope"), ("max_length=2", "max_length"),
                         ("generator_layers=9", "generator_layers"), ("pixels=imagenet", "a preset's pixels"), ("image_size=64", "no effect on a model that reads texts")]:
        main(["study", "demo", "--dry-run", "--set", *[s for s in ("n_train=20", "n_test=8") if s.split("=")[0] != change.split("=")[0]], change])
        assert "would not start" in (out := capsys.readouterr().out) and said in out, (change, out)
    main(["study", "demo", "--dry-run", "--set", "n_train=20", "n_test=8", "val_share=0.5", "epochs=2"])
    assert "would not start" not in capsys.readouterr().out


@pytest.mark.parametrize("table, said", [("[start.hot]", "unknown setting start.hot"), ("[objective.foo]", "unknown setting objective.foo"), ("[train.lr]", "train.lr must be float"),
                                         ("[objective.re.loop]", "unknown setting objective.re.loop"), ("[model]\nbackbone = ' '", "name or folder of a network"),
                                         ('[objective.rekd]\nteacher = ""', '"none" stands for no teacher'), ('[train]\neval_mask = "x"', "eval_mask must be one of")])
def test_a_line_of_a_file_without_effect_or_sense_is_refused_with_the_files_name(tmp_path, table, said):
    (tmp_path / "my.toml").write_text(f'extends = "demo"\n{table}\n')
    line = refused(["train", str(tmp_path / "my.toml"), "--objective", "rekd"])
    assert said in line and "my.toml" in line
    (tmp_path / "my.toml").write_text('extends = "demo"\n[train]\n[objective.re]\n[objective.re.train]\n[start.warm.train]\n') # headings alone
    assert resolve(tmp_path / "my.toml", "re") == resolve("demo", "re")


def test_a_setting_of_texts_means_nothing_to_pictures(home): # noqa: F811
    for name in ("max_length=64", "select_special=false", "freeze_embeddings=none"):
        assert "has no effect on a model that reads pictures" in refused(f"train cpu-cifar10 --objective re --set n_train=20 n_test=10 val_share=0.5 {name}".split())


@pytest.mark.parametrize("text", ["{broken", "[]", "{}", '{"train": 3}'])
def test_a_damaged_record_of_a_run_is_named_when_it_goes_on(home, text): # noqa: F811
    args = "train demo --objective re --set n_train=20 n_test=8 val_share=0.5 epochs=1 batch_size=5 --resume".split()
    main(args)
    file = home / "runs" / "demo" / "re-paper-2025" / "run.json"
    file.write_text(text)
    assert (line := refused(args)) and "run.json is damaged" in line


@pytest.mark.parametrize("change", ["phrase_lambda=0.5", "dropped=remove", "generator_layers=1", "unit=word"])
def test_a_setting_that_older_rows_do_not_name_is_another_study(change, capsys):
    try: main(["study", "demo", "--objectives", "re", "--dry-run", "--set", change])
    except SystemExit as e: assert change == "dropped=remove" and "cannot learn" in e.code; return
    assert "But it would not start" in (out := capsys.readouterr().out) and change.split("=")[0] in out
    main(["study", "demo", "--objectives", "re", "--dry-run"])
    assert "would not start" not in capsys.readouterr().out


def test_a_plan_asks_each_objective_and_each_cell(home, capsys): # noqa: F811
    short = ["n_train=20", "n_test=8", "val_share=0.5"]
    for objectives in (["cls", "re"], ["re", "cls"], ["random"]):
        main(["study", "demo", "--dry-run", "--objectives", *objectives, "--set", *short, "sparsity_start=0.5", "sparsity_share=1.0"])
        assert "would not start: sparsity_share=1.0" in capsys.readouterr().out, objectives
    (home / "cells.toml").write_text('extends = "demo"\n[data]\nn_train = 20\nn_test = 8\nval_share = 0.5\n[study]\nseeds = [1]\ncells = [{ objective = "re", set = { "model.image_size" = 64 } }]\n')
    main(["study", str(home / "cells.toml"), "--dry-run"])
    assert "model.image_size has no effect on a model that reads texts" in capsys.readouterr().out
    assert "reads pictures" in refused("train cpu-cifar10 --objective re --start warm --set n_train=20 n_test=10 val_share=0.5 phrase_lambda=0.1".split())
    assert not list((home / "runs").glob("*/cls*"))
