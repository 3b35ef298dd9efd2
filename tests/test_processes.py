"Two processes do what one does with the same batches: the same losses, weights and evaluation to 1e-5."

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
import pytest
from test_presets import home, world # noqa: F401 -- fixtures

WORKER = str(Path(__file__).with_name("process_worker.py"))
# `accelerate launch --cpu` starts one process, whatever --num_processes says (only MPI starts more); --multi_gpu starts two also where there is no GPU, and rekd stays on the CPU there
LAUNCHERS = {
    "one": [],
    "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "PORT"],
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def launch(how, *command, cwd):
    port = free_port()
    env = os.environ | dict(PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    done = subprocess.run([sys.executable, *(port if a == "PORT" else a for a in LAUNCHERS[how]), *command], capture_output=True, text=True, timeout=400, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    "What a launcher's processes have seen, and where."
    cache = {}
    def of(how):
        if how not in cache:
            out = tmp_path_factory.mktemp(how)
            launch(how, WORKER, str(out), cwd=out)
            cache[how] = json.loads((out / "seen.json").read_text()), out
        return cache[how]
    return of


def furthest(a, b):
    "The largest difference between the numbers of two equal structures."
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((furthest(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, list):
        assert len(a) == len(b)
        return max(map(furthest, a, b), default=0.0)
    return abs(a - b)


def test_there_really_are_two(seen):
    assert seen("one")[0]["processes"] == 1 and seen("accelerate")[0]["processes"] == 2


def test_two_processes_are_one(seen):
    one, two = seen("one")[0]["runs"], seen("accelerate")[0]["runs"]
    assert one.keys() == two.keys() and len(one["re"]["steps"]) == 20
    for name in one:
        losses, weights, val = (furthest(one[name][k], two[name][k]) for k in ("steps", "weights", "val"))
        print(f"{name}: 2 processes differ from 1 by at most {losses:.1e} in a step's losses, {weights:.1e} in the weights, {val:.1e} in validation")
        assert losses < 1e-5 and weights < 1e-5 and val < 1e-5, name


def test_the_sparsity_loss_is_that_of_the_whole_batch(seen):
    "The shares' own squares would differ: the check above has something to find."
    steps = seen("one")[0]["runs"]["re"]["steps"]
    assert all(s["loss"] == pytest.approx(s["ce"] + 0.01 * s["sparsity"], abs=1e-5) for s in steps) and max(s["sparsity"] for s in steps) > 0.1


def test_evaluation_counts_every_example_once(seen):
    one, two = seen("one")[0]["evaluated"], seen("accelerate")[0]["evaluated"]
    assert furthest(one, two) < 1e-5 # 7 examples
    for name, result in two.items(): # the shares of right answers and of kept features are whole numbers of one process's
        assert round(result["accuracy"] * 7, 9).is_integer() and result["accuracy"] == one[name]["accuracy"] and result["selection_rate"] == one[name]["selection_rate"]


def test_only_the_main_process_writes(seen):
    one, two = (sorted(str(f.relative_to(seen(how)[1])) for f in (seen(how)[1] / "run").rglob("*")) for how in ("one", "accelerate"))
    assert one == two and not [f for f in two if ".tmp" in f]
    rows = (seen("accelerate")[1] / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(r)["epoch"] for r in rows] == [0, 1, 2, 3]


def test_the_command_line_in_two_processes(home): # noqa: F811
    "`accelerate launch --multi_gpu --num_processes 2 -m rekd.cli train ...`: a warm start trains CLS first; one table, one row, one model."
    settings = ["n_train=20", "n_test=7", "val_share=0.5", "epochs=1", "batch_size=4", "precision=no"]
    done = launch("accelerate", "-m", "rekd.cli", "train", "demo", "--objective", "re", "--start", "warm", "--set", *settings, cwd=home)
    assert done.stdout.count("topk") == 1 and done.stdout.count("The model is in") == 1
    for folder in ("cls-paper-2025", "re-warm-2025"):
        row = json.loads((home / "runs" / "demo" / folder / "row.json").read_text())
        assert row["processes"] == 2 and row["n_test"] == 7 and (home / "runs" / "demo" / folder / "model" / "model.safetensors").is_file()
