"A data set of one's own that is made by a function: a file, and the command line."

import json
import sys
from pathlib import Path
import numpy as np
import pytest
import tiny
import torch
from rekd.cli import main
from rekd.data import load_data
from rekd.errors import DataError, SettingError
from rekd.processor import ImageProcessor
from rekd.registry import DATASETS, register_dataset
from rekd.rows import data_folder, is_dataset_name, read_data
from test_presets import home, world # noqa: F401 -- fixtures

MINE = '''
from rekd.registry import register_dataset

@register_dataset("mine")
def mine(part):
    words = dict(bad="dull awful".split(), good="lovely superb".split())
    return None if part == "val" else [dict(text=f"a film {words[label][i % 2]} {part} {i}", label=label) for i in range(12) for label in words]
'''


@pytest.fixture(autouse=True)
def no_leftovers():
    yield
    for name in ("mine", "spots"): DATASETS.pop(name, None)
    sys.modules.pop("my_data", None)


def test_a_data_set_of_ones_own_trains_and_is_reported_on(home, capsys): # noqa: F811
    Path("my_data.py").write_text(MINE)
    main("train demo --objective re --plugin my_data --set data.name=mine val_share=0.5 epochs=1 batch_size=5".split())
    row = json.loads((home / "runs" / "demo" / "re-paper-2025" / "row.json").read_text())
    assert row["source"]["name"] == "mine" and row["made_from"]["rows"] == dict(train=24, test=24) and row["n_val"] == 12
    main("evaluate demo/re-paper-2025 --plugin my_data --json e.json".split())
    assert {r["mask"]: r["accuracy"] for r in json.loads(Path("e.json").read_text())} == {m: v["accuracy"] for m, v in row["masks"].items()}
    main("report demo/re-paper-2025 --plugin my_data --examples 2 --out r.html".split())
    assert "a film lovely test" in (page := Path("r.html").read_text()) or "a film superb test" in page
    del DATASETS["mine"]
    with pytest.raises(SystemExit, match="one of a plugin"): main("evaluate demo/re-paper-2025".split())


class Spots:
    "A bright patch in one of 16 places; the class says whether it is in the upper half. Each epoch puts it elsewhere in that half."
    def picture(self, label, rng):
        place = int(rng.integers(8)) + 8 * (label == "low")
        pixels = np.zeros((tiny.SIZE, tiny.SIZE, 3), np.uint8)
        y, x = (4 * k for k in divmod(place, 4))
        pixels[y:y + 4, x:x + 4] = 255
        return __import__("PIL.Image").Image.fromarray(pixels), place
    def __call__(self, part):
        rng = np.random.default_rng(len(part))
        made = [(label, *self.picture(label, rng)) for _ in range(10) for label in ("high", "low")]
        return None if part == "val" else [dict(image=image, label=label, place=place, true=np.eye(16)[place]) for label, image, place in made]
    def fresh(self, row, seed): return self.picture(("high", "low")[row % 2], np.random.default_rng(seed))[0]


def test_pictures_are_new_in_each_epoch_and_their_truth_stays_beside_them():
    register_dataset("spots")(Spots)
    data = load_data("spots", processor := ImageProcessor(tiny.SIZE, tiny.PATCH), val_share=0.5)
    assert data.train.changes and not data.val.changes and not data.test.changes
    at = lambda examples, key: examples[key]["row"]["inputs"][0].amax(0)
    for i in range(len(data.train)):
        assert torch.equal(at(data.train, (i, 5)), at(data.train, (i, 5))) # the same seed, the same picture
        upper = [bool(at(data.train, (i, seed))[:8].max() > at(data.train, (i, seed))[8:].max()) for seed in range(6)]
        assert set(upper) == {data.labels[data.train.labels[i]] == "high"} # of the row's class, whatever split and seed
    assert len({at(data.train, (0, seed)).argmax().item() for seed in range(20)}) > 2
    assert torch.equal(at(data.test, 3), at(data.test, (3, 9))) # no epoch changes what is measured on
    test = data.rows.parts["test"]
    for row, picture in zip(test, (at(data.test, i) for i in range(len(test)))):
        y, x = divmod(picture.argmax().item(), tiny.SIZE)
        assert row["place"] == 4 * (y // 4) + x // 4 == int(np.argmax(row["true"]))
    again = load_data("hub:spots", processor, val_share=0.5)
    assert again.train.fingerprint() == data.train.fingerprint() and again.rows.record() == data.rows.record()


@pytest.mark.parametrize("rows, said", [
    (None, "as a list of dictionaries"), ([], "as a list of dictionaries"), ("text", "as a list of dictionaries"), ([1], "as a list of dictionaries"), (3, "as a list of dictionaries"),
    ([dict(text="a", label=0), dict(text="b")], "the same keys"), ([dict(text="a", label=0), dict(text=3, label=1)], "of one type"),
    ([dict(text="a"), dict(text="b")], "no column 'label'"), ([dict(text="a", label=0)] * 2, "one class only"), ([dict(text="", label=0), dict(text="b", label=1)], "empty text"),
    ([dict(image=b"no", label=0), dict(image=b"no", label=1)], "images of train cannot be used"),
])
def test_rows_that_cannot_be_used_are_refused_by_name(rows, said):
    register_dataset("mine")(lambda part: rows)
    with pytest.raises(DataError, match=said) as e: read_data("mine")
    assert "mine" in str(e.value) and "\n" not in str(e.value) or "one class only" in said


def test_a_name_means_one_thing(tmp_path, monkeypatch):
    register_dataset("mine")(lambda part: [dict(text="a", label=0), dict(text="b", label=1)])
    assert is_dataset_name("mine") and data_folder("mine") is None
    Path("mine").mkdir()
    with pytest.raises(SettingError, match="a folder here"): data_folder("mine")
    assert read_data("hub:mine").name == "mine"
    (tmp_path / "data" / "mine").mkdir(parents=True)
    monkeypatch.setenv("REKD_DATA", str(tmp_path / "data"))
    with pytest.raises(SettingError, match="needs another name"): data_folder("mine")
    monkeypatch.delenv("REKD_DATA")
    register_dataset("imdb")(lambda part: [])
    try:
        with pytest.raises(SettingError, match="needs another name"): data_folder("imdb")
    finally: del DATASETS["imdb"]


def test_a_data_set_that_fails_is_named(home): # noqa: F811
    def raises(part): raise KeyError("no such table")
    def no_argument(): return []
    def slowly(part): yield dict(text="a", label="x"); raise OSError("gone")
    class Broken:
        def __init__(self): raise ValueError("not ready")
    for part, said in [(raises, "KeyError"), (no_argument, "TypeError"), (slowly, "OSError: gone"), (Broken, "ValueError: not ready")]:
        DATASETS["mine"] = part
        with pytest.raises(SettingError, match=f"the data set 'mine' of .*test_plugin_data.py fails: {said}"): read_data("mine")


def test_a_picture_that_cannot_be_made_anew_is_named(image_model):
    class Spotless(Spots):
        def fresh(self, row, seed): raise ZeroDivisionError("no room")
    register_dataset("spots")(Spotless)
    data = load_data("spots", image_model.processor, val_share=0.5)
    with pytest.raises(DataError, match=r"the image in spots \(train\), row \d+ cannot be used: no room"): data.train[0, 1]
