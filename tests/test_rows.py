"Results files: four processes that append at once lose nothing, and a kill never leaves half a row."

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from rekd.run import git_revision, run_record
from rekd.study import append_row, read_rows


def test_a_row_needs_no_git(monkeypatch):
    "Hours of training must not end at a program that is not installed."
    assert git_revision()
    monkeypatch.setenv("PATH", "")
    assert run_record()["revision"] is None


WORKER = """
import sys, conftest
from rekd.study import append_row
who, n = sys.argv[2], int(sys.argv[3])
for i in range(n): append_row(sys.argv[1], dict(who=who, i=i, text="x" * 500))
"""


def start(file, who, n):
    env = os.environ | dict(PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    return subprocess.Popen([sys.executable, "-c", WORKER, str(file), who, str(n)], env=env, stderr=subprocess.PIPE, text=True)


def test_four_processes_append_a_thousand_rows_and_lose_none(tmp_path):
    file = tmp_path / "results" / "demo.jsonl"
    workers = [start(file, str(k), 250) for k in range(4)]
    for w in workers: assert w.wait(200) == 0, w.stderr.read()
    rows = read_rows(file)
    found = {(r["who"], r["i"]) for r in rows}
    lost = {(str(k), i) for k in range(4) for i in range(250)} - found
    half = [line for line in file.read_text().splitlines() if not line.endswith("}")]
    print(f"{len(lost)} of 1000 rows lost, {len(rows) - len(found)} twice, {len(half)} halves")
    assert not lost and len(rows) == 1000 and not half
    for k in range(4): assert [r["i"] for r in rows if r["who"] == str(k)] == list(range(250)) # each in its order


def test_a_killed_append_leaves_whole_rows_and_the_next_goes_on(tmp_path):
    file, rng = tmp_path / "demo.jsonl", random.Random(0)
    append_row(file, dict(who="before"))
    for _ in range(20):
        pid = os.fork()
        if pid == 0: # appends until it is killed
            try:
                while True: append_row(file, dict(who="child", text="x" * 20_000))
            finally: os._exit(1)
        time.sleep(rng.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert all(json.loads(line)["who"] for line in file.read_text().splitlines()) and file.read_text().endswith("}\n")
    append_row(file, dict(who="after"))
    rows = read_rows(file)
    assert rows[0]["who"] == "before" and rows[-1] == dict(who="after") and len(rows) > 2


def test_a_file_that_an_editor_left_without_a_newline(tmp_path):
    file = Path(tmp_path / "demo.jsonl")
    file.write_text('{"seed": 1}')
    append_row(file, dict(seed=2))
    assert file.read_text() == '{"seed": 1}\n{"seed": 2}\n'
