"""SIGKILL at any moment, then a resume in a new process: the final weights and metrics are those of a run that was never disturbed, byte for byte.

`REKD_KILLS=200 pytest -s tests/test_kill.py` kills more often than the 20 times of every run, and shows when."""

import json
import os
import subprocess
import sys
from pathlib import Path
import pytest

WORKER = Path(__file__).with_name("kill_worker.py")
KILLS = int(os.environ.get("REKD_KILLS", 20))


def weights(folder):
    "Bytes of every file of weights: of a finished run, the model's alone."
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.safetensors")}


def rows(folder):
    "The metrics without the clock."
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "examples_per_second"} for line in lines]


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    root = tmp_path_factory.mktemp("kill")
    done = subprocess.run([sys.executable, str(WORKER), str(root), str(KILLS)], capture_output=True, text=True, timeout=30 * KILLS + 300, cwd=root,
                          env=os.environ | dict(PYTHONPATH=os.pathsep.join(p for p in sys.path if p)))
    print(done.stderr) # pytest shows it where a test fails
    assert done.returncode == 0
    return root / "whole", json.loads(done.stdout.splitlines()[-1])


def test_the_kills_took_place(trials):
    assert len(trials[1]) == KILLS + 1
    for t in trials[1]: assert t["codes"] == [-9] * (len(t["codes"]) - 1) + [0], t
    assert KILLS < 8 or sum(t["writing"] for t in trials[1]) >= 3 # some in the middle of writing a checkpoint


def test_killed_and_resumed_is_undisturbed(trials):
    whole, runs = trials
    expected, metrics = weights(whole), rows(whole)
    assert expected.keys() == {"model/model.safetensors"} and len(metrics) == 3
    same = [t["codes"][0] == -9 and weights(Path(t["folder"])) == expected and rows(t["folder"]) == metrics for t in runs]
    for t, good in zip(runs, same): print(f"  {'same' if good else 'DIFFERENT'}: killed {t['how']}{', in the middle of a checkpoint' * (t['writing'] > 0)}")
    print(f"{sum(same[:KILLS])} of {KILLS} kills resumed bit for bit, {sum(t['writing'] > 0 for t in runs[:KILLS])} of them in the middle of writing a checkpoint")
    assert all(same)


def test_a_kill_leaves_no_half_files(trials):
    for t in trials[1]: assert not [f for f in Path(t["folder"]).rglob("*") if f.name.startswith(".")], t
