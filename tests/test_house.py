"What is asked of the library as a whole: short modules, imports only from above, and no private name across."

import importlib.util
import re
from pathlib import Path
import pytest

TOP = Path(__file__).resolve().parents[1]
LONG = {"fit": 60} # a cell may be longer than 45 lines if it is named here: the loop stands on one page


@pytest.fixture(scope="module")
def tool():
    "tools/imports.py as a module."
    spec = importlib.util.spec_from_file_location("imports", TOP / "tools" / "imports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_modules_import_only_from_above(tool):
    assert tool.complaints(tool.imports()) == []


def test_a_wrong_import_is_found(tool, tmp_path):
    for name, code in dict(select="from rekd.model import Generator", model="def f():\n    from .select import _hidden", odd="").items():
        (tmp_path / f"{name}.py").write_text(code)
    assert sorted(tool.complaints(tool.imports(tmp_path))) == [
        "model takes private names of select: _hidden", "odd: not in ORDER of tools/imports.py", "select imports upwards from model: Generator"]


def test_modules_are_short():
    assert {f.stem: n for f in TOP.glob("rekd/[!_]*.py") if (n := len(f.read_text().splitlines())) > 450} == {}


def test_cells_are_short():
    cells = [cell for f in TOP.glob("rekd/[!_]*.py") for cell in re.split(r"^# %% .*\n", f.read_text(), flags=re.M)[2:]]
    size = {re.search(r"^(?:class|def) (\w+)|$", cell, re.M)[1]: len(cell.strip().splitlines()) for cell in cells}
    assert len(size) > 200 and {name: n for name, n in size.items() if n > LONG.get(name, 50)} == {}
