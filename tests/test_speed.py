"The benchmark of speed runs; what it measures is no test."

import importlib.util
import json
import re
from pathlib import Path


def test_the_quick_mode_runs_all_ways():
    spec = importlib.util.spec_from_file_location("speed", Path(__file__).parents[1] / "benchmarks" / "speed.py")
    speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed)
    rows = speed.main(["--quick", "--json", "speed.json"])
    assert {(r["kind"], r["task"], r["way"]) for r in rows} == {(k, t, w) for k in ("text", "image") for t in ("CLS", "RE", "REKD", "inference") for w in ("a", "b", "c", "plain")
        if not (w == "c" and t == "CLS" or w == "plain" and t in ("RE", "REKD"))}
    assert all(r["ratio"] > 0 and r["share_of_limit"] > 0 for r in rows) and Path("speed.json").is_file()
    speed.main(["--quick", "--growth", "growth.png"])
    assert Path("growth.png").stat().st_size > 10_000


def test_the_guide_says_what_the_benchmark_printed():
    printed = dict(re.findall(r"^((?:text|image) +\S+ +\(\S+\)) .* ([\d.]+) x \(a\)", (Path(__file__).parents[1] / "benchmarks" / "speed.txt").read_text(), re.M))
    ratio = {tuple(k.split()): v for k, v in printed.items()}
    guide = "".join(line for cell in json.loads((Path(__file__).parents[1] / "nbs" / "guide.ipynb").read_text())["cells"] for line in [*cell["source"], "\n"])
    told = re.findall(r"^\| (RE by|REKD,|an answer from|an answer of) .*\| ([\d.]+) \| ([\d.]+) \|$", guide, re.M)
    ways = {"RE by": ("RE", "(c)"), "REKD,": ("REKD", "(c)"), "an answer from": ("inference", "(c)"), "an answer of": ("inference", "(plain)")}
    assert {name: (text, image) for name, text, image in told} == {name: (ratio["text", *way], ratio["image", *way]) for name, way in ways.items()}
