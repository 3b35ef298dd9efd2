"Teachers that are no select-predict models: a file of spans and a plain classifier, from the command line and in the loop."

import json
import re
from pathlib import Path
import pytest
import tiny
import torch
from rekd.cli import main
from rekd.errors import DataError, MissingError, ModelError, SettingError
from rekd.guard import fingerprint
from rekd.objective import REKD, StepContext
from rekd.run import load_teacher
from rekd.teachers import SURE, Attribution, SpanFile, class_evidence, piece_weights, read_spans
from test_presets import home, world # noqa: F401 -- fixtures

SMALL = "n_train=20 n_test=8 val_share=0.5 epochs=1 batch_size=5".split()


def spans(file, *rows):
    Path(file).write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), encoding="utf-8")
    return str(file)


def test_spans_become_keep_probabilities_of_the_pieces_they_touch(tmp_path):
    data, model = tiny.text_data(), tiny.make_model("bert")
    texts = data.train.rows["input"]
    told = [next(w for w in t.split() if w in tiny.GOOD + tiny.BAD) if set(t.split()) & {*tiny.GOOD, *tiny.BAD} else None for t in texts]
    file = spans(tmp_path / "s.jsonl", *({"text": t, "spans": [w] if w else []} for t, w in dict(zip(texts, told)).items()))
    teacher = SpanFile(file)
    with pytest.raises(SettingError, match="has not seen"): teacher.select(data.train.collate([data.train[0]]))
    teacher.read(data.train)
    batch = data.train.collate([data.train[i] for i in (3, 0, 5)])
    p = teacher.select(batch).softmax(-1)[..., 1]
    for row, ids, i in zip(p, batch["inputs"].tolist(), (3, 0, 5)):
        for value, token in zip(row.tolist(), ids): assert abs(value - (SURE if tiny.VOCAB[token] == told[i] else 1 - SURE)) < 1e-6
    objective = REKD(teacher)
    objective.fits(model)
    assert objective.part == "rationale"
    loss, parts = objective(model, batch, StepContext(1.0, 0.25, seed=0))
    loss.backward()
    assert "kd_y" not in parts and parts["kd_r"] > 0 and any(p.grad is not None for p in model.generator.parameters())


def test_a_window_and_a_weight():
    text = "so dull, then a superb\n cast"
    assert piece_weights(text, [(0, 2), (3, 7), (7, 8), (0, 0), (16, 22)], [("dull", 0.5), ((3, 5), 0.2), ("superb cast", 1.0)]).tolist() == pytest.approx([0, 0.5, 0, 0, 1])
    assert piece_weights(text, [(9, 13)], []).tolist() == [0]


def test_two_lines_for_one_text_both_count(tmp_path):
    file = spans(tmp_path / "s.jsonl", dict(text="so dull", spans=["dull"]), "", dict(text="so dull", spans=[[0, 2, 0.5]]))
    assert read_spans(file) == {"so dull": ([("dull", 1.0), ((0, 2), 0.5)], f"{file}, line 1")}


@pytest.mark.parametrize("rows, said", [
    (["{"], "line 1 is not JSON"), ([""], "is empty"), ([[1]], "must be an object"), ([dict(spans=[])], "either \"text\""), ([dict(text="a", id=1, spans=[])], "either \"text\""),
    ([dict(text="a")], "must be an object"), ([dict(text="a", spans="b")], "must be an object"),
    *(([dict(text="a", spans=[s])], "a span is a phrase") for s in ("", 3, [], [1], [2, 1], [-1, 2], [0, 1, 0], [0, 1, 2], ["a", 1, 1], ["a", "b"], [0, 1, True], [0.0, 1], None, {})),
])
def test_a_file_that_is_no_file_of_spans_is_refused_by_its_line(tmp_path, rows, said):
    with pytest.raises(DataError, match=said) as e: read_spans(spans(tmp_path / "s.jsonl", *rows))
    assert str(tmp_path / "s.jsonl") in str(e.value) and "\n" not in str(e.value)


def test_rows_are_found_by_number_too_and_what_is_missing_is_named(tmp_path, home): # noqa: F811
    from rekd.data import load_data
    data = load_data("imdb", tiny.text_processor(), starter=True, val_share=0.5)
    numbers = data.train.rows["row"][:]
    teacher = SpanFile(spans(tmp_path / "s.jsonl", *(dict(id=n, spans=[[0, 3]]) for n in numbers)))
    teacher.read(data.train)
    assert len(teacher.marks) == len(data.train) and all(m.max() == 1 for m in teacher.marks.values())
    with pytest.raises(DataError, match="no line for 1 of 20 texts that are learned from, the first is .*train.parquet, row"):
        SpanFile(spans(tmp_path / "t.jsonl", *(dict(id=n, spans=[]) for n in numbers[1:]))).read(data.train)
    with pytest.raises(DataError, match="s2.jsonl, line 1: 'nowhere' is not in the text"):
        SpanFile(spans(tmp_path / "s2.jsonl", *(dict(id=n, spans=["nowhere"]) for n in numbers))).read(data.train)
    with pytest.raises(DataError, match="the student reads pictures"): teacher.fits(tiny.make_model("vit"))
    with pytest.raises(DataError, match="the data are pictures"): teacher.read(tiny.image_data().train)


@pytest.mark.parametrize("kind, method", [("bigru", None), ("bert", None), ("bert", "occlusion"), ("vit", None)])
def test_an_attribution_keeps_the_student_s_share_and_predicts_from_everything(kind, method):
    classifier, student = tiny.make_model(kind, selects=False), tiny.make_model(kind, seed=1, sparsity=0.5)
    teacher, batch = Attribution(classifier, method), tiny.make_batch(kind, lengths=(12, 7, 9))
    before = fingerprint(teacher)
    REKD(teacher).fits(student)
    assert fingerprint(teacher) != before # another share, another teacher
    assert teacher.method == method or method is None and teacher.method == ("class_evidence" if kind == "bigru" else "integrated_gradients")
    able = student.selectable(batch)
    kept = (teacher.select(batch).softmax(-1)[..., 1] * able).sum(-1)
    assert torch.allclose(kept, (able.sum(-1) * 0.5).round().clamp(min=1), atol=0.1)
    none = torch.zeros(able.shape)
    assert torch.equal(teacher.predict(batch, none), classifier.predict(batch, able.float()))
    loss, parts = REKD(teacher)(student, batch, StepContext(1.0, 0.5, seed=0))
    loss.backward()
    assert parts["kd_y"] > 0 and not any(p.requires_grad for p in teacher.parameters())


def test_class_evidence_adds_up_where_the_head_is_linear():
    model, batch = tiny.make_model("bigru", selects=False, dropout=0.0), tiny.make_batch("bigru", lengths=(12, 7))
    able = model.selectable(batch)
    whole = model.predict(batch, batch["valid"].float())
    net = model.predictor.backbone
    each = model.predictor.head(net.encode(net.features(batch["inputs"]), batch["valid"]))
    assert torch.allclose((each * batch["valid"].unsqueeze(-1)).sum(1) / batch["valid"].sum(-1, keepdim=True), whole, atol=1e-5)
    best = model.predict(batch, able.float()).argmax(-1)
    mine = each[torch.arange(2), :, best] - each.mean(-1)
    assert torch.allclose(class_evidence(model, batch), mine * able, atol=1e-5)
    with pytest.raises(ModelError, match="reads the state of .CLS."): class_evidence(tiny.make_model("bert"), tiny.make_batch("bert"))
    with pytest.raises(SettingError, match="method"): Attribution(tiny.make_model("bert"), "cam")


def test_both_teach_from_the_command_line(home, capsys): # noqa: F811
    from rekd.rows import read_data
    texts = set(read_data("imdb", True).parts["train"]["input"])
    spans("spans.jsonl", *({"text": t, "spans": [["good", 0.9]] if "good" in t else ["bad"]} for t in texts))
    main(["train", "demo", "--objective", "rekd", "--teacher", "spans.jsonl", "--set", *SMALL])
    row = json.loads((home / "runs" / "demo" / "rekd-paper-2025" / "row.json").read_text())
    assert row["teacher"] == "spans.jsonl" and row["teacher_weights"] and "kd_y" not in row["epochs"][0]["train"] and row["epochs"][0]["train"]["kd_r"] > 0
    main(["train", "demo", "--objective", "cls", "--set", *SMALL])
    main(["train", "demo", "--objective", "rekd", "--teacher", "attribution:demo/cls-paper-2025", "--seed", "7", "--set", *SMALL])
    row = json.loads((home / "runs" / "demo" / "rekd-paper-7" / "row.json").read_text())
    assert row["teacher"] == "attribution:demo/cls-paper-2025" and {"kd_r", "kd_y"} <= set(row["epochs"][0]["train"])
    for said, objective, teacher in (("no file of spans gone.jsonl", "rekd", "gone.jsonl"), ("no model 'nobody'", "rekd", "attribution:nobody"),
                                     ("spans.jsonl teaches rationales", "cls", "spans.jsonl")):
        with pytest.raises(SystemExit, match=said): main(["train", "demo", "--objective", objective, "--teacher", teacher, "--seed", "8", "--set", *SMALL])
    spans("few.jsonl", dict(text="nothing", spans=[]))
    with pytest.raises(SystemExit, match="few.jsonl has no line for 10 of 10 texts"): main(["train", "demo", "--teacher", "few.jsonl", "--seed", "9", "--set", *SMALL])


def test_a_teacher_of_rationales_is_given_as_an_object_too(home, tmp_path): # noqa: F811
    file = spans(tmp_path / "s.jsonl", dict(id=1, spans=[]))
    assert load_teacher(teacher := SpanFile(file)) is teacher
    with pytest.raises(SettingError, match="teaches rationales"): load_teacher(teacher, selects=False)
    with pytest.raises(MissingError): load_teacher("attribution:gone/model")


def data_of(model, augment="paper", n=24):
    "Texts of two sentences, or pictures, read as `model` reads them."
    from rekd.data import load_data
    text = model.generator.backbone.modality == "text"
    inputs = [f"A {w} film, klam. It was nemo!" for w in (tiny.GOOD + tiny.BAD) * (n // 6)] if text else tiny.images(n, 0)
    return load_data([(x, tiny.LABELS[i % 2]) for i, x in enumerate(inputs)], model.processor, augment=augment)


def unit_model(unit, seed=0, **options):
    from rekd.model import RationaleModel
    from rekd.processor import TextProcessor
    model = tiny.make_model("bigru", seed, **options)
    return RationaleModel(model.config, TextProcessor(model.processor.tokenizer, 40, unit=unit), model.generator.backbone, model.predictor.backbone)


@pytest.mark.parametrize("method", ["class_evidence", "integrated_gradients", "gradient_x_input", "occlusion"])
@pytest.mark.parametrize("kind", ["piece", "word", "sentence", "paper", "mirror"])
def test_an_attribution_teaches_where_nothing_is_remembered(kind, method):
    "A batch of `fit` holds its weight too, a number."
    from rekd.train import TrainConfig, fit
    pictures = kind in ("paper", "mirror")
    make = (lambda seed, **k: tiny.make_model("vit", seed, pool="mean" if method == "class_evidence" else "cls", **k)) if pictures else (
        lambda seed, **k: unit_model(kind, seed, **k))
    student = make(0)
    data = data_of(student, kind if pictures else "paper")
    assert data.train.changes == (kind == "paper")
    row = fit(student, data, REKD(Attribution(make(1, selects=False), method)), TrainConfig(epochs=1, batch_size=8, lr=1e-3), quiet=True)[-1]["train"]
    assert row["kd_r"] > 0 and row["loss"] < float("inf")


@pytest.mark.parametrize("unit", ["piece", "word", "sentence"])
def test_a_unit_is_marked_as_its_best_piece(unit, tmp_path):
    "Against a loop over words and sentences; and it trains."
    from rekd.processor import first_pieces
    from rekd.train import TrainConfig, fit
    student = unit_model(unit)
    data = data_of(student)
    texts = data.train.rows["input"]
    marks = [[["film, k", 0.5], [3, 4]], [], [["nemo", 0.25]], [["film"], ["klam. It was", 0.75]]]
    told = {t: marks[i % 4] for i, t in enumerate(dict.fromkeys(texts))}
    teacher = SpanFile(spans(tmp_path / "s.jsonl", *(dict(text=t, spans=s) for t, s in told.items())))
    teacher.read(data.train)
    batch = data.train.collate([data.train[i] for i in range(len(data.train))])
    logits, able = teacher.select(batch), student.selectable(batch)
    assert logits.isfinite().all()
    for i, text in enumerate(texts):
        places, found = data.train.processor.spans(text), teacher.spans[text][0]
        of = first_pieces(text, places, unit) if unit != "piece" else list(range(len(places)))
        for at in {k for k in of if able[i, k]}:
            best = max(piece_weights(text, [places[j]], found).item() for j, k in enumerate(of) if k == at)
            for j, k in enumerate(of):
                if k == at: assert logits[i, j].softmax(-1)[1].item() == pytest.approx(1 - SURE + (2 * SURE - 1) * best, abs=1e-5)
    row = fit(student, data, REKD(teacher), TrainConfig(epochs=1, batch_size=8, lr=1e-3), quiet=True)[-1]["train"]
    assert row["kd_r"] > 0 and row["loss"] < float("inf")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    "A folder with 40 rows to learn from, in the working directory."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REKD_RUNS", str(tmp_path / "runs"))
    Path("toy").mkdir()
    for part in ("train", "test"):
        Path(f"toy/{part}.csv").write_text("\n".join(["text,label", *(f"a {('good', 'bad')[i % 2]} film {part} {i},{'yn'[i % 2]}" for i in range(40))]) + "\n")
    return tmp_path


@pytest.mark.parametrize("ids, said", [(range(1, 41), "line 1: no text stands in .*toy/train.csv, line 1. An id counts as messages count, here from 2 to 41"),
                                       (range(3, 43), "line 40: no text stands in .*train.csv, line 42"), (range(0, 40), "line 1: .*line 0"), (range(2, 42), None)])
def test_an_id_that_is_no_row_is_named(toy, ids, said):
    from rekd.data import load_data
    from rekd.guard import check_objective
    student = tiny.make_model("bigru")
    data = load_data("toy", student.processor)
    teacher = SpanFile(spans("s.jsonl", *(dict(id=i, spans=[[0, 1]]) for i in ids)))
    if said is None: return check_objective(REKD(teacher), student, data)
    with pytest.raises(DataError, match=said): check_objective(REKD(teacher), student, data)


def test_of_a_single_file_each_row_may_be_marked(toy):
    from rekd.data import load_data
    Path("toy/train.csv").rename("one.csv")
    rows = load_data("one.csv", tiny.text_processor()).rows
    assert rows.split
    SpanFile(spans("s.jsonl", *(dict(id=i, spans=[]) for i in range(2, 42)))).check_rows(rows)
    with pytest.raises(DataError, match="line 1: no text"): SpanFile(spans("s.jsonl", dict(id=42, spans=[]))).check_rows(rows)


def test_texts_that_are_in_no_part_are_counted(toy, caplog):
    from rekd.data import load_data
    data = load_data("toy", tiny.text_processor())
    texts = [t for part in data.rows.parts.values() for t in part["input"]]
    SpanFile(spans("s.jsonl", *(dict(text=t, spans=[]) for t in texts))).check_rows(data.rows) # rows of test may be marked too
    assert "teach nothing" not in caplog.text
    SpanFile(spans("s.jsonl", *(dict(text=t, spans=[]) for t in [*texts, "who?", "what?"]))).check_rows(data.rows)
    assert "s.jsonl, line 81: this text is in no part of the data, as 2 of 82 marked texts are" in caplog.text


@pytest.mark.parametrize("teacher, said", [("imdb-small", "must have the same classes"), ("ids.jsonl", "no text stands in .*line 1"), ("few.jsonl", "has no line for .* texts")])
def test_a_teacher_that_does_not_fit_is_refused_before_a_first_model_is_trained(toy, teacher, said, capsys):
    spans("ids.jsonl", *(dict(id=i, spans=[]) for i in range(1, 41)))
    spans("few.jsonl", dict(id=2, spans=[]))
    setting = ["--set", "dataset=toy", "epochs=1"]
    with pytest.raises(SystemExit, match=said): main(["train", "demo", "--objective", "rekd", "--start", "warm", "--teacher", teacher, *setting])
    assert not list(toy.glob("runs/*/cls*"))
    main(["study", "demo", "--objectives", "rekd", "--name", "mine", "--teacher", teacher, "--dry-run", *setting])
    assert re.search(f"would not start: .*{said}", capsys.readouterr().out)


def test_a_plan_does_not_ask_for_a_teacher_that_the_study_makes(toy, capsys):
    for teacher in ("mine/re-paper-2025", "attribution:mine/cls-paper-2025"):
        main(["study", "demo", "--objectives", "rekd", "--name", "mine", "--teacher", teacher, "--dry-run", "--set", "dataset=toy"])
        assert "would not start" not in capsys.readouterr().out
