"The chapter's word-CNN as a stranger has it: a file of one's own, and the command line."

import json
import sys
from pathlib import Path
import pytest
from rekd.cli import main
from rekd.errors import SettingError
from rekd.objective import RE, REKD
from rekd.registry import BACKBONES, ESTIMATORS, load_plugins
from rekd.train import TrainConfig, fit
from test_presets import home, world # noqa: F401 -- fixtures
from tiny import make_model

CHAPTER = Path(__file__).parents[1] / "nbs" / "02_backbone.ipynb"
HEAD = "import torch.nn as nn\nfrom rekd.backbone import Backbone\nfrom rekd.registry import register_backbone\n\n"


@pytest.fixture
def my_cnn(tmp_path):
    "The cell of the chapter, under the lines that the chapter names."
    cells = ["".join(c["source"]) for c in json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]]
    assert all(line in "".join(cells) for line in HEAD.split("\n"))
    cell, = (c for c in cells if c.startswith('@register_backbone("wordcnn")'))
    (tmp_path / "my_cnn.py").write_text(HEAD + cell)
    yield "my_cnn"
    BACKBONES.pop("wordcnn", None)
    sys.modules.pop("my_cnn", None)


def test_the_word_cnn_is_trained_measured_explained_reported_and_studied(home, my_cnn, tmp_path, capsys): # noqa: F811
    small = ["n_train=20", "n_test=8", "val_share=0.5", "epochs=1", "batch_size=5"]
    main(["train", "demo", "--plugin", my_cnn, "--objective", "re", "--set", "model.backbone=wordcnn", *small])
    config = json.loads((home / "runs" / "demo" / "re-paper-2025" / "model" / "config.json").read_text())
    assert config["backbone"]["model_type"] == "wordcnn"
    main(["evaluate", "demo/re-paper-2025", "--plugin", my_cnn, "--json", "e.json"])
    row = json.loads((home / "runs" / "demo" / "re-paper-2025" / "row.json").read_text())
    assert {r["mask"]: r["accuracy"] for r in json.loads(Path("e.json").read_text())} == {m: v["accuracy"] for m, v in row["masks"].items()}
    main(["explain", "demo/re-paper-2025", "--plugin", my_cnn, "--text", "a film", "--json"])
    main(["report", "demo/re-paper-2025", "--plugin", my_cnn, "--examples", "2", "--out", "r.html"])
    Path("mine.toml").write_text('extends = "demo"\n[data]\nn_train = 20\nn_test = 8\nval_share = 0.5\n[model]\nbackbone = "wordcnn"\n[train]\nepochs = 1\nbatch_size = 5\n'
                                 '[study]\nobjectives = ["cls", "re"]\nseeds = [1]\nstarts = ["paper"]\n')
    main(["study", "mine.toml", "--plugin", my_cnn])
    capsys.readouterr()
    main(["table", "mine.toml"])
    assert capsys.readouterr().out.count("wordcnn") == 4 # CLS, and RE under three masks
    BACKBONES.pop("wordcnn")
    with pytest.raises(SystemExit, match="saved with the plugin 'my_cnn'"): main(["explain", "demo/re-paper-2025", "--text", "a film"])


FAULTY = """import torch
from rekd.registry import register_estimator
@register_estimator("faulty")
def faulty(logits, selectable, context, loss_of_each):
    m = selectable.float() + 0 * logits[..., 1]
"""


@pytest.mark.parametrize("body, said", [
    ("m = m * 5; return loss_of_each(m).mean(), m", "a mask between 0 and 1, got 0 to 5"),
    ("m = m[:, :-1]; return loss_of_each(m).mean(), m", "make a mask of shape"),
    ("m = m + 1 - selectable.float(); return loss_of_each(m).mean(), m", "a place that cannot be selected"),
    ("m = m.detach(); return loss_of_each(m).mean(), m", "a gradient for the generator"),
    ("return loss_of_each(m), m", "a loss of one number"),
    ("return loss_of_each(m).mean()", "its loss and its mask"),
    ("raise ValueError('boom')", "fails: ValueError: boom"),
])
def test_an_estimator_that_cannot_be_right_is_refused_at_the_first_step(body, said, tmp_path, text_data):
    (tmp_path / "faulty_plugin.py").write_text(FAULTY + f"    {body}\n")
    try:
        load_plugins(str(tmp_path / "faulty_plugin.py"))
        for objective in RE(estimator="faulty"), REKD(make_model("bert", 7), estimator="faulty"):
            with pytest.raises(SettingError, match=f"the estimator 'faulty' of .*faulty_plugin.py .*{said}"):
                fit(make_model("bert", 5), text_data, objective, TrainConfig(epochs=1, batch_size=6), quiet=True)
    finally: ESTIMATORS.pop("faulty", None), sys.modules.pop("faulty_plugin", None)


def test_one_name_twice_in_a_file_and_what_cannot_be_called(tmp_path):
    head = "from rekd.registry import register_estimator\n"
    for i, (body, said) in enumerate([("@register_estimator('twice')\ndef one(): pass\n@register_estimator('twice')\ndef other(): pass\n", "choose another name"),
                                      ("register_estimator('twice')(3)\n", "must be a class or a function, got 3")]):
        (tmp_path / f"twice{i}.py").write_text(head + body)
        try:
            with pytest.raises(SettingError, match=said): load_plugins(str(tmp_path / f"twice{i}.py"))
        finally: ESTIMATORS.pop("twice", None)
