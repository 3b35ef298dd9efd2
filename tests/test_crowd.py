"The crowd: fixed frames with a known place, fresh ones in each epoch; and what evaluate says of the place."

import json
import sys
from pathlib import Path
import numpy as np
import pytest
import tiny
import torch
from rekd.cli import main
from rekd.crowd import Crowd
from rekd.data import load_data
from rekd.documents import pointing, true_features
from rekd.errors import DataError, SettingError
from rekd.processor import ImageProcessor
from rekd.registry import DATASETS, register_dataset
from rekd.rows import is_dataset_name, read_data
from test_presets import home, world # noqa: F401 -- fixtures


@pytest.fixture
def small(home): # noqa: F811
    "A crowd of 16 patches of 4 pixels, of the tiny world's pictures, under a name of its own."
    register_dataset("small-crowd")(Crowd("cifar10", side=4, inner=2, patch=4))
    yield "small-crowd"
    DATASETS.pop("small-crowd")


def test_frames_are_fixed_where_models_are_measured_and_fresh_where_they_learn(small):
    data = load_data(small, ImageProcessor(tiny.SIZE, tiny.PATCH), val_share=0.5)
    at = lambda examples, key: examples[key]["row"]["inputs"][0]
    assert data.train.changes and not data.val.changes and not data.test.changes
    assert torch.equal(at(data.test, 3), at(data.test, (3, 9))) and torch.equal(at(data.val, 3), at(data.val, (3, 9)))
    assert torch.equal(at(data.train, (0, 1)), at(data.train, (0, 1))) and not torch.equal(at(data.train, (0, 1)), at(data.train, (0, 2)))
    again = load_data(small, ImageProcessor(tiny.SIZE, tiny.PATCH), val_share=0.5)
    assert again.rows.record() == data.rows.record() and again.train.fingerprint() == data.train.fingerprint()
    assert not set(data.train.rows["row"]) & set(data.val.rows["row"])


def test_a_fresh_frame_holds_the_row_s_own_picture_once(small):
    crowd = DATASETS[small]
    rows, places = crowd("train"), set()
    for i in range(len(rows)):
        mine = {p.tobytes() for p in crowd.train[i].reshape(4, -1)} | {p.tobytes() for p in crowd.train[i][..., ::-1, :].reshape(4, -1)} # or mirrored
        for seed in range(4):
            frame = np.asarray(crowd.fresh(i, seed)).reshape(4, 4, 4, 4, 3).swapaxes(1, 2).reshape(16, -1)
            found = [k for k in range(16) if frame[k].tobytes() in mine]
            assert len(found) == 4 and {f - found[0] for f in found} == {0, 1, 4, 5}
            places.add(found[0])
    assert len(places) > 6 # of nine


@pytest.mark.parametrize("others", [4, 7, 16])
def test_fragments_are_windows_of_other_pictures(home, others): # noqa: F811
    crowd = Crowd("cifar10", side=4, inner=2, patch=4, others=others)
    rows = crowd("train")
    windows = [{w[y:y + 4, x:x + 4].tobytes() for y in range(others - 3) for x in range(others - 3)} for w in crowd.whole]
    for i, row in enumerate(rows):
        frame = np.asarray(row["image"]).reshape(4, 4, 4, 4, 3).swapaxes(1, 2).reshape(16, 4, 4, 3)
        elsewhere = set().union(*(w for j, w in enumerate(windows) if j != i))
        assert all(f.tobytes() in elsewhere for f, inside in zip(frame, row["evidence"]) if not inside)
    with pytest.raises(SettingError, match="others"): Crowd("cifar10", side=4, inner=2, patch=4, others=3)


def test_pointing_counts_the_kept_patches_on_the_picture(small):
    model = tiny.make_model("vit", sparsity=0.25)
    rows = read_data(small, parts=("test",))
    test = load_data(small, model.processor, val_share=0.5).test
    true = true_features(test.rows, model.processor)
    assert [t.tolist() for t in true] == test.rows["evidence"][:] and {t.sum() for t in true} == {4}
    told = {}
    def select(batch): # keeps the right patches, or no right one
        place = torch.tensor(np.stack([true[i] for i in batch["index"]])).float()
        return torch.stack([torch.zeros_like(place), (2 * place - 1) * told["sign"]], -1)
    model.select = select
    for sign, said in ((1, 1.0), (-1, 0.0)):
        told["sign"] = sign
        found = pointing(model, test, true, ["topk", "none"], batch_size=3)
        assert found["topk"] == dict(precision=said, recall=said, pointed=len(rows.parts["test"]))
        assert found["none"] == dict(precision=0.25, recall=1.0, pointed=len(rows.parts["test"]))
    with pytest.raises(DataError, match="evidence for 16 patches, and the model reads 64"): true_features(test.rows, ImageProcessor(32, 4))
    with pytest.raises(DataError, match="no example has evidence"): pointing(model, test, [t * 0 for t in true], ["topk"])


def test_the_command_line_trains_and_points(home, capsys): # noqa: F811
    assert is_dataset_name("crowd")
    main("train cpu-crowd --objective re --start blind --set n_train=20 n_test=10 val_share=0.5 epochs=1 batch_size=8".split())
    row = json.loads((home / "runs" / "cpu-crowd" / "re-blind-2025" / "row.json").read_text())
    assert row["source"]["name"] == "crowd" and row["n_test"] == 10
    capsys.readouterr()
    main("evaluate cpu-crowd/re-blind-2025 --masks topk random --json e.json".split())
    assert "precision" in capsys.readouterr().out
    rows = json.loads(Path("e.json").read_text())
    assert {r["mask"]: r["accuracy"] for r in rows}["topk"] == row["masks"]["topk"]["accuracy"]
    assert all(0 <= r["precision"] <= 1 and r["pointed"] == 10 for r in rows)
    main("evaluate cpu-crowd/re-blind-2025 --dataset cifar10 --masks topk --json e.json".split()) # nobody knows the place
    assert "precision" not in json.loads(Path("e.json").read_text())[0]


def test_a_crowd_is_made_of_pictures(home): # noqa: F811
    with pytest.raises(DataError, match="made of pictures, and imdb holds texts"): Crowd("imdb")("test")


def test_the_library_s_own_crowd_is_known_before_anything_has_imported_it(home, monkeypatch): # noqa: F811
    monkeypatch.delitem(sys.modules, "rekd.crowd")
    monkeypatch.delitem(DATASETS, "crowd")
    assert "evidence" in read_data("crowd", parts=("test",), evidence=True).parts["test"].column_names
