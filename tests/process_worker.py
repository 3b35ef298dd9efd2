"""`python process_worker.py OUT`, by itself or once in each process of a launcher: train, evaluate and write; the main process leaves OUT/seen.json.

Every step's losses are recorded as `fit` logs them: the mean over the whole batch."""

import json
import sys
from pathlib import Path
import conftest # noqa: F401 -- the tests' environment
import tiny
from rekd.objective import RE, REKD, RandomMask
from rekd.train import Progress, TrainConfig, fit, validate
from rekd.machine import is_main, make_accelerator

# 24 texts, 5 a batch: 20 steps, the last of an epoch with 4; 23 a batch: the last with 1, so that one of two processes has none
RUNS = {
    "re": (lambda: RE(0.01), dict(epochs=4, batch_size=5)),
    "rekd": (lambda: REKD(tiny.make_model("bert", 7), 0.01), dict(epochs=4, batch_size=5)),
    "re, large batches, clipped": (lambda: RE(0.01), dict(epochs=2, batch_size=23, clip=0.1)),
    "random": (RandomMask, dict(epochs=1, batch_size=5)),
}


def train(objective, config, out=None):
    "The losses of each step, the validation results, and the weights."
    model = tiny.make_model("bert", 5, tiny.NO_DROPOUT, dropout=0.0)
    steps, log = [], Progress.log
    def record(progress, losses, *more):
        steps.append(losses)
        log(progress, losses, *more)
    Progress.log = record
    try: history = fit(model, tiny.text_data(), objective, config, seed=3, out=out, quiet=True)
    finally: Progress.log = log
    weights = {k: v.tolist() for k, v in model.state_dict().items() if not k.endswith("key.bias")} # see test_train: rounding decides
    return dict(steps=steps, val=[r["val"] for r in history], weights=weights)


if __name__ == "__main__":
    out = Path(sys.argv[1]).resolve()
    runs = {name: train(make(), TrainConfig(lr=1e-3, **settings), out / "run" if name == "re" else None) for name, (make, settings) in RUNS.items()}
    seven = tiny.text_data(7).train # one process has a batch less, or none
    accelerator, model = make_accelerator(), tiny.make_model("bert", 5)
    evaluated = {f"{mask}, {size} a batch": validate(model, seven, mask, size, accelerator=accelerator) for mask in ("topk", "sampled", "random", "none") for size in (2, 3, 64)}
    seen = dict(processes=accelerator.num_processes, runs=runs, evaluated=evaluated)
    if is_main(): (out / "seen.json").write_text(json.dumps(seen))
