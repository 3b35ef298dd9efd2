"""SIGKILL at any moment, then a resume in a new process: the final weights are those of a run that was never disturbed, byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
import pytest

WORKER = Path(__file__).with_name("kill_worker.py")


def start(*args): return subprocess.Popen([sys.executable, str(WORKER), *map(str, args)], stdout=subprocess.PIPE, text=True, env=os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path)))


def finish(process):
    out = process.communicate(timeout=200)[0]
    assert process.returncode == 0, out
    return out.split()


def weights(folder):
    "Bytes of the newest checkpoint's and of the best model's weights."
    files = [sorted(folder.glob("checkpoint-*"))[-1] / "model.safetensors", *folder.glob("best-*/model.safetensors")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "An undisturbed run, and the number of its file operations."
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, int(finish(start(folder, 0))[0])


def test_killed_at_file_operations(whole, tmp_path):
    "Seeded choices among all file operations of a run: in the middle of writing, renaming and deleting checkpoints and models."
    folder, events = whole
    assert events > 100
    points = sorted(random.Random(1).sample(range(1, events), 14))
    tasks = [x for p in points for x in (tmp_path / str(p), p, tmp_path / str(p), 0)]
    codes = finish(start(*tasks))
    assert codes == ["-9", "0"] * len(points)
    for p in points:
        assert weights(tmp_path / str(p)) == weights(folder), f"killed at file operation {p}"
        assert len((tmp_path / str(p) / "metrics.jsonl").read_text().splitlines()) == 3


def test_killed_again_and_again(whole, tmp_path):
    "Three kills before the run gets through."
    folder, events = whole
    points = [random.Random(2).randrange(20, events // 3) for _ in range(3)]
    codes = finish(start(*[x for p in points for x in (tmp_path / "run", p)], tmp_path / "run", 0))
    assert codes == ["-9"] * 3 + ["0"] and weights(tmp_path / "run") == weights(folder)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_from_outside_at_a_random_moment(seed, whole, tmp_path):
    "Wait for a random number of checkpoints and a random while more, then kill; where that falls no test can choose."
    rng, out = random.Random(seed), tmp_path / "run"
    wait_for, then = f"checkpoint-{2 * rng.randrange(1, 3):07d}", rng.random() * 0.1
    process, patience = start(out, 0), time.monotonic() + 120
    while not (out / wait_for).exists():
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.001)
    time.sleep(then)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (out / "checkpoint-0000015").exists()
    finish(start(out, 0))
    assert weights(out) == weights(whole[0])
