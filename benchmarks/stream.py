"""Peak memory of `rekd explain --csv` over 1,000 and over 100,000 rows: python benchmarks/stream.py [ROWS ...].

Each run is a process of its own, with the shipped GRU student. The rows are reviews of the starter set; the first 100 characters of each, so that a
hundred thousand take minutes: what is held grows with the rows in a window, not with those of the table. REVIEW=10000 takes whole ones.
"""
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rekd.rows import load_rows

MODEL = "imdb-gru-rekd"
REVIEW = int(os.environ.get("REVIEW", 100)) # characters


def table(rows: int, file: Path):
    "Reviews of the starter set, again and again."
    reviews = load_rows("imdb", starter=True)[0]["test"]["input"][:]
    with open(file, "w", encoding="utf-8", newline="") as f:
        out = csv.writer(f)
        out.writerow(["id", "review"])
        out.writerows([i, reviews[i % len(reviews)][:REVIEW]] for i in range(rows))


def measured(rows: int, folder: Path) -> tuple[float, float]: # MB, seconds
    "Peak memory and time of one run."
    table(rows, folder / "in.csv")
    out = folder / f"{rows}.jsonl"
    began = time.monotonic()
    run = subprocess.Popen([sys.executable, "-m", "rekd.cli", "explain", MODEL, "--csv", str(folder / "in.csv"), "--text-column", "review", "--out", str(out)],
                           stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(run.pid, 0)
    assert status == 0 and sum(1 for _ in open(out, encoding="utf-8")) == rows
    return used.ru_maxrss / 1024, time.monotonic() - began


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for rows in map(int, sys.argv[1:] or ("1000", "100000")):
            peak, seconds = measured(rows, Path(folder))
            print(f"{rows:>8,} rows: peak {peak:,.0f} MB, {seconds:,.0f} s, {rows / seconds:,.0f} rows/s", flush=True)
