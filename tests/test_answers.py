"Data in, answers out: tables of every kind, row by row, in constant memory, and a killed run that goes on."
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

import rekd.stream
from rekd.cli import main
from rekd.data import load_data, load_test, rows_in_memory
from rekd.errors import DataError, SettingError
from rekd.inputs import in_windows
from rekd.model import RationaleModel
from rekd.objective import RE
from rekd.stream import table_rows
from rekd.table import read_table
from rekd.train import TrainConfig, fit


def texts(n, seed=0):
    made, labels, _ = tiny.planted_texts(n, seed, words=9)
    return [" ".join(t.split()[i % 6:]) for i, t in enumerate(made)], [tiny.LABELS[y] for y in labels]


@pytest.fixture
def home(tmp_path):
    tiny.make_model("bigru").save_pretrained(tmp_path / "m")
    return tmp_path


def frame(n=30): return pd.DataFrame(dict(zip(("review", "stars"), texts(n)), id=range(n)))
def lines(file): return [json.loads(line) for line in open(file, encoding="utf-8")]


# ---- in Python

def test_explain_takes_what_people_have(text_model):
    some = frame()
    want = [text_model.explain(t) for t in some["review"]]
    plain = lambda es: [(e.label, e.mask, e.spans) for e in es]
    as_dataset = datasets.Dataset.from_pandas(some)
    for given in (some, as_dataset, as_dataset.to_iterable_dataset(), pa.Table.from_pandas(some), some.to_dict("records"), iter(some.to_dict("records"))):
        assert plain(text_model.explain(given, text_column="review")) == plain(want)
    for given in (list(some["review"]), some["review"], some["review"].to_numpy(), (t for t in some["review"])): assert plain(text_model.explain(given)) == plain(want)
    assert plain(text_model.explain_each((t for t in some["review"]), batch_size=4)) == plain(want)
    assert plain(text_model.explain_each(some.to_dict("records"), text_column="review")) == plain(want)
    assert plain(text_model.explain(some.rename(columns=dict(review="text")))) == plain(want)
    assert text_model(list(some["review"])) == [e.label for e in want] and text_model(some["review"][0]) == want[0].label
    probs = text_model.predict_proba(some, text_column="review", batch_size=7)
    assert probs.shape == (30, 2) and probs == pytest.approx(np.array([list(e.probabilities.values()) for e in want]), abs=1e-5)
    for options, says in ((dict(), "no column 'text' or 'image'"), (dict(text_column="reviev"), "did you mean 'review'")):
        with pytest.raises(DataError, match=says): text_model.explain(some, **options)


def test_a_model_that_does_not_select_predicts_from_everything(text_model):
    text_model.config.selects = False
    everything = text_model.predict_proba(["good klm kala"], "none")
    assert (text_model.predict_proba(["good klm kala"]) == everything).all() and text_model("good klm kala") == tiny.LABELS[everything.argmax()]
    with pytest.raises(ValueError, match="no rationale"): text_model.predict_proba(["good"], "topk")


def test_a_stream_is_read_a_window_at_a_time(text_model):
    "Nothing is read ahead of the window, and no answer waits for the end."
    taken = []
    def source():
        for i in range(10_000): taken.append(i); yield "good klm"
    stream = text_model.explain_each(source(), batch_size=2)
    next(stream)
    assert len(taken) == 32
    assert list(in_windows(range(100), lambda xs: [x * x for x in xs], 7)) == [i * i for i in range(100)]


@pytest.mark.parametrize("kind", ["frame", "dataset", "pairs", "dicts", "columns", "generator", "parts"])
def test_load_data_and_fit_take_rows_in_memory(text_model, kind):
    some, columns = frame(40), dict(text_column="review", label_column="stars")
    pairs = list(zip(some["review"], some["stars"]))
    given = dict(frame=some, dataset=datasets.Dataset.from_pandas(some), pairs=pairs, dicts=[dict(text=t, label=y) for t, y in pairs],
                 columns=dict(text=list(some["review"]), label=some["stars"].to_numpy(), more=[object()] * 40), generator=(p for p in pairs),
                 parts=dict(train=some[:30], test=some[30:]))[kind]
    options = columns if kind in ("frame", "dataset", "parts") else {}
    if kind == "generator": assert len(fit(text_model, given, RE(), TrainConfig(epochs=1, batch_size=16), quiet=True)) == 1; return
    data = load_data(given, text_model.processor, **options)
    assert (len(data.train), len(data.val), len(data.test)) == ((24, 6, 10) if kind == "parts" else (25, 7, 8)) and data.labels == tiny.LABELS
    assert "memory" in data.account() and "/tmp" not in data.train.place(0) + data.account()
    test, _ = load_test(some, text_model.processor, labels=tiny.LABELS, **columns)
    assert len(test) == 40
    assert len(fit(text_model, given, RE(), TrainConfig(epochs=1, batch_size=16), quiet=True, **options)) == 1


def test_rows_in_memory_that_cannot_be_used(text_model):
    for given, says in ((frame(), "has no column"), ([("a", "x")] * 3, "one class only"), ([3, 4], r"row 1 must be a pair \(input, label\) or a dict, got 3"), (["ab", "cd"], "row 1 must be a pair.*got .ab."), ([], "no rows"),
                        (pd.DataFrame(dict(text=["a", None], label=["x", "y"])), "no text, the first is memory, row 2"), (dict(tain=frame()), "got 'tain'"),
                        ((["a b", "c d", "e f"], ["x", "y", "x"]), r"row 1 must be a pair \(input, label\) or a dict, got .*; .* list\(zip\(X, y\)\)"), (dict(train=frame()), "test is not among train"),
                        (dict(text=["a", "b"], label=["x"]), "equally long, got .'text': 2, 'label': 1"), (dict(text="ab", label="x"), "equally long"),
                        (dict(text=["a", "b"] * 9, label=[0.5, 1] * 9), "got 0.5: numbers with a fraction look like those of a regression")):
        with pytest.raises(DataError, match=says): load_data(given, text_model.processor)
    with pytest.raises(DataError, match="unknown label 'stars'"): fit(text_model, [("a", "stars"), ("b", "negative")] * 9, RE(), quiet=True)
    with pytest.raises(SettingError, match="a data set is given by its name"): load_data(7, text_model.processor)
    with pytest.raises(SettingError, match="yet to be read"): fit(text_model, tiny.text_data(), RE(), quiet=True, text_column="x")


def test_rows_in_memory_need_only_the_two_columns():
    "Others may hold anything; columns may be numbers; labels are of one kind."
    odd = pd.DataFrame(dict(review=["a b", "c d"] * 9, stars=["x", "y"] * 9, more=[object(), 1] * 9))
    for given in (odd, odd.to_dict("records")):
        assert rows_in_memory(given, text_column="review", label_column="stars").labels == ["x", "y"]
    with pytest.raises(DataError, match="no column 'text' or 'image'; its columns are .'review', 'stars'"): rows_in_memory(odd.drop(columns="more"))
    numbered = pd.DataFrame({0: odd["review"], 1: odd["stars"]})
    assert rows_in_memory(numbered, text_column=0, label_column=1).labels == ["x", "y"]
    with pytest.raises(DataError, match="no column ''"): rows_in_memory(odd.drop(columns="more"), text_column="", label_column="stars")
    with pytest.raises(DataError, match="both: 'negative' and 1"): rows_in_memory(pd.DataFrame(dict(text=["a", "b"] * 9, label=[1, "negative"] * 9)))
    for kind, some in dict(string="a", boolean=True, Int64=1).items(): # pandas' types that know NA
        with pytest.raises(DataError, match="9 rows have no label, the first is .*row 2"): rows_in_memory(pd.DataFrame(dict(text=["a", "b"] * 9, label=pd.array([some, None] * 9, dtype=kind))))


def test_a_generator_that_keeps_too_much_is_named(home, capsys):
    "By fit, after its last epoch and unless it is quiet, and by evaluate; what was asked for, and what to do."
    from rekd.machine import Display, too_open
    assert not too_open(0.2, 0.1) and "keeps 21% of the features, and was asked for 10%" in too_open(0.21, 0.1) and "select_lambda" in too_open(0.21, 0.1)
    row = lambda epoch, loss, rate, **more: dict(epoch=epoch, val=dict(accuracy=0.5, loss=loss, expected_rate=rate), val_mask="topk", at_goal=True, sparsity_target=0.1, examples_per_second=1) | more
    for rows, hide, said in (([row(0, 1, 0.5), row(1, 2, 0.1)], False, "keeps 50%"), ([row(0, 2, 0.5), row(1, 1, 0.1)], False, ""), ([row(0, 1, 0.5), row(1, 2, 0.1)], True, ""),
                             ([row(0, 1, 0.9, at_goal=False), row(1, 2, 0.1)], False, ""), ([row(0, 1, 1.0, val_mask="none"), row(1, 1, 1.0, val_mask="none")], False, "")):
        shown = Display("RE", 2, 2, 0, hide)
        for r in rows: shown.epoch(r)
        err = capsys.readouterr().err
        assert (said in err if said else "asked for" not in err)
    shown = Display("RE", 2, 2, 1, False, [row(0, 1, 0.5)]) # a run that goes on: the kept epoch came before
    shown.epoch(row(1, 2, 0.1))
    assert "keeps 50%" in capsys.readouterr().err
    model = tiny.make_model("bigru")
    model.config.sparsity = 0.01
    model.save_pretrained(home / "open")
    frame(20).rename(columns=dict(review="text", stars="label")).to_csv(home / "in.csv", index=False)
    main(["evaluate", "open", "--dataset", str(home / "in.csv")])
    assert "open: by the sampled mask its generator keeps" in capsys.readouterr().out


# ---- on the command line

def write(home, kind, some):
    file = home / f"in{kind}"
    if kind == ".csv": some.to_csv(file, index=False)
    elif kind == ".tsv": some.to_csv(file, index=False, sep="\t")
    elif kind == ".csv.gz": some.to_csv(file, index=False)
    elif kind == ".jsonl": some.to_json(file, orient="records", lines=True)
    elif kind == ".json": some.to_json(file, orient="records")
    elif kind == ".arrow": datasets.Dataset.from_pandas(some).save_to_disk(home / "d"); os.replace(next((home / "d").glob("*.arrow")), file)
    else: some.to_parquet(file)
    return str(file)


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".csv.gz", ".jsonl", ".json", ".parquet", ".arrow"])
def test_table_in(home, kind, capsys):
    some = frame(70)
    some.loc[3, "review"] = 'a "quoted",\nlong text'
    main(["explain", "m", "--csv", write(home, kind, some), "--text-column", "review", "--out", "o.jsonl", "--batch-size", "4"])
    assert "70 rows of" in capsys.readouterr().out
    found, model = lines("o.jsonl"), tiny.make_model("bigru")
    assert [a["row"] for a in found] == list(range(1, 71))
    for a, text in zip(found, some["review"]):
        e = model.explain(text)
        assert a["label"] == e.label and a["probabilities"] == pytest.approx(e.probabilities, abs=1e-5)
        assert [text[k["start"]:k["end"]] for k in a["kept"]] == [k["text"] for k in a["kept"]] == [f for f, m in zip(e.features, e.mask) if m]


def test_answers_out_in_every_form(home, capsys):
    file = write(home, ".csv", frame(9))
    ask = ["explain", "m", "--csv", file, "--text-column", "review"]
    main(ask)
    shown = capsys.readouterr()
    want = [json.loads(line) for line in shown.out.splitlines()]
    assert len(want) == 9 and "9 rows of" in shown.err
    for ending in ("jsonl", "csv", "tsv", "parquet"): main([*ask, "--out", f"o.{ending}"])
    assert lines("o.jsonl") == want
    assert [r | dict(error=None) for r in want] == list(table_rows("o.parquet")) and not os.path.exists("o.parquet.part")
    for ending, sep in (("csv", ","), ("tsv", "\t")):
        with open(f"o.{ending}", newline="", encoding="utf-8") as f: rows = list(csv.DictReader(f, delimiter=sep))
        assert [(int(r["row"]), r["label"], json.loads(r["kept"])) for r in rows] == [(a["row"], a["label"], a["kept"]) for a in want]
        assert [float(r["p_negative"]) for r in rows] == [a["probabilities"]["negative"] for a in want]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_ids_of_a_table_stand_in_its_answers(home, ending):
    "A column `id`, or the one that is named; also on a row that cannot be read, and after a resume."
    some = pd.DataFrame(dict(id=[7, 9, 12], key=["a", "b", "c"], text=["good klm", " ", "dull"]))
    some.to_parquet("in.parquet")
    some.to_csv("in.csv", index=False)
    ids = lambda file: [r["id"] for r in table_rows(file)]
    main(["explain", "m", "--csv", "in.parquet", "--out", f"o.{ending}"])
    assert ids(f"o.{ending}") == ([7, 9, 12] if ending in ("jsonl", "parquet") else ["7", "9", "12"])
    ask = ["explain", "m", "--csv", "in.csv", "--id-column", "key", "--out", f"k.{ending}", "--resume"]
    main(ask)
    assert ids(f"k.{ending}") == ["a", "b", "c"]
    held = (home / f"k.{ending}").read_bytes()
    if ending != "parquet": (home / f"k.{ending}").write_bytes(held[:-20])
    main(ask)
    assert (home / f"k.{ending}").read_bytes() == held
    with pytest.raises(SystemExit, match="another table"): main([a for a in ask if a not in ("--id-column", "key")])
    with pytest.raises(SystemExit, match="no column 'keys'.*did you mean 'key'.*--id-column names another"): main(["explain", "m", "--csv", "in.csv", "--id-column", "keys"])


def test_ids_that_the_first_line_lacks_are_not_lost(home):
    (home / "in.jsonl").write_text('{"text": "good"}\n{"id": 7, "text": "dull"}\n')
    with pytest.raises(SystemExit, match="row 2 has an id, and the first row has none"): main(["explain", "m", "--csv", "in.jsonl", "--out", "o.jsonl"])
    assert not (home / "o.jsonl").exists()


def test_two_commands_do_not_write_one_file(home):
    (home / "in.csv").write_text("text\ngood\n")
    ask = ["explain", "m", "--csv", "in.csv", "--out", "o.csv"]
    with rekd.stream.alone(home / "o.csv"), pytest.raises(SystemExit, match="another command is writing o.csv"): main(ask)
    main(ask)
    assert len(list(table_rows("o.csv"))) == 1 and not list(home.glob("*.lock"))


def test_a_page_or_json_does_not_replace_somebody_s_data(home):
    (home / "data").mkdir()
    (home / "data" / "test.csv").write_text("text,label\ngood,positive\ndull,negative\n")
    (home / "note.txt").write_text("good")
    held = {f: f.read_bytes() for f in (home / "data" / "test.csv", home / "note.txt")}
    for ask in (["evaluate", "m", "--dataset", "data", "--json", "data/test.csv"], ["report", "m", "--dataset", "data", "--out", "data/test.csv"],
                ["explain", "m", "--text-file", "note.txt", "--html", "note.txt"]):
        with pytest.raises(SystemExit, match="is there already, and is no .(json|html): it stays as it is"): main(ask)
    assert {f: f.read_bytes() for f in held} == held
    for _ in range(2): main(["explain", "m", "--text-file", "note.txt", "--html", "page.html"]) # our own may be written anew
    (home / "data" / "test.csv").rename(home / "test.csv")
    (home / "data" / "test.json").write_text('[{"text": "good", "label": "positive"}, {"text": "dull", "label": "negative"}]')
    held = {f: f.read_bytes() for f in (home / "data" / "test.json", home / "page.html")}
    for ask in (["evaluate", "m", "--dataset", "data", "--json", "data/test.json"], ["evaluate", "m", "--dataset", "data/test.json", "--json", "data/test.json"],
                ["explain", "m", "--text-file", "page.html", "--html", "page.html"]):
        with pytest.raises(SystemExit, match="is read by this command, and stays as it is"): main(ask)
    assert {f: f.read_bytes() for f in held} == held


def test_measuring_does_not_replace_a_file_of_the_model_or_its_run(home):
    shutil.copytree(home / "m", home / "run" / "model")
    (home / "run" / "finished.json").write_text("{}")
    (home / "data").mkdir()
    (home / "data" / "test.csv").write_text("text,label\ngood,positive\ndull,negative\n")
    held = {f: f.read_bytes() for f in (home / "run").rglob("*.json")}
    for f in ("run/model/config.json", "run/finished.json"):
        with pytest.raises(SystemExit, match="is read by this command, and stays as it is"): main(["evaluate", "run/model", "--dataset", "data", "--json", f])
    assert {f: f.read_bytes() for f in held} == held and len(held) > 1
    main(["evaluate", "run/model", "--dataset", "data", "--masks", "topk", "topk", "--json", "e.json"])
    assert [r["mask"] for r in json.loads((home / "e.json").read_text())] == ["topk"]


def test_what_a_model_has_no_room_for_is_told(home, capsys):
    long, plain = "good klm " * 50, "dull"
    pd.DataFrame(dict(text=[long.strip(), plain])).to_csv("in.csv", index=False)
    for out in ("o.jsonl", "o.csv", "o.parquet"):
        main(["explain", "m", "--csv", "in.csv", "--out", out])
        assert "1 texts are longer than what the model reads" in capsys.readouterr().out
        first, second = table_rows(out)
        assert 200 < int(first["unread"]) < 449 and int(second["unread"]) == 0
    said = RationaleModel.from_pretrained("m").explain([long.strip(), plain])
    assert said[0].to_dict()["unread"] == int(first["unread"]) and "unread" not in said[1].to_dict()


@pytest.mark.parametrize("sent, says", [(b"a caf\xe9 that is dull", "standard input is not UTF-8"), ("\u200b\n".encode(), "standard input is empty"), (b"\xef\xbb\xbfgood\r\nklm", None)])
def test_a_text_from_standard_input_is_utf_8(home, monkeypatch, capsys, sent, says):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent), encoding="latin-1"))
    if says:
        with pytest.raises(SystemExit, match=says): main(["explain", "m", "--text-file", "-"])
    else:
        main(["explain", "m", "--text-file", "-", "--json"])
        assert json.loads(capsys.readouterr().out)["text"] == "good\nklm"


def test_ids_of_any_kind(home):
    "Whatever a table calls its rows is written as a number or a string."
    import datetime
    for values, told in (([1.5, float("nan")], ["1.5", "nan"]), ([datetime.date(2020, 1, 2), None], ["2020-01-02", None]), ([b"x", b"y"], ["b'x'", "b'y'"]), ([2**62, None], [2**62, None]), ([True, None], ["True", None])):
        pq.write_table(pa.table(dict(id=values, text=["good", "dull"])), "in.parquet")
        for out in ("o.jsonl", "o.parquet"):
            (home / out).unlink(missing_ok=True)
            main(["explain", "m", "--csv", "in.parquet", "--out", out])
            assert [r["id"] for r in table_rows(out)] == told
    (home / "in.jsonl").write_text('{"id": 1, "text": "good"}\n{"id": "x", "text": "dull"}\n{"text": "dull"}\n')
    main(["explain", "m", "--csv", "in.jsonl", "--out", "mixed.parquet"])
    assert [r["id"] for r in table_rows("mixed.parquet")] == ["1", "x", None]
    (home / "odd.jsonl").write_text('{"id": 18446744073709551615, "text": "good"}\n{"id": "\\ud83d\\n2", "text": "dull"}\n')
    for out in ("odd.parquet", "odd.csv"):
        main(["explain", "m", "--csv", "odd.jsonl", "--out", out])
        assert [r["id"] for r in table_rows(out)] == ["18446744073709551615", "\ufffd 2"]
    main(["explain", "m", "--csv", "odd.jsonl", "--out", "odd.csv", "--resume"])
    (home / "twice.csv").write_text("id,text,id\n1,good,2\n")
    with pytest.raises(SystemExit, match="more than one column 'id'"): main(["explain", "m", "--csv", "twice.csv"])


def test_standard_input(home, monkeypatch, capsys):
    for sent in ("id;text\n1;good klm\n2;dull kala\n", '{"text": "good klm"}\n{"text": "dull kala"}\n'):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent.encode())))
        main(["explain", "m", "--csv", "-", "--out", "-"])
        assert [json.loads(line)["row"] for line in capsys.readouterr().out.splitlines()] == [1, 2]
    (home / "o.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit, match="is there already: delete it, or name another"): main(["explain", "m", "--csv", "-", "--out", "o.jsonl"]) # what came once does not come again


def test_a_row_that_cannot_be_read_has_an_answer_too(home, capsys):
    some = pd.DataFrame(dict(text=["good klm", "", None, " ", "\u200b\x00", "dull"]))
    some.to_json("in.jsonl", orient="records", lines=True)
    main(["explain", "m", "--csv", "in.jsonl", "--out", "o.jsonl"])
    assert [(a["label"] is None, "error" in a) for a in lines("o.jsonl")] == [(x, x) for x in (False, True, True, True, True, False)]
    assert "4 rows cannot be read" in capsys.readouterr().out
    main(["explain", "m", "--csv", "in.jsonl", "--out", "o.csv"])
    main(["explain", "m", "--csv", "in.jsonl", "--out", "o.csv", "--resume"])


def test_pictures_by_their_path(home):
    tiny.make_model("vit").save_pretrained(home / "v")
    (home / "pictures").mkdir()
    for i, picture in enumerate(tiny.images(3, 0)): picture.save(home / "pictures" / f"{i}.png")
    (home / "in.csv").write_text("image\npictures/0.png\npictures/gone.png\npictures/2.png\n")
    main(["explain", "v", "--csv", "in.csv", "--out", "o.jsonl"])
    a, gone, b = lines("o.jsonl")
    assert "gone.png" in gone["error"] and a["kept"] == [list(f) for f, m in zip(*(lambda e: (e.features, e.mask))(tiny.make_model("vit").explain(tiny.images(3, 0)[0]))) if m] and b["label"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_run_cut_anywhere_goes_on_to_the_same_answers(home, ending, capsys):
    file, ask = write(home, ".csv", frame(40)), None
    ask = ["explain", "m", "--csv", file, "--text-column", "review", "--batch-size", "4", "--resume", "--out"]
    main([*ask, f"whole.{ending}"])
    main([*ask, "lines.jsonl"])
    held = open(f"whole.{ending}" if ending != "parquet" else "lines.jsonl", "rb").read()
    part = f"o.{ending}" + ".part" * (ending == "parquet")
    for cut in (0, 1, 30, 400, len(held) // 2, len(held) - 1, len(held)):
        for name in (part, f"o.{ending}"):
            if os.path.exists(name): os.remove(name)
        with open(part, "wb") as f: f.write(held[:cut])
        main([*ask, f"o.{ending}"])
        if ending == "parquet": assert list(table_rows("o.parquet")) == list(table_rows("whole.parquet"))
        else: assert open(f"o.{ending}", "rb").read() == held
    capsys.readouterr()
    main([*ask, f"o.{ending}"]) # nothing is left
    assert "nothing is left" in capsys.readouterr().out


def test_resume_refuses_what_is_not_its_own(home, capsys):
    file = write(home, ".csv", frame(20))
    tiny.make_model("bigru", seed=7).save_pretrained(home / "other")
    ask = ["--csv", file, "--text-column", "review", "--out", "o.jsonl"]
    main(["explain", "m", *ask])
    for command, says in ((["m", *ask], "is there already"), (["other", *ask, "--resume"], "20 answers of another model"), (["m", *ask, "--resume", "--sparsity", "0.9"], r"another sparsity \(then [0-9.]+, now 0.9\)"),
                          (["m", "--csv", write(home, ".tsv", frame(7)), "--text-column", "review", "--out", "o.jsonl", "--resume"], "20 answers of another table.*was changed"),
                          (["m", "--csv", file, "--text-column", "review", "--out", file], "is the table itself"), (["m", "--csv", file, "--text-column", "review", "--out", "o.xlsx"], "must end in"),
                          (["m", "--csv", file], "no column 'text'"), (["m", "--csv", "gone.csv"], "no file"), (["m", "--csv", file, "--text", "x"], "leave one out"),
                          (["m", "--text", "x", "--out", "o.jsonl"], "belongs to a table"), (["m", "--csv", file, "--resume"], "--resume needs"),
                          (["m", "--csv", file, "--text-column", "review", "--batch-size", "0"], "batch-size")):
        before = open("o.jsonl", "rb").read()
        with pytest.raises(SystemExit, match=says) as e: main(["explain", *command])
        assert "\n" not in str(e.value) and open("o.jsonl", "rb").read() == before
    capsys.readouterr()


@pytest.mark.parametrize("name, text", [("o.jsonl", '{"my": "notes"}'), ("o.jsonl", '{"my": 1}\n{"my": "last line"}'), ("o.csv", "my notes"), ("o.csv", "id,text\n1,a\nhalf")])
def test_resume_leaves_a_strangers_file_as_it_is(home, name, text):
    ask = ["explain", "m", "--csv", write(home, ".csv", frame(5)), "--text-column", "review", "--out", name, "--resume"]
    for told in (False, True): # with what made our answers beside it, too
        if told: main(ask)
        (home / name).write_text(text)
        with pytest.raises(SystemExit, match="line 1 is not what this command writes"): main(ask)
        assert (home / name).read_text() == text
        (home / name).unlink()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_resume_knows_what_made_the_answers(home, ending):
    "Another share, model, mask, or one text of the table; answers exchanged for others; no record of what made them."
    some = frame(12)
    out, told = home / f"o.{ending}", home / f"o.{ending}.made.json"
    ask = lambda model="m", *more: main(["explain", model, "--csv", write(home, ".csv", some), "--text-column", "review", "--out", str(out), "--resume", *more])
    ask()
    tiny.make_model("bigru", seed=7).save_pretrained(home / "other")
    held, record = out.read_bytes(), told.read_text()
    for command, says in ((["other"], "another model"), (["m", "--sparsity", "0.51"], "another sparsity"), (["m", "--mask", "deterministic"], "another mask")):
        with pytest.raises(SystemExit, match=says): ask(*command)
    some.loc[2, "review"] += " klm"
    with pytest.raises(SystemExit, match="another table"): ask()
    some = frame(12)
    for wrong, says in (("{", "is damaged"), ("[]", "another model"), (None, "is not there")):
        told.unlink() if wrong is None else told.write_text(wrong)
        with pytest.raises(SystemExit, match=says): ask()
    told.write_text(record)
    assert out.read_bytes() == held
    ask()
    out.unlink()
    main(["explain", "other", "--csv", str(home / "in.csv"), "--text-column", "review", "--out", str(out), "--sparsity", "0.9"])
    told.write_text(record)
    with pytest.raises(SystemExit, match="the last one is not what m says of row 12"): ask()


def test_the_column_that_the_model_reads(home, capsys):
    "Not a text beside the pictures; and no row that can be read is no success."
    tiny.make_model("vit").save_pretrained(home / "v")
    tiny.images(1, 0)[0].save(home / "0.png")
    (home / "in.csv").write_text("text,image\na caption,0.png\n")
    main(["explain", "v", "--csv", "in.csv"])
    assert json.loads(capsys.readouterr().out)["label"]
    (home / "in.csv").write_text("text,image\na caption,gone.png\n,gone.png\n")
    with pytest.raises(SystemExit, match="none of the 2 rows of in.csv can be read, the first because: .*gone.png"): main(["explain", "v", "--csv", "in.csv"])
    (home / "in.csv").write_text("image\n0.png\n")
    with pytest.raises(SystemExit, match="no column 'text'"): main(["explain", "m", "--csv", "in.csv"])
    capsys.readouterr()


def test_lines_of_every_kind_are_read_as_a_training_reads_them(home):
    "Bare carriage returns, blank lines before the header, a name or a key that is there twice, and a file that is not packed as it says."
    for text in ("text,id\rgood klm,1\rdull,2\r", "\n\ntext,id\ngood klm,1\ndull,2\n"):
        (home / "in.csv").write_bytes(text.encode())
        assert [r["text"] for r in table_rows("in.csv")] == read_table(home / "in.csv").table["text"].to_pylist() == ["good klm", "dull"]
    (home / "in.csv").write_text('\n\ntext,id\n"good\nklm",1\nbad, klm,2\n')
    for read in (lambda: list(table_rows("in.csv")), lambda: read_table(home / "in.csv")):
        with pytest.raises(DataError, match="line 6: 3 fields"): read()
    (home / "in.csv").write_text("text,text,id\na,b,1\n")
    with pytest.raises(DataError, match="in.csv has more than one column 'text'"): list(table_rows("in.csv"))
    (home / "in.jsonl").write_text('\n{"text": "a", "text": "b"}\n')
    for read in (lambda: list(table_rows("in.jsonl")), lambda: read_table(home / "in.jsonl")):
        with pytest.raises(DataError, match="in.jsonl, line 2 is not JSON: the key 'text' is there twice"): read()
    for name in ("x.csv.xz", "x.csv.gz", "x.csv.bz2", "x.csv.zst", "x.jsonl.xz"):
        (home / name).write_bytes(b"text\nabc\n")
        with pytest.raises(DataError, match=f"{name} cannot be read as {name.split('.')[2]}"): list(table_rows(name))


def test_damage_is_found_before_the_work(home):
    (home / "in.csv").write_text("text,n\n" + "good klm,1\n" * 50 + "broken\n")
    with pytest.raises(SystemExit, match="line 52: 1 fields"): main(["explain", "m", "--csv", "in.csv", "--out", "o.jsonl"])
    assert not os.path.exists("o.jsonl")


def test_a_killed_process_goes_on(home):
    "Kill -9 in the middle of three thousand rows; what is there stays, and the answers are those of a run that was left alone."
    some = frame(3000)
    file = write(home, ".csv", some)
    ask = [sys.executable, "-m", "rekd.cli", "explain", "m", "--csv", file, "--text-column", "review", "--out"]
    out = home / "o.jsonl"
    run = subprocess.Popen([*ask, str(out)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and run.poll() is None and (not out.exists() or out.stat().st_size < 5000): time.sleep(0.01)
    run.send_signal(signal.SIGKILL); run.wait()
    there = out.read_bytes()
    main(["explain", "m", "--csv", file, "--text-column", "review", "--out", str(out), "--resume"])
    main(["explain", "m", "--csv", file, "--text-column", "review", "--out", str(home / "alone.jsonl")])
    assert there and out.read_bytes() == (home / "alone.jsonl").read_bytes() and out.read_bytes().startswith(there[:there.rfind(b"\n") + 1])
    assert len(lines(out)) == 3000


def test_no_more_rows_are_held_than_a_window(home, monkeypatch):
    "Some thousand rows through the GRU: of those that were read, never more than a window and what is written at once is not yet on disk."
    (home / "in.csv").write_text("text\n" + "\n".join(texts(2000)[0]) + "\n")
    taken, most = 0, 0
    def watched(*named, values=rekd.stream.row_cells):
        nonlocal taken
        taken = 0
        for v in values(*named): taken += 1; yield v
    def written(answers, *args, write=rekd.stream.write_answers):
        nonlocal most
        for a in write(answers, *args): most = max(most, taken - a["row"]); yield a
    monkeypatch.setattr(rekd.stream, "row_cells", watched)
    monkeypatch.setattr(rekd.stream, "write_answers", written)
    main(["explain", "m", "--csv", "in.csv", "--out", "o.jsonl", "--batch-size", "8"])
    assert len(lines("o.jsonl")) == 2000 and 0 < most <= 8 * 16 + 64


def test_an_argument_without_effect_is_refused(text_model):
    for mask, said in dict(none="no effect where all features are read", deterministic="no effect on the deterministic mask", sampled="no effect on the sampled mask").items():
        with pytest.raises(SettingError, match=said): text_model.predict_proba(["a film"], mask=mask, sparsity=0.2)
    with pytest.raises(SettingError, match="no effect on the sampled mask"): text_model.explain("a film", mask="sampled", sparsity=0.2)
    for ask in (text_model, text_model.explain, text_model.predict_proba, text_model.explain_each):
        for x in ("a film", ["a film"]):
            with pytest.raises(SettingError, match="names a column of a table"): ask(x, text_column="review")
    assert np.allclose(text_model.predict_proba(["good"], sparsity=0.5).sum(), 1)
