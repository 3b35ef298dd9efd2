"Claims that are stronger than their rows: intervals where a ratio stands, corrections where there were several looks, marks on runs that were kept too early."
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from rekd.errors import DataError, SettingError
from rekd.results import beside_paper, compare_looks, epoch_at_goal, epoch_kept, holm, kept_epochs, mean_interval, p_value, paired, recovery_interval, study_tables, t_interval
from rekd.study import read_rows, results_file

top = Path(__file__).parents[1]


@pytest.fixture
def our_rows(monkeypatch):
    "The results of the repository, which other tests are kept away from; only read here."
    monkeypatch.setenv("REKD_ARTIFACTS", str(top / "artifacts"))


def fake(cls, re, rekd, mask="topk", start="paper"):
    "Rows with these accuracies, a seed each."
    return [dict(objective=o, start="paper" if o == "cls" else start, seed=s, masks={m: dict(accuracy=a)})
            for o, m, some in (("cls", "none", cls), ("re", mask, re), ("rekd", mask, rekd)) for s, a in enumerate(some)]

def run(objective, losses, targets, goal=0.15, seed=0, **more):
    "A row whose epochs have these validation losses and asked for these shares."
    masks = {m: dict(accuracy=0.5, selection_rate=0.2) for m in ("topk", "deterministic", "sampled")}
    epochs = [dict(epoch=i, sparsity_target=t, val=dict(loss=loss, accuracy=0.5), trace=[dict(kept=0.2)])
              for i, (loss, t) in enumerate(zip(losses, targets))]
    return dict(objective=objective, start="warm", seed=seed, config=dict(sparsity=goal), masks=masks, epochs=epochs) | more


def test_gap_recovery_stands_with_its_interval():
    "Of two pairs a quarter of all draws is the first twice, and a quarter the second twice: these are the ends."
    found = paired(fake([0.9], [0.5, 0.7], [0.6, 0.8]))[0]
    assert (found["recovery_low"], found["recovery_high"]) == pytest.approx((0.1 / 0.4, 0.1 / 0.2))

def test_gap_recovery_draws_pairs_together():
    "Where each pair brings back half of the gap, every draw does; drawn apart, RE and REKD would not."
    assert recovery_interval([0.8, 0.8, 0.8], [0.6, 0.2, 0.4], [0.7, 0.5, 0.6]) == pytest.approx((0.5, 0.5))

def test_gap_recovery_knows_the_seeds_of_cls():
    "CLS's own spread widens the interval."
    narrow = recovery_interval([0.8], [0.6, 0.61, 0.59], [0.7, 0.72, 0.68])
    wide = recovery_interval([0.7, 0.8, 0.9], [0.6, 0.61, 0.59], [0.7, 0.72, 0.68])
    assert wide[0] < narrow[0] and wide[1] > narrow[1]

@pytest.mark.parametrize("cls, re, rekd", [([0.8], [0.6], [0.7]), ([0.8], [0.7, 0.81], [0.9, 0.9]), ([0.7, 0.9], [0.75, 0.75], [0.8, 0.8])])
def test_no_interval_of_one_pair_or_of_a_gap_that_may_not_be(cls, re, rekd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired(fake(cls, re, rekd))[0]
    assert (found["recovery_low"], found["recovery_high"]) == (None, None) and found["gap_recovery"] > 0
    assert json.loads(json.dumps(found)) == found

def test_the_page_s_gap_recovery(our_rows):
    "What README says, from the rows: recovery and its ends."
    right = {"cpu-cifar10": (0.47, 0.12, 0.75), "cpu-cifar100-20": (0.45, 0.09, 0.69), "cpu-imdb": (1.08, 1.05, 1.12)}
    for name, numbers in right.items():
        found = next(p for p in paired(read_rows(results_file(name))) if p["start"] == "paper")
        assert [found[k] for k in ("gap_recovery", "recovery_low", "recovery_high")] == pytest.approx(numbers, abs=0.006)

def test_the_interval_is_in_every_table(capsys, our_rows):
    from rekd.cli import main
    main(["table", "cpu-cifar100-20"])
    out = capsys.readouterr().out
    assert "recovery_low" in out and "0.69" in out
    assert "3 of 6 models were kept before" in out
    assert {"recovery_low", "recovery_high"} <= set(beside_paper(read_rows(results_file("cpu-imdb")), "imdb"))
    assert study_tables("demo")["paired"][1]["recovery_low"] is None # CLS of .75, RE of .73: hardly a gap


@pytest.mark.parametrize("raw, corrected", [
    ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.2], [0.2]), ([0.5, 0.6], [1.0, 1.0]), ([], []),
    ([0.04, 0.01], [0.04, 0.02]), ([0.03, 0.02], [0.04, 0.04]), ([None, 0.02, None, 0.01], [None, 0.02, None, 0.02])])
def test_holm(raw, corrected):
    assert holm(raw) == [c if c is None else pytest.approx(c) for c in corrected]

def test_p_values_are_those_of_paired_t_tests():
    re, rekd = [0.70, 0.72, 0.69], [0.75, 0.74, 0.76]
    found = paired(fake([0.8], re, rekd))[0]
    assert found["p"] == pytest.approx(ttest_rel(rekd, re).pvalue)
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 10): # significant where Student's interval excludes zero
        for values in rng.normal(0.05, 0.05, (20, n)):
            low, high = t_interval(values)
            assert (p_value(values) < 0.05) == (low > 0 or high < 0)
    assert p_value([0.3]) is None and p_value([0.1, 0.1]) == 0.0

def test_the_best_of_several_looks_is_corrected():
    "One look of six at p = .02 is not significant; alone it would be."
    dull = [fake([0.8], [0.6, 0.7, 0.65, 0.6], [0.61, 0.68, 0.66, 0.6]) for _ in range(5)]
    best = fake([0.8], [0.6, 0.61, 0.6, 0.62], [0.64, 0.68, 0.62, 0.67])
    looks = compare_looks({f"look {i}": r for i, r in enumerate([*dull, best])}, ("topk",))
    assert looks.p.min() < 0.05 < looks.p_holm.min() and len(looks) == 6
    assert compare_looks({"alone": best}, ("topk",)).p_holm.item() < 0.05

def test_looks_of_one_pair_have_no_p():
    looks = compare_looks({"one": fake([0.8], [0.6], [0.7]), "two": fake([0.8], [0.6, 0.65], [0.7, 0.69])}, ("topk",))
    assert np.isnan(looks.p_holm["one", "topk"]) and looks.p_holm["two", "topk"] == pytest.approx(looks.p["two", "topk"])

def test_looks_refuse_what_paired_refuses():
    with pytest.raises(DataError): compare_looks({"twice": fake([0.8], [0.6], [0.7]) * 2})
    with pytest.raises(SettingError): compare_looks({"a": fake([0.8], [0.6], [0.7])}, ("top",))
    for nothing in ({}, {"a": []}, {"a": fake([0.8], [], [0.7])}, {"a": fake([0.8], [0.6], [0.7], mask="sampled")}):
        with pytest.raises(DataError, match="nothing to compare"): compare_looks(nothing, ("topk",))

def test_one_bootstrap_is_the_same_every_time():
    assert recovery_interval([0.8, 0.82], [0.6, 0.65], [0.7, 0.72]) == recovery_interval([0.8, 0.82], [0.6, 0.65], [0.7, 0.72])
    assert mean_interval([0.1, 0.2, 0.4]) == mean_interval([0.1, 0.2, 0.4])


def test_a_model_kept_before_the_goal_is_marked():
    early, late = run("re", [0.5, 0.6, 0.7], [0.4, 0.2, 0.15]), run("rekd", [0.7, 0.6, 0.5], [0.4, 0.2, 0.15])
    assert not epoch_at_goal(early) and epoch_at_goal(late)
    assert paired([early, late])[0]["before_goal"] == 1
    assert kept_epochs([early, late]).at_goal.tolist() == [False, True]

@pytest.mark.parametrize("target, reached", [(0.15, True), (0.15 + 1e-12, True), (0.1504, False), (0.16, False), (0.5, False), (0.05, True)])
def test_the_goal_is_reached_in_the_last_step_of_an_epoch(target, reached):
    assert epoch_at_goal(run("re", [0.5], [target])) == reached

def test_a_run_without_a_target_is_at_its_goal():
    assert epoch_at_goal(dict(objective="cls", epochs=[dict(epoch=0, sparsity_target=0.5, val=dict(loss=1.0))], config=dict(sparsity=0.1)))
    old = run("re", [0.5], [0.5]) # a row of before targets were written
    del old["epochs"][0]["sparsity_target"]
    assert epoch_at_goal(old)

def test_a_row_of_today_keeps_the_best_epoch_at_the_goal():
    "It says of each epoch whether it was at the goal; the lowest loss of all may be another's."
    row = run("re", [0.5, 0.6, 0.55], [0.4, 0.15, 0.15])
    row["epochs"] = [e | dict(at_goal=i > 0) for i, e in enumerate(row["epochs"])]
    assert epoch_at_goal(row) and kept_epochs([row]).epoch.item() == 2 and epoch_kept(row)["val"]["loss"] == 0.55
    assert not epoch_at_goal(row, row["epochs"][0]) and paired([row, row | dict(objective="rekd")])[0]["before_goal"] == 0

def test_how_many_of_our_runs_were_kept_too_early(our_rows):
    "What CIFAR's pages say: every RE run from the warm start, and a few from the paper's; none of REKD, none on IMDB."
    count = {}
    for name in ("cpu-imdb", "cpu-imdb-longer", "cpu-cifar10", "cpu-cifar100-20", "gpu-cifar10"):
        for r in read_rows(results_file(name)):
            if r["objective"] in ("re", "rekd"):
                key = name, r["objective"], r["start"]
                count[key] = count.get(key, 0) + (not epoch_at_goal(r))
    assert {k: n for k, n in count.items() if n} == {
        ("cpu-cifar10", "re", "paper"): 2, ("cpu-cifar10", "re", "warm"): 5, ("cpu-cifar100-20", "re", "paper"): 1,
        ("cpu-cifar100-20", "re", "warm"): 3, ("gpu-cifar10", "re", "warm"): 5, ("gpu-cifar10", "re", "paper"): 1}


def sentences(markdown):
    "The sentences of a page's prose, without code, tables, outputs and headings."
    text = re.sub(r"^```.*?^```|^<!--.*?-->", "", markdown, flags=re.S | re.M)
    text = re.sub(r"^(    |\t|\||#|>|!\[).*$", "", text, flags=re.M)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    blocks = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.)\s+", text, flags=re.M)
    return [s for b in blocks for s in re.split(r"(?<=[.!?])[)*]*\s+", " ".join(b.split())) if len(s.split()) > 1]

def test_readme_is_read_once():
    "Short sentences, half of them under 18 words, none over 40; and at most 900 words beside code, outputs and the table of results."
    text = (top / "README.md").read_text(encoding="utf-8")
    lengths = [len(s.split()) for s in sentences(text)]
    assert len(lengths) > 30 and np.median(lengths) < 18 and max(lengths) <= 40
    prose = re.sub(r"^```.*?^```|^<!--.*?-->|^(    |\| (IMDB|CIFAR)).*?$|\]\([^)]*\)", "", text, flags=re.S | re.M)
    assert len(re.findall(r"[\w'][\w'.%-]*", prose)) <= 900

def test_the_readmes_table_has_a_line_each_data_set_start_and_mask():
    "Three words in the end, from the rows (nbs/index.ipynb makes it)."
    lines = re.findall(r"^\| ((?:IMDB|CIFAR).*) \|$", (top / "README.md").read_text(encoding="utf-8"), flags=re.M)
    cells = [line.split(" | ") for line in lines]
    assert len(cells) == 16 == len({tuple(c[:3]) for c in cells}) and all(len(c) == 10 and len(c[-1].split()) == 3 for c in cells)

@pytest.mark.parametrize("page", sorted((top / "nbs" / "experiments").glob("*/*.ipynb")), ids=lambda p: p.stem)
def test_in_short_is_short(page):
    cells = ["".join(c["source"]) for c in json.loads(page.read_text(encoding="utf-8"))["cells"]]
    short, = (part for cell in cells for part in cell.split("\n\n") if part.startswith("**In short.**"))
    assert len(short.split()) <= 80 + 2 # the two of its name
