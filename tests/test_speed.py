"The benchmark of speed runs; what it measures is no test."

import importlib.util
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
