"What README, the guide and model cards print can be typed: commands parse, code runs. What the guide says of the bare package is run by tests/test_package.py."
import json
import re
import shlex
from pathlib import Path

import pytest
from rekd import cli

TOP = Path(__file__).resolve().parents[1]
README = (TOP / "README.md").read_text(encoding="utf-8")
GUIDE = "\n\n".join("".join(c["source"]) for c in json.loads((TOP / "nbs" / "guide.ipynb").read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "markdown")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.S | re.M)

def commands(text):
    "The `rekd` commands of a page, without comments."
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()] + re.findall(r"`(rekd [^`\n]+)`", text)
    for line in lines:
        words = shlex.split(line.partition(";")[0], comments=True)
        if words[:1] == ["rekd"]: yield words[1:words.index(">")] if ">" in words else words[1:]


@pytest.mark.parametrize("args", [*commands(README), *commands(GUIDE)], ids=" ".join)
def test_a_command_of_readme_and_guide_parses(args, monkeypatch):
    if args == ["--version"]: return
    if not {"demo", "train", "evaluate", "explain", "report", "study", "table", "presets", "starter", "serve", "export"} & set(args[:1]): pytest.fail(f"no command {args[:1]}")
    if "--plugin" in args: args = args[:args.index("--plugin")] + args[args.index("--plugin") + 2:] # a file of the reader's
    ran = []
    monkeypatch.setattr(cli, "COMMANDS", {c: ran.append for c in cli.COMMANDS})
    cli.main(args)
    assert len(ran) == 1

def test_the_commands_are_found():
    assert sorted(c[0] for c in commands(README)) == ["explain", "report", "train", "train", "train"]
    found = list(commands(GUIDE))
    assert len(found) > 8 and ["demo"] in found and [c for c in found if c[:2] == ["explain", "imdb-small"]]

def test_the_front_pages_ten_lines(capsys):
    "They print what README prints below them."
    code = next(b for b in blocks(README, "python") if "model.predict" in b)
    exec(code, {}) # noqa: S102
    assert "".join(f"    {line}\n" for line in capsys.readouterr().out.splitlines()) in README

def test_training_in_python_as_the_guide_prints_it(tmp_path, monkeypatch):
    "On a folder of forty reviews, from the small backbone that the package carries."
    (tmp_path / "my_folder").mkdir()
    for part, n in (("train", 40), ("test", 10)):
        (tmp_path / "my_folder" / f"{part}.csv").write_text("text,label\n" + "".join(f'"a {w} film, number {i}",{w}\n' for i in range(n // 2) for w in ("good", "dull")))
    names = {}
    for code in [b for b in blocks(GUIDE, "python") if "my_folder" in b]: exec(code, names) # noqa: S102
    assert (tmp_path / "runs" / "mine").is_dir() and names["model"].explain("a good film").label in ("good", "dull")

def test_a_table_is_answered_as_the_guide_prints_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("id,review\n7,The cast is wonderful.\n8,The plot is dull.\n")
    cli.main(next(c for c in commands(GUIDE) if "--csv" in c))
    told = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(a["id"], a["label"]) for a in told] == [("7", "positive"), ("8", "negative")]

def test_the_guide_names_every_notebook_under_the_hood():
    named = set(re.findall(r"\]\(hood/(\w+)\.ipynb\) \|", GUIDE))
    assert named == {f.stem for f in (TOP / "nbs" / "hood").glob("*.ipynb")}

CARDS = sorted(TOP.glob("artifacts/models/*/README.md"))

@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.parent.name)
def test_the_code_of_a_shipped_models_card_runs(card, monkeypatch):
    "Where the folder is; a card of a picture model leaves the picture to its reader."
    from PIL import Image
    monkeypatch.chdir(card.parents[1])
    names = {} if "text-classification" in card.read_text() else dict(pil_image=Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 60))
    for code in blocks(card.read_text(), "python"): exec(code, names) # noqa: S102
    assert names["explanation"].label in json.loads((card.parent / "config.json").read_text())["labels"]

def test_a_card_that_was_just_written_runs(text_model, tmp_path, monkeypatch):
    text_model.save_pretrained(tmp_path / "mine")
    names = {}
    for code in blocks((tmp_path / "mine" / "README.md").read_text(), "python"): exec(code, names) # noqa: S102
    assert names["explanation"].to_dict() == text_model.explain("Your text").to_dict()
