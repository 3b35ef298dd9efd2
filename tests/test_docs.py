"What the docs site makes of notebooks: titles, and formulas without a script from elsewhere."
import json
import re
import runpy
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(f for f in TOP.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in f.parts)


@pytest.fixture(scope="module")
def titled(): return runpy.run_path(str(TOP / "docs" / "stage.py"))["titled"]


def first_cell(file):
    return "".join(json.loads(file.read_text(encoding="utf-8"))["cells"][0]["source"])


def test_chapters_and_solutions_have_their_number(titled):
    assert titled("# Select\n\n> A choice.", "01_select") == "# 01 Select\n\n> A choice." and titled("# Solutions: select", "01_select") == "# Solutions 01 select"
    assert titled("# Guide", "guide") == "# Guide" and titled("# rekd\n", "index") == "# rekd in one page\n"

def test_no_two_pages_have_one_title(titled):
    titles = ["rekd", *(titled(first_cell(f), f.stem).partition("\n")[0].removeprefix("# ") for f in NOTEBOOKS)]
    assert len(titles) > 40 and not [t for t in titles if titles.count(t) > 1]

def test_every_formula_is_known(monkeypatch):
    "To the converter that the site uses; a command that it does not know would be shown as it is typed."
    for package in ("sphinx", "latex2mathml"): pytest.importorskip(package)
    monkeypatch.setenv("REKD_TOP", str(TOP))
    mathml, found = runpy.run_path(str(TOP / "docs" / "conf.py"))["mathml"], 0
    for file in NOTEBOOKS:
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "markdown": continue
            text = re.sub(r"```.*?```|`[^`]*`", "", "".join(cell["source"]), flags=re.S)
            for tex in re.findall(r"\$\$(.+?)\$\$", text, flags=re.S) + re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", text):
                found += 1
                assert "\\" not in mathml(tex, "inline"), (file.name, tex)
    assert found > 100
