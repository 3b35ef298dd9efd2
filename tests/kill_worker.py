"""`python kill_worker.py ROOT`: train a tiny model once undisturbed in ROOT/whole, then again and again in processes that are killed and resumed.

A process dies by SIGKILL: at its n-th file operation (it kills itself: a real kill can fall between any two of them), or when its parent
pleases. Each is forked once the imports are done, so that a trial costs no start of Python. The last line printed is a JSON list of trials."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
import conftest # noqa: F401 -- the tests' environment
import tiny
from rekd.loss import RE
from rekd.train import TrainConfig, fit

CONFIG = TrainConfig(epochs=3, batch_size=5, lr=3e-3, warmup=0.2, decay=True, checkpoint_every=2) # 15 steps, 9 checkpoints
FILE_OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
watch = dict(folder=None, at=0, seen=0)


def hook(event, args):
    "Python calls it before every file operation; deletions by `shutil.rmtree` come as names without a folder."
    if event not in FILE_OPERATIONS or watch["folder"] is None or not isinstance(args[0], (str, os.PathLike)): return
    path = os.fspath(args[0])
    if path.startswith(watch["folder"]) or (event in ("os.remove", "os.rmdir") and not os.path.isabs(path)):
        watch["seen"] += 1
        if watch["seen"] == watch["at"]: os.kill(os.getpid(), signal.SIGKILL)


def run(folder, at=0):
    watch.update(folder=str(folder), at=at, seen=0)
    fit(tiny.make_model("bert", 5), tiny.text_data(), RE(0.01), CONFIG, seed=3, out=folder, resume=True, quiet=True)
    return watch["seen"]


def child(folder, at=0, murder=None):
    "The exit code of a run in a new process: -9 if it was killed."
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run(folder, at)
            code = 0
        finally: os._exit(code)
    if murder: murder(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def murder(folder, step, pause):
    "Kill once the checkpoint of `step` is there and a while has passed: what is under way then nobody chose."
    def act(pid):
        end = time.monotonic() + 100
        while not (folder / f"checkpoint-{step:07d}").exists() and time.monotonic() < end: time.sleep(0.0005)
        time.sleep(pause)
        os.kill(pid, signal.SIGKILL)
    return act


if __name__ == "__main__":
    root, rng, trials = Path(sys.argv[1]).resolve(), random.Random(1), []
    sys.addaudithook(hook)
    operations = run(root / "whole")
    def trial(how, kills):
        folder = root / f"run-{len(trials)}"
        trials.append(dict(how=how, folder=str(folder), codes=[kill(folder) for kill in kills] + [child(folder)]))
    for at in sorted(rng.sample(range(1, operations), 6)): trial(f"killed at file operation {at} of {operations}", [lambda f, at=at: child(f, at)])
    ats = [rng.randrange(10, operations // 4) for _ in range(3)]
    trial(f"killed at file operations {ats}, one after the other", [lambda f, at=at: child(f, at) for at in ats])
    for step in (2, 8):
        pause = rng.random() * 0.05
        trial(f"killed {pause:.3f} s after step {step}", [lambda f, s=step, p=pause: child(f, murder=murder(f, s, p))])
    print(json.dumps(trials))
