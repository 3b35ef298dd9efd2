"Faults of reading data, by kind: what is wrong in silence, or said of the wrong thing."
import bz2
import gzip
import io
import json
import logging
import lzma
import os

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import tiny
from PIL import Image

from rekd.processor import ImageProcessor
from rekd.cli import main
from rekd.rows import data_folder, load_rows, read_data, whole_path
from rekd.data import load_data, load_test
from rekd.table import name_labels, read_table
from rekd.errors import DataError, MissingError, SettingError, WriteError
from rekd.documents import human_words
from test_presets import home, world  # noqa: F401 (fixtures)

ODD = ["007", "02999", "1e5", "None", "NA", "nan", "null", "True", "1.0", "-0", "2020-01-01", "  two  blanks ", 'a "quoted" word', "two\nlines", "a,b;c"]


def csv_text(texts, labels, sep=",", head=("text", "label")):
    quote = lambda v: '"' + v.replace('"', '""') + '"' if any(c in v for c in f'{sep}"\n') else v
    return "\n".join([sep.join(head)] + [sep.join(map(quote, row)) for row in zip(texts, labels)]) + "\n"


def put(folder, **files):
    "A folder of text files: `train='...'` is train.csv, `train_jsonl` is train.jsonl."
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        stem, _, ending = name.partition("_")
        (folder / f"{stem}.{(ending or 'csv').replace('_', '.')}").write_text(text, encoding="utf-8", newline="")
    return str(folder)


def toy(folder, n=20, labels=("down", "up"), head=("text", "label")):
    "A text and a class in turn; no row of test stands in train."
    part = lambda name, n: csv_text([f"{'good' if i % 2 else 'bad'} ka {name} {'le ' * i}" for i in range(n)], [labels[i % len(labels)] for i in range(n)], head=head)
    return put(folder, train=part("mi", n), test=part("no", n // 2))


def png(seed=0, kind="PNG", size=16):
    tiny.images(1, seed, size)[0].save(out := io.BytesIO(), kind)
    return out.getvalue()


# --- 1: values are the strings that stand there ---

@pytest.mark.parametrize("ending, sep, bom", [("csv", ",", ""), ("csv", ";", "\ufeff"), ("tsv", "\t", ""), ("csv", "\t", "")])
def test_a_value_of_a_text_file_is_the_string_that_stands_there(tmp_path, ending, sep, bom):
    labels = ["01", "1", "True", "False", "TRUE", "1.0", "None", "NA", "nan", "null", "1e5", "-1", "2020-01-01", "Unknown", "0"]
    folder = put(tmp_path / "d", **{f"{part}_{ending}": bom + csv_text(ODD, labels, sep, (" text ", "label ")) for part in ("train", "test")})
    rows, names = load_rows(folder)
    assert rows["train"]["input"][:] == ODD and set(names) == set(labels) and len(names) == len(labels)
    assert [names[y] for y in rows["test"]["label"]] == labels


def test_classes_do_not_depend_on_where_a_word_stands(tmp_path):
    "A word among truth values, only at the start of a long file; another part without it."
    def part(name, n, words): return csv_text([f"{name} {i}" for i in range(n)], [words[i % len(words)] if i < n // 10 else words[i % 3] for i in range(n)])
    folder = put(tmp_path / "d", train=part("ka", 24_000, ["True", "False", "01", "Unknown"]), test=part("le", 60, ["True", "False", "True"]))
    rows, names = load_rows(folder)
    assert names == ["01", "False", "True", "Unknown"] and set(rows["test"]["label"]) == {1, 2}


def test_json_lines_keep_their_types(tmp_path):
    lines = "\n".join(json.dumps(r) for r in [dict(text="007", label="01"), dict(text="2020-01-01", label=1), dict(text="x\ud83d\u2028y", label=True), dict(text="ka", label=1.0)])
    rows, names = load_rows(put(tmp_path / "d", train_jsonl=lines, test_ndjson=lines))
    assert rows["train"]["input"][:] == ["007", "2020-01-01", "x\ufffd\u2028y", "ka"] and set(names) == {"01", "1", "True"} # 1.0 is the number 1
    whole = json.dumps([dict(text="a", label=1), dict(text="b", label=2)])
    assert load_rows(put(tmp_path / "e", train_json=whole, test_json=whole))[1] == ["1", "2"]
    with pytest.raises(DataError, match="texts of train must be strings, got int64"): load_rows(put(tmp_path / "f", train_jsonl='{"text": 7, "label": 1}\n{"text": 8, "label": 0}', test=csv_text(["a"], ["1"])))


def test_truth_values_have_one_name_in_all_kinds_of_files(tmp_path):
    folder = put(tmp_path / "d", test=csv_text(["a", "b"], ["True", "False"]), val_jsonl='{"text": "c", "label": true}')
    pq.write_table(pa.table(dict(text=["d", "e"], label=[False, True])), tmp_path / "d" / "train.parquet")
    rows, names = load_rows(folder)
    assert names == ["False", "True"] and [rows[p]["label"][:] for p in ("train", "val", "test")] == [[0, 1], [1], [1, 0]]


@pytest.mark.parametrize("line", ['{"text": ["a"], "label": "x"}', '{"text": "a", "label": {"x": 1}}', '{"text": "a", "label": 0.5}', '{"text": "a"}', '["a", "x"]', '{"text": "a", "label": NaN}'])
def test_json_that_holds_no_text_or_label_is_refused(tmp_path, line):
    with pytest.raises(DataError, match="train.jsonl"): load_rows(put(tmp_path / "d", train_jsonl='{"text": "b", "label": 1}\n' + line, test=csv_text(["a"], ["1"])))


@pytest.mark.parametrize("text, said", [
    ('text,label\n"open,1\nka,0\n', "line 2: unexpected end of data"),
    ('text,label\nka,1\nle,1,0\n', "line 3: 3 fields, the header has 2"),
    ('text,label\nka\n', "line 2: 1 fields"),
    ('text|label\nka|1\n', r"its columns are \['text|label'\]"),
    ('text,text,label\nka,le,1\nla,lo,0\n', "more than one column"),
    ("", "no rows"), ("text,label\n", "no rows"), ("\n\n", "no rows")])
def test_what_is_no_table_is_refused_by_its_line(tmp_path, text, said):
    with pytest.raises(DataError, match=said) as e: load_rows(put(tmp_path / "d", train=text, test=csv_text(["a"], ["1"])))
    assert "train.csv" in str(e.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_another_encoding_is_named_with_its_file(tmp_path, encoding):
    folder = toy(tmp_path / "d")
    (tmp_path / "d" / "test.csv").write_bytes(csv_text(["plain", "caf\xe9"], ["up", "down"]).encode(encoding))
    with pytest.raises(DataError, match=r"test.csv is not UTF-8 text \(byte 0x.. in line \d\): save it as UTF-8"): load_rows(folder)


# --- 2: names win over positions ---

@pytest.mark.parametrize("names, labels, meant, places", [
    (["True", "False"], ["True", "False"], ["True", "False"], False),
    (["1", "2", "3", "4", "5"], ["1", "2", "3", "4"], ["1", "2", "3", "4"], False),
    (["1", "2", "3", "4", "5"], ["5", "1"], ["5", "1"], False),
    (["1", "0"], ["0", "1"], ["0", "1"], False),
    (["no", "yes"], ["1", "0"], ["yes", "no"], True),
    (["10", "20"], ["0", "1"], ["10", "20"], True),
    (["caf\u00e9", "bar"], [" cafe\u0301", "bar "], ["caf\u00e9", "bar"], False)])
def test_a_label_that_is_a_name_is_that_class(tmp_path, names, labels, meant, places):
    folder = put(tmp_path / "d", train=csv_text([f"ka {i}" for i in range(len(labels))], labels), test=csv_text(["le"], labels[:1]))
    (tmp_path / "d" / "label_names.json").write_text(json.dumps(names))
    rows = read_data(folder)
    assert [rows.labels[y] for y in rows.parts["train"]["label"]] == meant and bool(rows.notes) == places
    if places: assert "labels are positions: 0 is" in rows.notes[0]
    assert rows.parts["test"]["label"][0] == names.index(meant[0])


@pytest.mark.parametrize("names", [["a", "b", "a "], ["a", ""], ["a", 1], ["caf\u00e9", "cafe\u0301"], []])
def test_names_that_are_no_names_are_refused(tmp_path, names):
    folder = toy(tmp_path / "d")
    (tmp_path / "d" / "label_names.json").write_text(json.dumps(names))
    with pytest.raises(DataError, match="label_names.json must hold a list of class names"): load_rows(folder)


@pytest.mark.parametrize("labels", [["0", "yes"], ["00", "01"], ["0", "1", "2"], ["-1", "1"], ["0.0", "1.0"]])
def test_what_is_neither_a_name_nor_a_position_is_refused(labels):
    with pytest.raises(DataError, match="unknown label"): name_labels(dict(train=labels), ["no", "yes"])


def test_positions_are_for_all_parts_or_none():
    "A test part with the label 0 alone is no first class where train's labels are names."
    with pytest.raises(DataError, match="test, row 2: unknown label '0'"): name_labels(dict(train=["1", "2", "3"], test=["2", "0"]), ["1", "2", "3"])


def test_a_class_label_is_read_by_its_names_whatever_their_order(tmp_path):
    for part, names, ys in (("train", ["a", "b", "c"], [0, 1, 2]), ("test", ["c", "a"], [0, 1])):
        features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=names))
        datasets.Dataset.from_dict(dict(text=[f"{part} {y}" for y in ys], label=ys), features=features).to_parquet(tmp_path / f"{part}.parquet")
    assert load_rows(str(tmp_path))[0]["test"]["label"][:] == [2, 0]
    features["label"] = datasets.ClassLabel(names=["a", "b"])
    datasets.Dataset.from_dict(dict(text=["x", "y"], label=[1, -1]), features=features).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(DataError, match="1 rows have no label, the first is .*test.parquet, row 2"): load_rows(str(tmp_path)) # -1 means none


# --- 3: a name that means two things ---

def test_a_name_that_means_two_things_is_refused(home, tmp_path, monkeypatch): # noqa: F811
    toy(tmp_path / "imdb")
    toy(tmp_path / "copies" / "mine")
    toy(tmp_path / "mine")
    for name in ("imdb", "mine"):
        monkeypatch.setenv("REKD_DATA", str(tmp_path / "copies"))
        with pytest.raises(SettingError, match=rf"'{name}' is a data set, and a folder here: name the folder as ./{name}, the data set as hub:{name}"): load_rows(name)
        assert load_rows(f"./{name}")[1] == load_rows(str(tmp_path / name))[1] == ["down", "up"]
    for words in (["train", "demo", "--set", "dataset=imdb"], ["study", "demo", "--dry-run", "--set", "dataset=imdb"]):
        with pytest.raises(SystemExit, match="./imdb"): main(words)
    tiny.make_model().save_pretrained(tmp_path / "m")
    with pytest.raises(SystemExit, match="./imdb"): main(["evaluate", str(tmp_path / "m"), "--dataset", "imdb"])
    assert data_folder("hub:mine") == tmp_path / "copies" / "mine" and data_folder("hub:imdb") is None
    monkeypatch.chdir(tmp_path / "copies") # the folder here is the data set's own
    assert load_rows("mine")[1] == ["down", "up"]


# --- 5 and 6: what is cached and remembered goes by content ---

def test_new_rows_in_an_old_file_are_read(tmp_path):
    "The same path, size and time stamp."
    folder = toy(tmp_path / "d", 40)
    before = load_data(folder, tiny.text_processor(), val_share=0.5)
    for part in ("train", "test"):
        file = tmp_path / "d" / f"{part}.csv"
        stamp, size = file.stat(), file.stat().st_size
        file.write_text(file.read_text().replace("bad", "dul").replace("down", "away"))
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert file.stat().st_size == size and file.stat().st_mtime_ns == stamp.st_mtime_ns
    after = load_data(folder, tiny.text_processor(), val_share=0.5)
    assert after.labels == ["away", "up"] and "dul" in "".join(after.train.rows["input"]) and after.test.fingerprint() != before.test.fingerprint()
    assert after.rows.record()["parts"]["test"]["content"] != before.rows.record()["parts"]["test"]["content"]


def test_another_tokenizer_of_the_same_name_tokenizes_anew(tmp_path):
    from transformers import BertTokenizerFast
    from rekd.processor import TextProcessor
    swapped = {w: i for i, w in enumerate([*tiny.SPECIAL, *tiny.VOCAB[:len(tiny.SPECIAL) - 1:-1]])}
    for vocab in ({w: i for i, w in enumerate(tiny.VOCAB)}, swapped):
        data = load_data(toy(tmp_path / "d"), TextProcessor(BertTokenizerFast(vocab=vocab, do_lower_case=True), 40), val_share=0.5)
        i = next(i for i, t in enumerate(data.test.rows["input"]) if "good" in t)
        assert vocab["good"] in data.test[i]["row"]["input_ids"]


def tried(home, dataset, objective="cls", *more): # noqa: F811
    main(["train", "demo", "--objective", objective, "--set", f"dataset={dataset}", "epochs=1", "precision=no", "val_share=0.5", "max_length=16", *more])
    folder = home / "runs" / "demo" / f"{objective}-paper-2025"
    return folder, json.loads((folder / "row.json").read_text())


def accuracy(folder, *more):
    main(["evaluate", str(folder / "model"), "--json", "e.json", *more])
    with open("e.json") as f: return json.load(f)[0]["accuracy"]


def test_a_run_remembers_its_data(home, tmp_path, monkeypatch, capsys): # noqa: F811
    "Measured from another folder with another `toy`; with changed data; without them."
    toy(tmp_path / "toy", 24)
    folder, row = tried(home, "toy")
    assert row["config"]["data"]["name"] == row["source"]["name"] == str(tmp_path / "toy") and set(row["source"]["parts"]) == {"train", "test"}
    toy(tmp_path / "else" / "toy", 60, ("up", "down"))
    monkeypatch.chdir(tmp_path / "else")
    capsys.readouterr()
    assert accuracy(folder) == row["masks"]["none"]["accuracy"]
    said = capsys.readouterr()
    assert f"data: {tmp_path / 'toy'}; 12 test rows" in said.err and "not what the run was" not in said.err and "data:" not in said.out
    file = tmp_path / "toy" / "test.csv"
    file.write_text(file.read_text().replace("no", "lo"))
    accuracy(folder)
    assert f"{tmp_path / 'toy'}: the test part is not what the run was measured on" in capsys.readouterr().err
    (tmp_path / "toy").rename(tmp_path / "moved")
    with pytest.raises(SystemExit, match=r"toy, which is not there any more: .*--dataset"): accuracy(folder)
    del row["source"] # a row of an older version
    was = row["config"]
    (folder / "row.json").write_text(json.dumps(row | dict(config=was["model"] | dict(dataset="moved", starter=False, n_train=None, n_test=None, train=was["train"]))))
    monkeypatch.chdir(tmp_path)
    assert 0 <= accuracy(folder) <= 1


def test_a_row_of_a_named_data_set_holds_no_path(home, tmp_path): # noqa: F811
    _, row = tried(home, "imdb", "cls", "starter=false")
    assert row["source"]["name"] == "imdb" and str(home)[:5] not in json.dumps(dict(source=row["source"], dataset=row["config"]["data"]["name"]))


def test_four_classes_from_training_to_explanation(home, tmp_path, capsys): # noqa: F811
    "Labels that look like truth values and numbers are the same classes for every command."
    labels = ["True", "False", "01", "Unknown"]
    part = lambda n: csv_text([f"the {w} film {'the ' * (i // 4)}" for i in range(n) for w in [["good", "bad", "dull", "fine"][i % 4]]], [labels[i % 4] for i in range(n)])
    put(tmp_path / "mine", train=part(48), test=part(16))
    folder, row = tried(home, tmp_path / "mine", "re")
    main(["evaluate", str(folder / "model"), "--masks", "topk", "--json", "e.json"])
    measured, = json.loads((tmp_path / "e.json").read_text())
    assert measured["accuracy"] == row["masks"]["topk"]["accuracy"] and measured["ce"] == row["masks"]["topk"]["ce"]
    capsys.readouterr()
    main(["explain", str(folder / "model"), "--text", "a good film", "--json"])
    assert set(json.loads(capsys.readouterr().out)["probabilities"]) == set(labels)


# --- 7: labels that look alike ---

def test_labels_that_look_alike(tmp_path, caplog):
    words = ["pos", " pos", "pos\u00a0", "\tpos", "Pos", "caf\u00e9", "cafe\u0301"]
    folder = put(tmp_path / "d", train=csv_text([f"ka {i}" for i in range(len(words))], words), test=csv_text(["le"], ["pos  "]))
    rows, names = load_rows(folder)
    assert names == ["Pos", "caf\u00e9", "pos"] and rows["test"]["label"][:] == [2]
    assert "labels that look alike are kept apart: 'Pos', 'pos'" in caplog.text


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_blank_label_is_a_missing_one(tmp_path, ending):
    made = csv_text(["a", "b", "c", "d"], ["x", " ", "y", ""]) if ending == "csv" else "\n\n".join(json.dumps(dict(text=t, **y)) for t, y in zip("abcd", [dict(label="x"), dict(label=" "), dict(label="y"), {}]))
    with pytest.raises(DataError, match=rf"2 rows have no label, the first is .*train.{ending}, line 3"): load_rows(put(tmp_path / "d", **{f"train_{ending}": made}, test=csv_text(["a"], ["x"])))


# --- 20: rows are named before training ---

@pytest.mark.parametrize("made, said", [
    ("text,label\nka,a\n\n\"two\nlines\",b\n,a\nle,b\n", "1 rows of train have an empty text, the first is .*train.csv, line 6"),
    ("text,label\n" + "ka,a\nle,b\n" * 50 + "  ,a\n", "the first is .*train.csv, line 102"),
    ("text,label\nka,a\nle,b\n\u200b,a\nlo,b\nmi,a\nna,b\nnu,a\nko,b\n", "1 rows of train have an empty text, the first is .*train.csv, line 4")])
def test_a_row_without_a_text_is_named_by_its_line(tmp_path, made, said):
    with pytest.raises(DataError, match=said): load_data(put(tmp_path / "d", train=made, test=csv_text(["x"], ["a"])), tiny.text_processor(), val_share=0.5)


@pytest.mark.parametrize("content", [b"", b"junk", png()[:120], png(kind="JPEG", size=64)[:-200], png(kind="GIF")[:60]])
def test_a_damaged_picture_is_found_when_it_is_read(tmp_path, content):
    for i in range(12): (tmp_path / f"{i}.png").write_bytes(content if i == 2 else png(i))
    for part in ("train", "test"): put(tmp_path, **{part: csv_text([f"{i}.png" for i in range(12)], ["ab"[i % 2] for i in range(12)], head=("image", "label"))})
    with pytest.raises(DataError, match=r"1 of 12 images of train cannot be used, the first is .*train.csv, line 4 \(.*2.png\)"): load_rows(str(tmp_path))
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 12 image files of train are not there, the first is .*2.png \(.*line 4\)"): load_rows(str(tmp_path))


def test_a_class_that_train_lacks_is_named_by_file_and_row(tmp_path):
    folder = put(tmp_path / "d", train=csv_text(["a", "b", "c"], ["x", "y", "z"]), test=csv_text(["d", "e"], ["x", "w"]))
    with pytest.raises(DataError, match="test.csv, line 3: unknown label 'w'; the 3 classes are x, y, z"): load_rows(folder)
    put(tmp_path / "d", test=csv_text(["d", "e"], ["x", "y"])) # a class that only train has
    assert load_rows(folder)[1] == ["x", "y", "z"]


# --- 21: a column `evidence` of one's own ---

def test_evidence_that_is_not_erasers_is_ignored(tmp_path, home): # noqa: F811
    put(tmp_path / "a", **{p: csv_text(["ka le", "lo mi"], ["x", "y"]).replace("label\n", "label,evidence\n").replace("x\n", "x,because\n").replace("y\n", "y,\n") for p in ("train", "test")})
    assert human_words(read_data(str(tmp_path / "a"), evidence=True).parts["test"]) is None
    for k, evidence in enumerate((["a", "b"], [[1, 2], []], [[dict(start=1)], []], [7, None], [[dict(start_token="1", end_token="2")], []])):
        (tmp_path / f"{k}").mkdir()
        for part in ("train", "test"): pq.write_table(pa.table(dict(text=["ka le", "lo mi"], label=["x", "y"], evidence=evidence)), tmp_path / f"{k}" / f"{part}.parquet")
        assert human_words(read_data(str(tmp_path / f"{k}"), evidence=True).parts["test"]) is None


@pytest.mark.parametrize("labels", [["x", "y"], ["NEG", "POS"]])
def test_evidence_in_erasers_form_comes_with_the_classes_of_the_data(tmp_path, labels):
    spans = [[dict(start_token=1, end_token=2)], None]
    pq.write_table(pa.table(dict(text=["ka le mi", "lo mi"], label=labels, evidence=spans)), tmp_path / "test.parquet")
    rows = read_data(str(tmp_path / "test.parquet"), parts=("test",), evidence=True)
    assert rows.labels == labels and [m.tolist() for m in human_words(rows.parts["test"])] == [[0, 1, 0], [0, 0]]
    pq.write_table(pa.table(dict(text=["ka", "lo mi"], label=labels, evidence=spans)), tmp_path / "test.parquet")
    rows = read_data(str(tmp_path), parts=("test",), evidence=True)
    with pytest.raises(DataError, match="test.parquet, row 1: evidence .* is not a span"): human_words(rows.parts["test"], rows.where["test"])


# --- 22: a cache that cannot be written ---

@pytest.mark.parametrize("where", ["file/cache", "file"])
def test_a_cache_that_cannot_be_written_is_named_and_not_the_data(tmp_path, monkeypatch, caplog, where):
    "The tokens are made without it, and the log says which cache that was."
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / where))
    data = load_data(toy(tmp_path / "d"), tiny.text_processor(), val_share=0.5)
    assert len(data.train) == 10 and "HF_HOME" in caplog.text and str(tmp_path / where) in caplog.text and ".csv" not in caplog.text


@pytest.mark.parametrize("e", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device"), OSError("Not enough disk space. Needed: 1 GB"), ConnectionError("no network")])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_data_set_of_the_hub_that_cannot_be_kept(monkeypatch, e, wrapped):
    def fails(source):
        if not wrapped: raise e
        raise datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset") from e
    monkeypatch.setattr(datasets, "load_dataset", fails)
    if isinstance(e, ConnectionError): kind, said = MissingError, "did not come from the hub"
    else: kind, said = WriteError, f"imdb cannot be kept in .*datasets .*{e.strerror or 'disk space'}.*HF_HOME"
    with pytest.raises(kind, match=said): load_rows("imdb")


def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    before = load_data(toy(tmp_path / "d"), tiny.text_processor(), val_share=0.5).train.fingerprint()
    kept = list((tmp_path / "cache" / "rekd").glob("*.arrow"))
    assert len(kept) == 3
    for f in kept: f.write_bytes(b"junk")
    assert load_data(toy(tmp_path / "d"), tiny.text_processor(), val_share=0.5).train.fingerprint() == before


# --- 29: kinds of files, folders of pictures, one file ---

def zst(raw): return pa.compress(raw, codec="zstd", asbytes=True)


@pytest.mark.parametrize("ending, pack", [("csv", bytes), ("csv.gz", gzip.compress), ("tsv.bz2", bz2.compress), ("jsonl.xz", lzma.compress), ("CSV.GZ", gzip.compress), ("csv.zst", None), ("parquet", None), ("arrow", None), ("stream.arrow", None), ("feather", None)])
def test_kinds_of_files(tmp_path, ending, pack, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "d").mkdir()
    texts, labels = [f"ka {i}" for i in range(6)], ["a", "b"] * 3
    table, kind = pa.table(dict(text=texts, label=labels)), ending.lower().split(".")[0]
    for part in ("train", "test"):
        file = tmp_path / "d" / f"{part}.{ending.removeprefix('stream.')}"
        if ending == "parquet": pq.write_table(table, file)
        elif ending == "arrow":
            with pa.ipc.new_file(file, table.schema) as out: out.write_table(table)
        elif ending == "stream.arrow":
            with pa.ipc.new_stream(file, table.schema) as out: out.write_table(table)
        elif ending == "feather": pyarrow.feather.write_feather(table, file)
        else:
            raw = ("\n".join(json.dumps(r) for r in table.to_pylist()) if kind == "jsonl" else csv_text(texts, labels, "\t" if kind == "tsv" else ",")).encode()
            if pack: file.write_bytes(pack(raw))
            else:
                with pa.CompressedOutputStream(str(file), "zstd") as out: out.write(raw)
    rows, names = load_rows("~/d")
    assert names == ["a", "b"] and rows["test"]["input"][:] == texts and whole_path("~/d") == str(tmp_path / "d")


def test_two_files_that_could_be_one_part_are_refused(tmp_path):
    folder = toy(tmp_path / "d")
    for other, name in (("train_tsv", "train.tsv"), ("val", ""), ("valid", "val.csv and valid.csv")):
        put(tmp_path / "d", **{other: csv_text(["a", "b"], ["up", "down"])})
        if name: pytest.raises(DataError, load_rows, folder).match(name)
        (tmp_path / "d" / "train.tsv").unlink(missing_ok=True)
    (tmp_path / "d" / "val.csv").unlink()
    assert len(load_rows(folder)[0]["val"]) == 2 # by its other name


def test_a_folder_of_classes(home, tmp_path, caplog): # noqa: F811
    for part, n in (("train", 4), ("test", 2)):
        for k, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / part / name / "more").mkdir(parents=True)
            for i in range(n): Image.fromarray(np.full((16, 16, 3), 10 * i + 100 * k + (part == "test"), dtype=np.uint8)).save(tmp_path / "pets" / part / name / ("more" if i % 2 else "") / f"{i}.png")
    (tmp_path / "pets" / "train" / "cat" / ".DS_Store").write_text("")
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("")
    rows, names = load_rows(str(tmp_path / "pets"))
    assert names == ["cat", "dog"] and len(rows["train"]) == 8 and [names[y] for y in rows["test"]["label"]] == ["cat"] * 2 + ["dog"] * 2 and "notes.txt" in caplog.text
    assert rows["train"][7]["input"].getpixel((0, 0))[0] == 130 and rows["train"].column_names == ["input", "label"]
    main(["train", "cpu-cifar10", "--objective", "cls", "--set", f"dataset={tmp_path / 'pets'}", "epochs=1", "val_share=0.5", "precision=no", "batch_size=4"])
    folder = home / "runs" / "cpu-cifar10" / "cls-paper-2025"
    assert accuracy(folder) == json.loads((folder / "row.json").read_text())["masks"]["none"]["accuracy"]
    alone, names = load_test(str(tmp_path / "pets" / "test"), ImageProcessor(16, 4), labels=["bird", "dog", "cat"])
    assert [names[y] for y in alone.labels] == ["cat"] * 2 + ["dog"] * 2
    (tmp_path / "pets" / "train" / "dog" / "0.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"picture \d \(.*dog/0.png\)"): load_rows(str(tmp_path / "pets"))


def test_one_file(tmp_path):
    toy(tmp_path / "d", 40)
    whole, named = load_rows(str(tmp_path / "d")), load_rows(str(tmp_path / "d" / "train.csv"))
    assert named[0]["test"]["input"][:] == whole[0]["test"]["input"][:]
    alone = put(tmp_path / "e", reviews=(tmp_path / "d" / "train.csv").read_text()) + "/reviews.csv"
    data = load_data(alone, tiny.text_processor())
    assert [len(p) for p in (data.train, data.val, data.test)] == [25, 7, 8] and "a fifth of the file is the test part" in data.account()
    assert not {*data.test.rows["input"]} & {*data.train.rows["input"], *data.val.rows["input"]}
    left, _ = load_test(alone, tiny.text_processor(), labels=data.labels, split=True)
    assert left.rows["input"][:] == data.test.rows["input"][:] and len(load_test(alone, tiny.text_processor(), labels=data.labels)[0]) == 40
    with pytest.raises(MissingError, match="test.parquet is missing"): load_rows(put(tmp_path / "f", train=csv_text(["a", "b"], ["x", "y"])))
    with pytest.raises(DataError, match="notes.txt is no table"): (tmp_path / "notes.txt").write_text("x") and load_rows(str(tmp_path / "notes.txt"))
    with pytest.raises(MissingError, match="no folder or file 'gone/train.csv'"): load_rows("gone/train.csv")


def test_a_run_on_one_file_is_measured_on_what_it_left_out(home, tmp_path): # noqa: F811
    part = csv_text([f"the {'good' if i % 2 else 'bad'} film {'the ' * i}" for i in range(40)], ["up" if i % 2 else "down" for i in range(40)])
    folder, row = tried(home, put(tmp_path / "e", mine=part) + "/mine.csv")
    assert row["n_test"] == 8 and row["source"]["split"] and accuracy(folder) == row["masks"]["none"]["accuracy"]


def test_a_file_that_stands_for_its_folder_does_so_later_too(home, tmp_path): # noqa: F811
    toy(tmp_path / "d", 24)
    folder, row = tried(home, tmp_path / "d" / "train.csv")
    assert row["n_test"] == 12 and row["source"]["name"] == str(tmp_path / "d") and accuracy(folder) == row["masks"]["none"]["accuracy"]
    (tmp_path / "d" / "train.csv").unlink() # which is not read
    assert accuracy(folder) == row["masks"]["none"]["accuracy"]


def test_a_folder_of_other_things_is_no_folder_of_classes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "1.png").write_bytes(png())
    assert load_rows(str(tmp_path / "d"), parts=("test",))[1] == ["a", "b"]
    (tmp_path / "d" / "README.md").write_text("")
    assert load_rows(str(tmp_path / "d"), parts=("test",))[1] == ["a", "b"]
    (tmp_path / "d" / "code").mkdir()
    with pytest.raises(MissingError, match="this one has README.md, a, b, code"): load_rows(str(tmp_path / "d"), parts=("test",))


def test_columns_of_other_names(home, tmp_path): # noqa: F811
    toy(tmp_path / "d", head=("review", "stars"))
    with pytest.raises(DataError, match=r"train has no column 'text' or 'image'; its columns are \['review', 'stars'\]; --text-column"): load_rows(str(tmp_path / "d"))
    main(["train", "demo", "--objective", "cls", "--text-column", "review", "--label-column", "stars", "--set", f"dataset={tmp_path / 'd'}", "epochs=1", "precision=no", "val_share=0.5"])
    folder = home / "runs" / "demo" / "cls-paper-2025"
    assert accuracy(folder) == accuracy(folder, "--dataset", str(tmp_path / "d" / "test.csv"), "--text-column", "review", "--label-column", "stars")
    with pytest.raises(SettingError, match="both in the column"): load_rows(str(tmp_path / "d"), text_column="review", label_column="review")
    (tmp_path / "p.png").write_bytes(png())
    rows, _ = load_rows(put(tmp_path, shots=csv_text(["p.png"] * 4, ["a", "b"] * 2, head=("photo", "label"))) + "/shots.csv", text_column="photo", parts=("test",))
    assert rows["test"][0]["input"].size == (16, 16)


def test_measuring_reads_the_test_part_alone(tmp_path, capsys):
    tiny.make_model().save_pretrained(tmp_path / "model") # negative, positive
    put(tmp_path / "d", test=csv_text(["good ka", "superb le"], ["positive", "positive"]), train="damaged")
    main(["evaluate", "model", "--dataset", "d"])
    assert "classes of test: positive 2" in capsys.readouterr().err
    put(tmp_path / "d", test=csv_text(["good ka", "bad le"], ["1", "0"]))
    main(["evaluate", "model", "--dataset", "d/test.csv"])
    assert "labels are positions: 0 is negative, 1 is positive" in capsys.readouterr().err
    put(tmp_path / "d", test=csv_text(["good ka", "bad le"], ["positive", "Negative"]))
    with pytest.raises(SystemExit, match="test.csv, line 3: unknown label 'Negative'.*did you mean 'negative'"): main(["evaluate", "model", "--dataset", "d"])


# --- what was read is said ---

def test_the_account_says_what_was_read(tmp_path, caplog):
    folder = toy(tmp_path / "d", 40)
    with caplog.at_level(logging.INFO, "rekd.data"): data = load_data(folder, tiny.text_processor(max_length=16), n_train=20, n_test=10)
    said = data.account()
    assert said in caplog.text and "\n" not in said
    texts = [t for p in (data.train, data.val, data.test) for t in p.rows["input"]]
    assert said == f"data: {folder}; 16 train (of 40), 4 val, 10 test (of 20) rows; classes of train: down 8, up 8; {sum(len(t.split()) > 14 for t in texts)} of 30 texts cut at 16 tokens"
    assert tiny.text_data().account().startswith("data: rows in memory; 24 train, 8 val, 8 test rows")


def test_rows_of_train_in_test_are_counted(tmp_path, caplog):
    load_rows(put(tmp_path / "a", train=csv_text(["ka  le", "lo"], ["x", "y"]), test=csv_text([" ka le", "lo", "new", "lo "], ["x", "y", "x", "y"])))
    assert "3 of 4 test rows stand in train or val too" in caplog.text
    caplog.clear()
    for part, seeds in (("train", (0, 1)), ("test", (1, 2))): pq.write_table(pa.table(dict(image=[png(s) for s in seeds], label=["x", "y"])), tmp_path / f"{part}.parquet")
    load_rows(str(tmp_path))
    assert "1 of 2 test rows" in caplog.text
    caplog.clear()
    load_rows(toy(tmp_path / "b"))
    assert not caplog.text


def test_a_line_ends_where_it_ends(tmp_path):
    "Line ends of all kinds, within quotes too, are counted as an editor counts them."
    (tmp_path / "train.csv").write_bytes(b'text,label\r\n"a\r\nb",x\r\n\r\nc,y\r\n')
    assert read_table(tmp_path / "train.csv").numbers == [2, 5] and read_table(tmp_path / "train.csv").table["text"].to_pylist() == ["a\r\nb", "c"]
    (tmp_path / "train.csv").write_bytes(b"text,label\rka,x\rle,y\r")
    assert read_table(tmp_path / "train.csv").numbers == [2, 3]


# --- pictures by relative path, empty cells, large ones ---

def classes(folder, n=2):
    for part in ("train", "test"):
        for c in ("cat", "dog"):
            (folder / part / c).mkdir(parents=True)
            for i in range(n): (folder / part / c / f"{i}.png").write_bytes(png(i))


@pytest.mark.parametrize("name", ["pics", "./pics/test", "pics/test", "../here/pics"])
def test_a_folder_of_classes_by_any_path(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    classes(tmp_path / "here" / "pics")
    monkeypatch.chdir(tmp_path / "here")
    rows = read_data(name, parts=("test",))
    assert len(rows.parts["test"]) == 4 and rows.parts["test"][0]["input"].size == (16, 16)
    monkeypatch.chdir(tmp_path / "here" / "pics" / "test")
    assert len(read_data(".", parts=("test",)).parts["test"]) == len(read_data("..", parts=("test",)).parts["test"]) == 4


def test_an_empty_cell_is_no_picture_and_blanks_are_no_part_of_a_name(tmp_path):
    classes(tmp_path / "pics")
    names = ["pics/train/cat/0.png ", "pics/train/dog/1.png"]
    for part in ("train", "test"): (tmp_path / f"{part}.csv").write_text("image,label\n" + "".join(f"{n},{y}\n" for n, y in zip(names * 2, "abab")))
    assert len(read_data(tmp_path).parts["train"]) == 4
    (tmp_path / "test.csv").write_text(f"image,label\n{names[1]},a\n  ,b\n")
    with pytest.raises(DataError, match="no image, the first is .*test.csv, line 3"): read_data(tmp_path)


def test_a_line_of_blanks_is_called_empty(tmp_path):
    toy(tmp_path)
    with open(tmp_path / "test.csv", "a") as f: f.write("   \n")
    with pytest.raises(DataError, match=r"test.csv, line \d+ is empty but for blanks"): read_data(tmp_path)


def test_a_large_picture_in_a_data_set_is_read_or_called_large(tmp_path, monkeypatch):
    from rekd import processor
    classes(tmp_path / "d")
    Image.new("1", (14_000, 14_000)).save(tmp_path / "d" / "test" / "cat" / "huge.png") # beyond Pillow's own limit
    limit = Image.MAX_IMAGE_PIXELS
    data = load_data(tmp_path / "d", ImageProcessor(16, 4), val_share=0.5)
    i = next(i for i, n in enumerate(data.test.rows["row"]) if n == 3)
    assert data.test[i]["row"]["inputs"].shape == (1, 3, 16, 16) and Image.MAX_IMAGE_PIXELS == limit
    monkeypatch.setattr(processor, "MOST_PIXELS", 10**6)
    with pytest.raises(DataError, match="huge.png.*14,000 x 14,000 pixels"): read_data(tmp_path / "d")


# --- positions that have two readings; numpy's numbers ---

def test_positions_that_may_be_counted_from_one_are_refused():
    names = ["a", "b", "c", "d", "e"]
    with pytest.raises(DataError, match="counted from 0 no row is 'a', counted from 1 none is 'e'"): name_labels(dict(train=["1", "2"], test=["3", "4"]), names)
    assert name_labels(dict(train=["0", "1", "2"], test=["3", "4"]), names)[2] and name_labels(dict(test=["1"]), ["a", "b"])[0]["test"] == [1]


def test_numpys_whole_numbers_are_numbers_of_rows(tmp_path):
    toy(tmp_path, 40)
    data = [load_data(tmp_path, tiny.text_processor(), n_train=n, n_test=n, split_seed=n) for n in (20, np.int64(20))]
    assert data[0].train.fingerprint() == data[1].train.fingerprint() and len(data[1].test) == 20


def test_a_text_is_a_string_in_every_line(tmp_path):
    "A number among the labels may be a name; a text that is a number is refused by its line."
    line = lambda i, text: json.dumps(dict(text=text, label=["up", 1][i % 2])) + "\n"
    (tmp_path / "a.jsonl").write_text("".join(line(i, f"good {i}") for i in range(12)))
    assert read_data(tmp_path / "a.jsonl").labels == ["1", "up"]
    (tmp_path / "a.jsonl").write_text("".join(line(i, 6 if i == 4 else f"good {i}") for i in range(12)))
    with pytest.raises(DataError, match="a.jsonl, line 5: the texts of train must be strings, and this one is 6"): read_data(tmp_path / "a.jsonl")


def test_a_place_that_cannot_be_written_is_found_first(tmp_path):
    from rekd.console import ready
    ready(tmp_path / "new" / "a.csv")
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "held").write_text("held")
    ready(tmp_path / "held")
    assert (tmp_path / "held").read_text() == "held"
    for place in (tmp_path / ("n" * 300), "/proc/x.csv"):
        with pytest.raises(WriteError, match="cannot write"): ready(type(tmp_path)(place))


def test_a_runs_columns_and_row(home, tmp_path):  # noqa: F811
    "Other columns only where the run's are not there, each for itself; a damaged row is said to be one; a judge is looked for first."
    folder, out = home / "run", str(tmp_path / "e.json")
    rows = [(f"{'good' if i % 2 else 'bad'} ka {i}", ["no", "yes"][i % 2]) for i in range(30)]
    (tmp_path / "a.csv").write_text(csv_text(*zip(*rows), head=("review", "verdict")))
    main(["train", "demo", "--objective", "re", "--out", str(folder), "--text-column", "review", "--label-column", "verdict",
          "--set", f"dataset={tmp_path / 'a.csv'}", "epochs=1", "num_workers=0"])
    (tmp_path / "b.csv").write_text("review,text,verdict,label\n,a story,yes,no\ngood,bad,no,yes\n")
    with pytest.raises(SystemExit, match="empty text, the first is .*b.csv, line 2"): main(["evaluate", str(folder), "--dataset", str(tmp_path / "b.csv")])
    (tmp_path / "b.csv").write_text("review,text,label\ngood ka,,yes\nbad ka,,no\n")
    main(["evaluate", str(folder), "--dataset", str(tmp_path / "b.csv")])
    with pytest.raises(SystemExit, match="nowhere"): main(["evaluate", str(folder), "--dataset", str(tmp_path / "b.csv"), "--reader", "nowhere", "--json", out])
    for broken in ("{broken", "[]", "{}"):
        (folder / "row.json").write_text(broken)
        with pytest.raises(SystemExit, match="row.json is damaged .*--dataset"): main(["evaluate", str(folder)])
