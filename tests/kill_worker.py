"""Train a tiny model in FOLDER, going on where an earlier process stopped: `python kill_worker.py FOLDER [EVENT]`.
With EVENT, the process kills itself (SIGKILL) at its EVENT-th file operation inside FOLDER: between any two of them a real kill can fall.
With many arguments FOLDER EVENT FOLDER EVENT ..., each pair is a fresh process of its own, forked before anything was computed; EVENT 0 never kills."""

import os
import signal
import sys
import conftest # noqa: F401 -- the tests' environment
import tiny
import torch
from rekd.loss import RE
from rekd.train import TrainConfig, fit

CONFIG = TrainConfig(epochs=3, batch_size=5, lr=3e-3, warmup=0.2, decay=True, checkpoint_every=2)
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def die_at(event, folder):
    "An audit hook sees every file operation of this process before it happens."
    seen = 0
    def hook(name, args):
        nonlocal seen
        if name not in WATCHED or not isinstance(args[0], (str, os.PathLike)): return
        inside = os.fspath(args[0]).startswith(folder) or (args[0] and not os.path.isabs(args[0]) and name in ("os.remove", "os.rmdir"))
        if inside:
            seen += 1
            if seen == event: os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    return lambda: seen


def run(folder, event):
    model, data = tiny.make_model("bert", 5), tiny.text_data()
    seen = die_at(event, folder)
    fit(model, data, RE(0.01), CONFIG, seed=3, out=folder, resume=True, quiet=True)
    return seen()


if __name__ == "__main__":
    torch.set_num_threads(1)
    tasks = sys.argv[1:] if len(sys.argv) > 2 else [*sys.argv[1:], "0"]
    if len(tasks) == 2: print(run(tasks[0], int(tasks[1])), flush=True)
    else:
        for folder, event in zip(tasks[::2], tasks[1::2]):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    run(folder, int(event))
                    code = 0
                finally: os._exit(code)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True) # -9: killed
