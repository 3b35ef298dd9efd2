"What is asserted about a trained result is tried with other arithmetic too: nothing that trains is missing from `make elsewhere`."

import json
import os
import re
import subprocess
import sys
from pathlib import Path
import pytest
import torch

ROOT = Path(__file__).parents[1]
TRAINS = re.compile(r"\b(fit|backward)\(")
# files that call one of these and assert nothing about trained weights but equality within one process, and why
UNMARKED = {
    "test_bad_input.py": "every training in it is refused",
    "test_model.py": "looks at gradients, takes no step",
    "test_auto.py": "looks at gradients, takes no step",
    "08_evaluate": "fits readers of scikit-learn, on numpy's numbers",
    "run": "trains on 96 reviews to have a row, and asserts only what is in the row",
    "callbacks": "asserts only what the callbacks are told",
    "test_answers.py": "asserts what is read and written, of a model that saw a handful of rows",
    "test_judge.py": "looks at masks and gradients, and asserts that rows, table and page agree",
    "test_cli.py": "asserts what is written, and that two runs of one machine are alike",
    "test_teachers.py": "looks at gradients, and at what is in rows",
    "test_units.py": "looks at gradients, and at what is in rows",
    "test_plugins.py": "every training in it is refused at its first step, or asserts what is in a row",
    "test_removed.py": "asks a model that took a few steps whether it loads as it was saved",
    "test_faults_net.py": "trains one step to have something to save",
}


def fast_code(notebook):
    "The code that `nbdev-test` runs: no cell with `slow`, `notest`, `cuda` or `eval: false`."
    cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
    code = ["".join(c["source"]) for c in cells]
    return "\n".join(c for c in code if not re.search(r"^#\|\s*(slow|notest|cuda|eval:\s*false)\b", c, re.M))


def missing(root=ROOT):
    "What trains and neither runs under `make elsewhere` nor stands in UNMARKED."
    listed = re.search(r"^TRAINING := (.*)$", (root / "Makefile").read_text(), re.M)[1].split()
    notebooks = [f.stem for f in sorted((root / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in f.parts and TRAINS.search(fast_code(f))]
    tests = [f.name for f in sorted((root / "tests").glob("test_*.py")) if f.name != Path(__file__).name and TRAINS.search(f.read_text()) and "pytest.mark.trains" not in f.read_text()]
    return [n for n in notebooks if n not in listed and n not in UNMARKED] + [t for t in tests if t not in UNMARKED]


def test_everything_that_trains_is_tried_with_other_arithmetic():
    assert missing() == [], "list these chapters under TRAINING in the Makefile, mark what these tests assert about trained weights with pytest.mark.trains, or say in UNMARKED why not"


@pytest.mark.parametrize("name, text, found", [
    ("nbs/11_new.ipynb", [dict(cell_type="code", source=["x = 1\n", "fit(model, data, RE())"])], ["11_new"]),
    ("nbs/experiments/new/new.ipynb", [dict(cell_type="code", source="loss.backward()")], ["new"]),
    ("nbs/experiments/new/new.ipynb", [dict(cell_type="code", source="#| slow\nfit(model, data, RE())"), dict(cell_type="markdown", source="`fit(model)`")], []),
    ("nbs/04_loss.ipynb", [dict(cell_type="code", source="loss.backward()")], []), # listed
    ("tests/test_new.py", "def test_it(): fit(model, data, RE())", ["test_new.py"]),
    ("tests/test_new.py", "@pytest.mark.trains\ndef test_it(): fit(model, data, RE())", []),
    ("tests/test_new.py", "def test_it(): assert outfit(1)", []),
])
def test_a_new_one_is_not_forgotten(name, text, found, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(dict(cells=text)))
    assert missing(tmp_path) == found


def test_ci_tries_other_arithmetic():
    make = (ROOT / "Makefile").read_text()
    assert "make elsewhere" in (ROOT / ".ci" / "run").read_text() and ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    for setting in ("ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2", "ATEN_CPU_CAPABILITY=default", "THREADS=2"): assert setting in make


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_tests_run_on_as_many_threads_as_they_are_told(threads):
    "`conftest.py` in a process of its own; without the variable it is one thread, whatever the machine says."
    code = "import conftest, os, torch; print(torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])"
    env = os.environ | dict(PYTHONPATH=str(Path(__file__).parent), OMP_NUM_THREADS="7", REKD_RUNS="elsewhere")
    env = {k: v for k, v in env.items() if k != "REKD_TEST_THREADS"} | ({} if threads == 1 else dict(REKD_TEST_THREADS=str(threads)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split() == [str(threads)] * 2, done.stderr


def test_this_process_has_the_threads_of_its_variable():
    assert torch.get_num_threads() == int(os.environ.get("REKD_TEST_THREADS", 1)) and "REKD_RUNS" not in os.environ
