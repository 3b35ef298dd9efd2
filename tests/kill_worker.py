"""`python kill_worker.py ROOT KILLS`: train a tiny model once undisturbed in ROOT/whole, then KILLS times in a process that is killed, and resumed in another.

A process dies by SIGKILL: at its n-th file operation (it kills itself: a real kill can fall between any two of them), a moment after it began to write a
checkpoint, or any time. Each is forked once the imports are done, so that a trial costs no start of Python. The last line printed is a JSON list of trials."""

import faulthandler
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
import conftest # noqa: F401 -- the tests' environment
import tiny
import tqdm
from rekd.objective import RE
from rekd.train import TrainConfig, fit

CONFIG = TrainConfig(epochs=3, batch_size=5, lr=3e-3, warmup=0.2, decay=True, checkpoint_every=2) # 15 steps, 9 checkpoints
FILE_OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
watch = dict(folder=None, at=0, seen=0)
HANGS = 120 # seconds: a run takes one; a child that hangs says where, and ends with code 1


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
        faulthandler.dump_traceback_later(HANGS, exit=True)
        try:
            run(folder, at)
            os._exit(0)
        except BaseException: traceback.print_exc()
        finally: os._exit(1)
    if murder: murder(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def running(pid): return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def murder(seconds, write=None, folder=None):
    "Kill after a while: since the start, or since the checkpoint of step `write` was begun."
    def act(pid):
        seen = lambda: (folder / f".checkpoint-{write:07d}.tmp").exists() or (folder / f"checkpoint-{write:07d}").exists()
        while write and not seen() and running(pid): time.sleep(0.0002) # on a busy machine both can have come and gone unseen
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return act


def in_time(folder, seconds, write=None):
    "Kill as `murder` does; if the run was over by then, do it again, sooner."
    while (code := child(folder, murder=murder(seconds, write, folder))) == 0:
        shutil.rmtree(folder)
        seconds /= 2
    return code


if __name__ == "__main__":
    root, kills, rng, trials = Path(sys.argv[1]).resolve(), int(sys.argv[2]), random.Random(1), []
    sys.addaudithook(hook)
    tqdm.tqdm.monitor_interval = 0 # its thread could hold a lock at a fork, and the child would wait for ever
    start = time.monotonic()
    operations = run(root / "whole")
    duration = time.monotonic() - start
    assert threading.active_count() == 1, threading.enumerate()
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
            trial(f"{1000 * pause:.1f} ms into writing the checkpoint of step {step}", [lambda f, pause=pause, step=step: in_time(f, pause, step)])
        else:
            trial("at some moment", [lambda f: in_time(f, rng.random() * duration)])
    ats = [rng.randrange(10, operations // 4) for _ in range(3)]
    trial(f"three times in a row, at file operations {ats}", [at_operation(at) for at in ats])
    print(json.dumps(trials))
