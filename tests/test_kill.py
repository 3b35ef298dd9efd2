"""SIGKILL at any moment, then a resume in a new process: the final weights are those of a run that was never disturbed, byte for byte."""

import json
import os
import subprocess
import sys
from pathlib import Path
import pytest

WORKER = Path(__file__).with_name("kill_worker.py")


def weights(folder):
    "Bytes of the newest checkpoint's and of the best model's weights."
    files = [sorted(folder.glob("checkpoint-*"))[-1] / "model.safetensors", *folder.glob("best-*/model.safetensors")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    root = tmp_path_factory.mktemp("kill")
    done = subprocess.run([sys.executable, str(WORKER), str(root)], capture_output=True, text=True, timeout=300, cwd=root,
                          env=os.environ | dict(PYTHONPATH=os.pathsep.join(p for p in sys.path if p)))
    assert done.returncode == 0, done.stderr
    return root / "whole", json.loads(done.stdout.splitlines()[-1])


def test_the_kills_took_place(trials):
    assert len(trials[1]) == 9
    for t in trials[1]: assert t["codes"] == [-9] * (len(t["codes"]) - 1) + [0], t


def test_killed_and_resumed_is_undisturbed(trials):
    whole, runs = trials
    expected = weights(whole)
    assert len(expected) == 2 and "checkpoint-0000015/model.safetensors" in expected
    for t in runs: assert weights(Path(t["folder"])) == expected, t


def test_the_metrics_are_complete_too(trials):
    whole, runs = trials
    rows = lambda folder: [{k: v for k, v in json.loads(line).items() if k != "examples_per_second"} for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    assert len(rows(whole)) == 3
    for t in runs: assert rows(t["folder"]) == rows(whole), t
