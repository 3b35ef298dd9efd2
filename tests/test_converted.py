"Each preset and variant of `rekd.experiment`, old against new: data, network, objective and loop of every legal run."
from dataclasses import asdict

from rekd.experiment import PRESETS, VARIANTS, changed, loop_of, study_plan
from rekd.preset import load_preset, resolve

RUNS = [("cls", "paper"), ("random", "paper"), ("re", "paper"), ("rekd", "paper"), ("re", "warm"), ("rekd", "warm")]
NEW = dict(sparsity_per="per", re_select_lambda="select_lambda", cls_epochs="epochs") # of a variant's changes


def old(p, objective, start):
    "What a run of an old preset was made of."
    data = dict(name=p.dataset, starter=p.starter, n_train=p.n_train, n_test=p.n_test, val_share=p.val_share, augment=p.augment)
    model = {k: getattr(p, k) for k in ("backbone", "num_layers", "pretrained", "max_length", "image_size", "pool", "dropout", "sparsity", "select_special", "freeze_embeddings", "norm")}
    re = dict(select_lambda=p.select_lambda if p.re_select_lambda is None else p.re_select_lambda, per=p.sparsity_per)
    rekd = dict(select_lambda=p.select_lambda, alpha=p.alpha, kd_r_lambda=p.kd_r_lambda, part=p.part, noise=p.noise, kd_mask=p.kd_mask, hard=False, per=p.sparsity_per)
    return dict(data=data, model=model, train=asdict(loop_of(p, objective, start)),
                objective=dict(name=objective, start=start, teacher=p.teacher if objective == "rekd" else None, options=dict(cls={}, random={}, re=re, rekd=rekd)[objective]))


def test_presets_and_variants_are_what_they_were():
    runs = cells = 0
    for name, p in PRESETS.items():
        for study in (False, True): # the shipped file, and the one beside the notebook
            new = load_preset(name, study)
            for r in RUNS:
                assert asdict(resolve(new, *r)) == old(p, *r), (name, r)
                runs += not study
        new = load_preset(name, study=True)
        listed = new.study.get("cells", [])
        assert [(c["objective"], c.get("start", "paper"), c.get("name", "")) for c in listed] == [v[:3] for v in VARIANTS.get(name, [])]
        for (objective, start, _, changes), cell in zip(VARIANTS.get(name, []), listed):
            assert asdict(resolve(new, objective, start, cell.get("set"))) == old(changed(p, **changes), objective, start), (name, cell)
            cells += 1
        if name not in VARIANTS:
            plan, told = study_plan(name), dict(objectives=["cls", "random", "re"] + ["rekd"] * bool(p.teacher), seeds=[2025, 2026, 2027], starts=["paper"], few=3) | new.study
            assert told | dict(few=min(told["few"], len(told["seeds"]))) == plan, name
        else: assert (new.study["seeds"], new.study.get("measure_on", "test")) == (study_plan(name)["seeds"], "val" if name.endswith("-search") else "test")
    print(f"{len(PRESETS)} presets in {runs} runs, and {cells} variants are equal")
    assert (len(PRESETS), runs, cells) == (41, 246, 106)
