"The exercises of the book: checks refuse wrong answers and say in which respect, every chapter has some, and all of them are solved."
import json
import math
import re
import runpy
from pathlib import Path

import pytest
import torch

TOP = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((TOP / "nbs").glob("[01][0-9]_*.ipynb"))
checks = runpy.run_path(str(TOP / "nbs" / "solutions" / "checks.py"))["CHECKS"]


def source(file):
    "Its cells' text, in one."
    return "\n\n".join("".join(c["source"]) for c in json.loads(file.read_text(encoding="utf-8"))["cells"])

def kl(a, b): return (a.exp() * (a - b)).sum((1, 2)).mean()
def cost_at(scores, cost): return torch.zeros(3) # a sampled mask has no gradient
def topk_of_all(scores, able, share): return torch.zeros_like(scores).scatter_(1, scores.topk(3).indices, 1.0)
def always_three(scores, able, share): return topk_of_all(scores.masked_fill(~able, -9), able, share) * able
def tokens(n): return lambda words, seen, size: torch.where(seen, words, torch.full_like(words, n))
def rows_of(mask, size): return mask.repeat_interleave(size * size, 1).view(-1, 6, 6)
LEARNS = dict(CLS={"predictor"}, random={"predictor"}, RE={"generator", "predictor"}, rationales={"generator"}, predictions={"generator", "predictor"})

WRONG = { # check -> answers that are wrong, each with a piece of what is said of it
    "of_two_minds": [("A dull film.", "from a tenth of it the model says negative"), ("A wonderful film.", "from half of it the model says positive, by: A wonderful"), (3, "a text")],
    "blind_accuracy": [(0.2, "guess between two"), (0.5, "once in five"), (0.7, "need not guess"), (0.9, "count")],
    "carrier": [(lambda ask, mask: 3, "not kept"), (lambda ask, mask: 4, "rises"), (lambda ask, mask: 0, "not most"), (lambda ask, mask: "c", "whole number"),
                (lambda ask, mask: mask.clear() or 2, "copy"), (lambda ask, mask: -1, "not kept")],
    "keep_probability": [(lambda x: x.softmax(-1)[..., 0], "*drop*"), (lambda x: x[..., 1].sigmoid(), "difference"), (lambda x: x[..., 1], "differ")],
    "cool_step": [(500, "exponentially"), (411, "whole"), (100, "not below 1")],
    "own_topk": [(topk_of_all, "cannot be selected"), (always_three, "of six selectable"), (lambda s, able, p: able.float(), "of six selectable"), (lambda s, able, p: s, "0 and 1 only")],
    "straight_through": [(lambda d, T: torch.sigmoid(d / T), "0 or 1"), (lambda d, T: (d > 0).float(), "no gradient"),
                         (lambda d, T: (d > 0).float() + (d.sigmoid() - d.sigmoid().detach()), "temperature"),
                         (lambda d, T: (d < 0).float() + (d.sigmoid() - d.sigmoid().detach()), "lead is positive")],
    "masked_mean": [(lambda h, m: (h * m[..., None]).mean(1), "all places"), (lambda h, m: (h * m[..., None]).sum(1) / m.sum(1, keepdim=True), "not finite"),
                    (lambda h, m: h.mean(1), "dropped places"), (lambda h, m: h, "shape")],
    "window": [(5, "one layer"), (10, "twice"), (25, "four")],
    "word_cnn": [(torch.nn.Linear, "subclass"), (3, "subclass")],
    "bound": [(6 / 258, "square root"), ((6 / 256) ** 0.5, "outputs"), (1.0, "another number")],
    "swap_dropped": [(tokens(7), "still what they were"), (tokens(99), "no word"), (lambda w, s, n: (w + 1) % n, "sees was changed"), (lambda w, s, n: w.add_(1), "copy")],
    "rationale_text": [(lambda w, m: " ".join(a if k else "..." for a, k in zip(w, m)), "one mark"), (lambda w, m: " ".join(w), "should read")],
    "what_it_sees": [({"a", "b", "c", "d"}, "multiplied by 0"), ({"b"}, "c:"), ({"b", "c"}, "d:"), ("b", "set of letters")],
    "price_of_blanks": [(dict(times=100, gradient=False), "[SEP]"), (dict(times=202 / 22, gradient=False), "ratio of places"), (dict(times=84.3, gradient=True), "not there"), (84, "keys")],
    "sparsity_penalty": [(lambda m, a, p: ((m * a).sum(-1) - p * a.sum(-1)).mean() ** 2, "square of the mean"), (lambda m, a, p: ((m.sum(-1) - p * 6) ** 2).mean(), "selectable"),
                         (lambda m, a, p: ((m * a).sum(-1) - p * a.sum(-1)) ** 2, "one number")],
    "own_kl": [(lambda s, t: kl(s, t), "KL(student || teacher)"), (lambda s, t: (t.exp() * (t - s)).sum(-1).mean(), "mean over both"), (lambda s, t: 2 * kl(t, s), "not the sum")],
    "colder_gradient": [(2.0, "division"), (0.25, "other way"), (8, "1 / T")],
    "edges": [(lambda m, a: m.diff(dim=-1).abs().sum(-1), "selectable"), (lambda m, a: (m[:, 1:] != m[:, :-1]).sum(), "shape"), (lambda m, a: torch.tensor([3., 2.]), "no gradient")],
    "who_learns": [(LEARNS | dict(CLS={"generator", "predictor"}), "CLS"), (LEARNS | dict(rationales={"predictor"}), "rationales"), ({}, "keys")],
    "own_noise": [(lambda index, n, e: torch.rand(len(index), n), "alone"), (lambda index, n, e: torch.ones(len(index), n), "same noise"),
                  (lambda index, n, e: torch.stack([torch.rand(n, generator=torch.Generator().manual_seed(int(i))) for i in index]), "epoch")],
    "indecision": [(lambda x, a: (x.softmax(-1) * x.log_softmax(-1)).sum(-1).mul(a).sum(-1) / a.sum(-1), "positive"), (lambda x, a: -(x.softmax(-1) * x.log_softmax(-1)).sum(-1).mean(-1), "padding"),
                   (lambda x, a: x.sum(), "shape")],
    "log_probability": [(lambda x, m: (x.log_softmax(-1)[..., 1] * m).sum(-1), "dropping"), (lambda x, m: (m * x.softmax(-1)[..., 1] + (1 - m) * x.softmax(-1)[..., 0]).prod(-1), "logarithm"),
                        (lambda x, m: x.sum(), "shape")],
    "advantages": [(lambda x: x - x.mean(0), "own baseline"), (lambda x: x - x.mean(), "mixes"), (lambda x: x, "less the mean")],
    "exact_gradient": [(cost_at, "zero"), (lambda s, cost: s, "differ")],
    "beat_blind": [(lambda x: torch.zeros_like(x).scatter_(1, x.topk(2).indices, 1.0), "dark"), (lambda x: torch.ones_like(x), "exactly two"),
                   (lambda x: torch.zeros_like(x).index_fill_(1, torch.tensor([0, 1]), 1.0), "blind choice")],
    "cosine_rate": [(lambda s, n, top, w: top * s / n, "first step"), (lambda s, n, top, w: top, "half way"), (lambda s, n, top, w: 3 * top, "above")],
    "pooled_accuracy": [(lambda b: sum(r / n for r, n in b) / len(b), "two means"), (lambda b: sum(r for r, _ in b), "nine of twelve")],
    "epoch_to_keep": [(lambda rows: min(range(len(rows)), key=lambda i: rows[i]["loss"]), "not yet asked"), (lambda rows: len(rows) - 1, "last epoch"),
                      (lambda rows: min((i for i, r in enumerate(rows) if r["at_goal"]), key=lambda i: rows[i]["loss"]), "ValueError"),
                      (lambda rows: min([i for i, r in enumerate(rows) if r["at_goal"]] or range(len(rows)), key=lambda i: rows[i]["loss"]), "None")],
    "cnn_student": [("a model", "RationaleModel")],
    "own_f1": [(lambda m, h: sum(a and b for a, b in zip(m, h)) / sum(m), "0.4"), (lambda m, h: 0.4, "found nothing")],
    "own_sufficiency": [(lambda f, o: o.max(-1).values.sub(f.max(-1).values).mean(), "way round"), (lambda f, o: (f.max(-1).values - o.max(-1).values), "one number"),
                        (lambda f, o: f.max(-1).values.mean(), "expected")],
    "mask_reader": [(lambda m, y, t: torch.zeros(len(t)), "guess"), (lambda m, y, t: (t[:, 0] > 0).long(), "swapped"), (lambda m, y, t: t.sum(), "shape")],
    "mask_penalty": [(lambda m, y: m.sum(), "compare where"), (lambda m, y: torch.tensor(1.0), "no gradient"), (lambda m, y: -m.mean(), "not below 0")],
    "marked": [(lambda w, m: " ".join(f"[{a}]" if k else a for a, k in zip(w, m)), "one pair"), (lambda w, m: " ".join(w), "should read")],
    "to_pixels": [(rows_of, "top left"), (lambda m, n: m.view(-1, 2, 2), "6 x 6"),
                  (lambda m, n: m.view(-1, 2, 2).transpose(1, 2).repeat_interleave(n, 1).repeat_interleave(n, 2), "row by row")],
    "whom_to_trust": [("A", "0.88"), ("C", "'A' or 'B'")],
    "gradient_times_input": [(lambda f, x: torch.autograd.functional.jacobian(f, x).norm(dim=-1), "gradient alone"), (lambda f, x: (torch.autograd.functional.jacobian(f, x) * x).sum(-1).abs(), "sign"),
                             (lambda f, x: torch.autograd.functional.jacobian(f, x) * x, "shape")],
    "own_occlusion": [(lambda f, n: torch.stack([f(torch.ones(n) - e) - f(torch.ones(n)) for e in torch.eye(n)]), "sign"), (lambda f, n: torch.stack([f(e) for e in torch.eye(n)]), "one away")],
    "chance_f1": [(0.45, "hits"), (0.5, "far less"), (math.pi, "3 / 20")],
}


def test_every_check_is_tried():
    assert set(WRONG) == set(checks)

@pytest.mark.parametrize("name", WRONG)
def test_a_check_refuses_wrong_answers_and_says_why(name, capsys):
    for answer, said in [*WRONG[name], (None, "no answer yet"), (..., "no answer yet")]:
        assert checks[name](answer) is False
        out = capsys.readouterr().out
        assert out.startswith("Not yet:") and said in out, out

def test_an_answer_that_fails_is_no_traceback(capsys):
    assert not checks["own_f1"](lambda a, b: 1 / 0) and "ZeroDivisionError" in capsys.readouterr().out
    assert not checks["own_f1"](lambda a, b: None) and "returns nothing yet" in capsys.readouterr().out

@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda f: f.stem)
def test_each_chapter_has_exercises_that_are_solved(chapter):
    text, solved = source(chapter), source(TOP / "nbs" / "solutions" / chapter.name)
    asked = re.findall(r"^checks\.(\w+)\(", text, flags=re.M)
    assert 3 <= len(asked) <= 5 and set(asked) <= set(checks), asked
    assert re.findall(r"^assert checks\.(\w+)\(", solved, flags=re.M) == asked
    assert len(re.findall(r"^\*(?:easy|medium|hard), \d+ minutes\.\*", text, flags=re.M)) == len(asked) == text.count("<details><summary>Hint")
    assert text.count("## What you can do now") == 1

def test_each_check_is_asked_once():
    asked = [name for chapter in CHAPTERS for name in re.findall(r"^checks\.(\w+)\(", source(chapter), flags=re.M)]
    assert sorted(asked) == sorted(checks)
