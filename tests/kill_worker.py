"""`python kill_worker.py ROOT KILLS`: train a tiny model once undisturbed in ROOT/whole, then KILLS times in a process that is killed, and resumed in another.

A process dies by SIGKILL: at its n-th file operation (it kills itself: a real kill can fall between any two of them), a moment after it began to write a
checkpoint, or any time. Each is forked once the imports are done, so that a trial costs no start of Python. The last line printed is a JSON list of trials."""

import json
import os
import random
import shutil
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


def murder(seconds, write=None, folder=None):
    "Kill after a while: since the start, or since the checkpoint of step `write` was begun."
    def act(pid):
        while write and not (folder / f".checkpoint-{write:07d}.tmp").exists() and not (folder / f"checkpoint-{write:07d}").exists(): time.sleep(0.0002)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return act


def any_time(folder, seconds):
    "Kill after so many seconds; if the run was over by then, do it again, sooner."
    while (code := child(folder, murder=murder(seconds))) == 0:
        shutil.rmtree(folder)
        seconds /= 2
    return code


if __name__ == "__main__":
    root, kills, rng, trials = Path(sys.argv[1]).resolve(), int(sys.argv[2]), random.Random(1), []
    sys.addaudithook(hook)
    start = time.monotonic()
    operations = run(root / "whole")
    duration = time.monotonic() - start
    def trial(how, kills):
        folder = root / f"run-{len(trials)}"
        codes, writing = [], 0
        for kill in kills:
            codes.append(kill(folder))
            writing += any(folder.glob(".checkpoint-*.tmp")) # it died in the middle of a checkpoint
        trials.append(dict(how=how, folder=str(folder), codes=[*codes, child(folder)], writing=writing))
    at_operation = lambda at: lambda folder: child(folder, at)
    for k in range(kills):
        if k % 4 < 2:
            at = rng.randrange(1, operations)
            trial(f"at file operation {at} of {operations}", [at_operation(at)])
        elif k % 4 == 2:
            step, pause = rng.choice((2, 4, 6, 8, 12)), rng.random() * 0.01
            trial(f"{1000 * pause:.1f} ms into writing the checkpoint of step {step}", [lambda f, pause=pause, step=step: child(f, murder=murder(pause, step, f))])
        else:
            trial("at some moment", [lambda f: any_time(f, rng.random() * duration)])
    ats = [rng.randrange(10, operations // 4) for _ in range(3)]
    trial(f"three times in a row, at file operations {ats}", [at_operation(at) for at in ats])
    print(json.dumps(trials))
