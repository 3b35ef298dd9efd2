"""What `rekd` adds to the time that Python, torch and transformers take to start.

Every round starts a new process for each line, so that a busy machine slows all alike; medians over the rounds, side by side. Run it from a folder of your choice:
`python benchmarks/startup.py`.
"""

import os
import pkgutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODULES = [f"rekd.{m.name}" for m in pkgutil.iter_modules([Path(__file__).parents[1] / "rekd"]) if m.name not in ("_modidx", "cli")]
HEAVY = "import torch, transformers"
LINES = {
    "python alone": "pass", "torch, transformers": HEAVY, "and rekd.model": f"{HEAVY}, rekd.model", "and all of rekd": f"{HEAVY}, {', '.join(MODULES)}",
    "rekd.cli alone": "import sys; sys.argv = ['rekd']; import rekd.cli", "rekd --help": "import sys; sys.argv = ['rekd', '--help']; from rekd.cli import main; main()",
}
ROUNDS = 5


def seconds(code: str) -> float:
    "How long a new Python takes to run `code`."
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=os.environ | dict(OMP_NUM_THREADS="1"))
    return time.perf_counter() - began


for code in LINES.values(): seconds(code) # the first start reads from disk
rounds = [{name: seconds(code) for name, code in LINES.items()} for _ in range(ROUNDS)]
median = lambda f: statistics.median(f(r) for r in rounds)
base = "torch, transformers"
print(f"{'median of ' + str(ROUNDS) + ' rounds':22} {'seconds':>8} {'ratio':>6} {'beyond':>7}   ratio to, and seconds beyond, torch and transformers")
for name in LINES: print(f"{name:22} {median(lambda r, n=name: r[n]):8.2f} {median(lambda r, n=name: r[n] / r[base]):6.2f} {median(lambda r, n=name: r[n] - r[base]):7.2f}")
