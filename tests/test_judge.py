"A reader from the command line, and what it says of models: in the table, in the file and in the report."

import json
from pathlib import Path
import pytest
import tiny
import torch
from rekd.cli import main
from rekd.errors import ModelError
from rekd.judge import judge_choice, masks_alone
from rekd.objective import Reader, StepContext
from test_presets import home, world # noqa: F401 -- fixtures

SMALL = "n_train=20 n_test=8 val_share=0.5 epochs=1 batch_size=5".split()


def test_a_reader_meets_all_sizes_and_only_selectable_features():
    model, batch = tiny.make_model("bert"), tiny.make_batch("bert", lengths=(12, 30, 9))
    seen, predict = [], model.predict
    model.predict = lambda b, mask: seen.append(mask) or predict(b, mask)
    able = model.selectable(batch)
    for seed in range(300): Reader()(model, batch, StepContext(1.0, 0.1, seed=seed))
    sizes = torch.stack(seen).sum(-1) # (300, 3)
    assert not (torch.stack(seen).bool() & ~able).any() and (sizes.amin(0) == 1).all() and (sizes.amax(0) >= able.sum(-1) - 1).all()
    half = able.sum(-1).float().sqrt() # as often below the square root as above
    assert ((sizes < half).float().mean(0) - 0.5).abs().max() < 0.15
    again = len(seen)
    Reader()(model, batch, StepContext(1.0, 0.1, seed=3))
    assert torch.equal(seen[3], seen[again]) # an example's own noise
    loss, _ = Reader()(model, batch, StepContext(1.0, 0.1, seed=0))
    loss.backward()
    assert all(p.grad is None for p in model.generator.parameters()) and any(p.grad is not None for p in model.predictor.parameters())


def test_masks_alone_needs_examples_of_each_class():
    masks = [torch.eye(8)[i % 2].numpy() for i in range(60)]
    assert masks_alone(masks, [i % 2 for i in range(60)]) == 1.0
    assert masks_alone(masks[:8], [i % 2 for i in range(8)]) is None
    assert masks_alone(masks, [0] * 60) is None


def test_what_cannot_be_judged_is_refused():
    model, reader = tiny.make_model("bert"), tiny.make_model("bert", selects=False)
    data = tiny.text_data()
    with pytest.raises(ModelError, match="has met no generator"): judge_choice(model, model, data.test)
    with pytest.raises(ModelError, match="no rationale to show"): judge_choice(reader, reader, data.test)
    with pytest.raises(ModelError, match="the reader and the model must have the same inputs"): judge_choice(model, tiny.make_model("vit", selects=False), data.test)
    told = judge_choice(model, reader, data.test)
    assert told["rows"] == 8 and told["masks_alone"] is None and set(told["own"]) == set(told["reader"]) == {"choice", "blind", "rest", "all"}
    assert abs(told["worth"] - told["reader"]["choice"] + told["reader"]["blind"]) < 1e-9 and abs(told["leak"] - told["own"]["choice"] + told["reader"]["choice"]) < 1e-9
    assert not reader.training and model.config.selects


def test_one_command_trains_a_reader_and_one_judges_all_models(home, capsys): # noqa: F811
    for objective in ("reader", "re", "random"): main(["train", "demo", "--objective", objective, "--set", *SMALL])
    row = json.loads((home / "runs" / "demo" / "reader-paper-2025" / "row.json").read_text())
    assert set(row["masks"]) == {"random"} and not row["config"]["objective"]["options"]
    main("train demo --objective re --seed 7 --set".split() + SMALL)
    capsys.readouterr()
    models = ["demo/re-paper-2025", "demo/re-paper-7"]
    main(["evaluate", *models, "--reader", "demo/reader-paper-2025", "--json", "e.json"])
    out, told = capsys.readouterr().out, json.loads(Path("e.json").read_text())
    assert "masks_alone" in out and "worth" in out and out.count("its own  ") == 2
    assert [v["model"] for v in told["judge"]] == ["re-paper-2025", "re-paper-7"] and {r["model"] for r in told["masks"]} == {"re-paper-2025", "re-paper-7"}
    alone = json.loads((home / "runs" / "demo" / "re-paper-7" / "row.json").read_text())["masks"]
    assert {r["mask"]: r["accuracy"] for r in told["masks"] if r["model"] == "re-paper-7"} == {m: v["accuracy"] for m, v in alone.items()}
    assert told["judge"][1]["own"]["choice"] == alone["topk"]["accuracy"]
    main(["report", *models, "--reader", "demo/reader-paper-2025", "--examples", "2", "--out", "r.html"])
    page = Path("r.html").read_text()
    assert json.loads(page.split('id="data">')[1].split("</script>")[0])["judged"] == told["judge"]
    with pytest.raises(SystemExit, match="was trained as random, and a judge"): main(["evaluate", models[0], "--reader", "demo/random-paper-2025"])
    with pytest.raises(SystemExit, match="random-paper-2025: this model was trained as CLS or on random masks"): main(["evaluate", "demo/random-paper-2025", "--reader", "demo/reader-paper-2025"])


def test_a_reader_reads_as_far_as_the_model(text_model):
    short, far = tiny.make_model("bert", selects=False), tiny.make_model("bert", selects=False)
    short.processor.max_length, far.processor.max_length = text_model.processor.max_length - 1, text_model.processor.max_length + 1
    data = tiny.text_data()
    with pytest.raises(ModelError, match=f"train one by --set max_length={text_model.processor.max_length}"): judge_choice(text_model, short, data.test)
    assert judge_choice(text_model, far, data.test)["rows"] == 8
    from rekd.compare import at_shares, crossed
    for compare in (at_shares, crossed):
        with pytest.raises(ModelError, match="the same max_length"): compare(dict(a=text_model, b=short), data.test)
