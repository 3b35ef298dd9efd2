"The chapter's word-CNN as a stranger has it: a file of one's own, and the command line."

import json
import sys
from pathlib import Path
import pytest
from rekd.cli import main
from rekd.registry import BACKBONES
from test_presets import home, world # noqa: F401 -- fixtures

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
