"""Splits that do not overlap, batches that cover everything once, errors that say what is wrong."""

import json
import datasets
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rekd.processor import ImageProcessor
from rekd.errors import DataError, MissingError
from rekd.data import Examples, load_data, loader, make_batches, paper_augment, rows_in_memory
from rekd.rows import load_rows, stratified_split
from rekd.vocabulary import trim_vocabulary
from tiny import text_processor

lengths = st.lists(st.integers(1, 50), max_size=200)
sizes, seeds = st.integers(1, 40), st.integers(0, 10_000)


# --- batches ---

@given(lengths, sizes, st.none() | seeds, st.integers(1, 5))
def test_batches_hold_each_example_once(lengths, size, seed, window):
    batches = make_batches(lengths, size, seed, window)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert all(1 <= len(b) <= size for b in batches) and len(batches) == -(-len(lengths) // size)
    assert batches == make_batches(lengths, size, seed, window)


@given(lengths, sizes, seeds)
def test_batches_do_not_touch_the_global_random_state(lengths, size, seed):
    state = torch.get_rng_state()
    make_batches(lengths, size, seed)
    assert torch.equal(state, torch.get_rng_state())


def test_another_seed_is_another_order():
    assert len({str(make_batches(list(range(40)), 4, seed)) for seed in range(10)}) == 10


@given(lengths, sizes)
def test_evaluation_batches_are_sorted_by_length(lengths, size):
    flat = [lengths[i] for b in make_batches(lengths, size) for i in b]
    assert flat == sorted(lengths)


@given(st.integers(1, 1000))
def test_training_batches_are_of_similar_length(seed):
    "Within a window of 50 batches examples are sorted: padding falls from a third to a few per cent."
    sizes = torch.randint(1, 200, (640,), generator=torch.Generator().manual_seed(seed)).tolist()
    padding = lambda batches: sum(max(sizes[i] for i in b) * len(b) for b in batches) / sum(sizes) - 1
    assert padding(make_batches(sizes, 32, seed)) < 0.15 < 0.5 < padding(make_batches(sizes, 32, seed, window=1))


def test_a_batch_holds_what_the_texts_hold():
    texts, labels, _ = tiny.planted_texts(6, 0)
    texts = [" ".join(t.split()[i:]) for i, t in enumerate(texts)]
    examples = tiny.text_examples(texts, labels)
    (batch,) = loader(examples, [[4, 0, 5]])
    assert batch["index"].tolist() == [4, 0, 5] and batch["labels"].tolist() == [labels[i] for i in (4, 0, 5)]
    assert batch["valid"].sum(-1).tolist() == [8, 12, 7] == [examples.lengths[i] for i in (4, 0, 5)] and batch["valid"].shape == (3, 12)
    for i, ids, valid, special in zip((4, 0, 5), batch["inputs"], batch["valid"], batch["special"]):
        words = [tiny.VOCAB[j] for j in ids[valid & ~special].tolist()]
        assert words == texts[i].split() and [tiny.VOCAB[j] for j in ids[special].tolist()] == ["[CLS]", "[SEP]"]
        assert not valid[valid.sum():].any() and set(ids[~valid].tolist()) <= {0} and not (special & ~valid).any() # padding is on the right, and not special


def test_long_texts_are_cut():
    examples = tiny.text_examples(["ka " * 100, "ka"], [0, 1], text_processor(max_length=16))
    assert examples.lengths == [16, 3]
    (batch,) = loader(examples, [[0, 1]])
    assert batch["special"].sum(-1).tolist() == [2, 2]


def test_examples_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="texts.*images"): Examples(tiny.text_data().train.rows, ImageProcessor(16, 4))
    with pytest.raises(ValueError, match="images.*texts"): Examples(tiny.image_examples(2, 0).rows, text_processor())


# --- images ---

def pixels(examples, seed, workers, batches=((0, 1, 2), (3, 4), (5,))):
    return {i: x for b in loader(examples, [list(b) for b in batches], seed, workers) for i, x in zip(b["index"].tolist(), b["inputs"])}


def test_augmentation_does_not_depend_on_workers_batches_or_the_global_random_state():
    examples = tiny.image_examples(6, 0, paper_augment)
    torch.manual_seed(1)
    alone, state = pixels(examples, 5, 0), torch.get_rng_state()
    torch.manual_seed(2)
    for other in (pixels(examples, 5, 2), pixels(examples, 5, 1), pixels(examples, 5, 0, [[5, 3], [0, 4, 2, 1]])):
        assert all(torch.equal(alone[i], other[i]) for i in range(6))
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state) # nor does it change that state
    other_epoch, plain = pixels(examples, 6, 0), pixels(examples, None, 0)
    assert any(not torch.equal(alone[i], other_epoch[i]) for i in range(6)) and any(not torch.equal(alone[i], plain[i]) for i in range(6))


def test_each_image_has_an_augmentation_of_its_own():
    examples, (image,) = tiny.image_examples(12, 0, paper_augment), tiny.images(1, 5)
    examples.rows = [dict(input=image)] * 12
    assert len({x.numpy().tobytes() for x in pixels(examples, 3, 0, [range(12)]).values()}) > 4


def test_augmentation_is_a_shifted_crop_perhaps_mirrored():
    "Of a 16 x 16 image padded by 2: each result is one of 25 crops or their mirror images, and many different ones occur."
    import numpy as np
    image = tiny.images(1, 0)[0]
    padded = np.pad(np.asarray(image), ((2, 2), (2, 2), (0, 0)))
    crops = [padded[r:r + 16, c:c + 16] for r in range(5) for c in range(5)]
    known = {x.tobytes() for crop in crops for x in (crop, np.ascontiguousarray(crop[:, ::-1]))}
    seen = {np.asarray(paper_augment(image)).tobytes() for _ in range(100)}
    assert seen <= known and len(seen) > 25


def test_a_loop_over_examples_ends():
    for examples in (tiny.image_examples(3, 0), tiny.image_examples(3, 0, mirror=True), tiny.text_data(12).test):
        assert [e["index"] for e in examples] == list(examples.numbers)
        for i in (-1, len(examples.numbers)):
            with pytest.raises(IndexError): examples[i]


def test_a_mirror_image_is_an_example_of_its_own():
    examples = tiny.image_examples(6, 0, mirror=True)
    plain, seen = pixels(tiny.image_examples(6, 0), None, 0), {}
    for seed in range(8):
        drawn = pixels(examples, seed, 0)
        assert {i % 6 for i in drawn} == set(range(6)) and drawn.keys() == pixels(examples, seed, 2).keys()
        seen |= drawn
    assert seen.keys() == set(range(12)) == set(examples.numbers)
    assert all(torch.equal(x, plain[i] if i < 6 else plain[i - 6].flip(-1)) for i, x in seen.items())
    asked, = loader(examples, [[2, 8]]) # without a seed, by number
    assert torch.equal(asked["inputs"][1], plain[2].flip(-1)) and asked["labels"][0] == asked["labels"][1]
    with pytest.raises(ValueError, match="no example 12"): loader(examples, [[12]])
    assert len({e.fingerprint() for e in (examples, tiny.image_examples(6, 0), tiny.image_examples(6, 1))}) == 3


def test_images_of_any_mode_are_normalized():
    processor = ImageProcessor(16, 4)
    batch = processor([Image.new(mode, (20, 13), 255 if mode != "RGB" else (255, 255, 255)) for mode in ("RGB", "L", "1")])
    white = torch.tensor([(1 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    torch.testing.assert_close(batch["inputs"], white[None, :, None, None].expand(3, 3, 16, 16), atol=1e-5, rtol=0)
    assert batch["valid"].shape == (3, 16) and batch["valid"].all() and not batch["special"].any()
    with pytest.raises(DataError, match="PIL"): processor(["image.png"])
    with pytest.raises(ValueError, match="multiple"): ImageProcessor(15, 4)


# --- splits ---

def rows(counts, names=None):
    "Numbered texts, `counts[k]` of class k."
    labels = [k for k, n in enumerate(counts) for _ in range(n)]
    features = datasets.Features(input=datasets.Value("string"), label=datasets.ClassLabel(names=names or [str(k) for k in range(len(counts))]))
    return datasets.Dataset.from_dict(dict(input=[f"text {i}" for i in range(len(labels))], label=labels), features=features)


@given(st.lists(st.integers(10, 60), min_size=2, max_size=4), seeds)
@settings(max_examples=15)
def test_a_split_is_stratified_and_does_not_overlap(counts, seed):
    ds = rows(counts)
    parts = stratified_split(ds, seed, test_size=0.2)
    train, val = set(parts["train"]["input"]), set(parts["test"]["input"])
    assert not train & val and train | val == set(ds["input"]) and len(train) + len(val) == len(ds)
    assert len(val) == -(-len(ds) // 5) # a fifth, rounded up
    for k, n in enumerate(counts): assert abs(list(parts["test"]["label"]).count(k) - n * 0.2) <= 1
    assert list(stratified_split(ds, seed, test_size=0.2)["test"]["input"]) == list(parts["test"]["input"])
    assert list(stratified_split(ds, seed + 1, test_size=0.2)["test"]["input"]) != list(parts["test"]["input"])


def test_a_part_of_the_rows_may_leave_any_rows_out(tmp_path):
    "Only what is kept has to have each class: all rows but one, a class with one row in test."
    def write(name, train, test):
        (tmp_path / name).mkdir()
        for part, ds in dict(train=train, test=test).items(): ds.rename_column("input", "text").cast_column("label", datasets.Value("string")).to_parquet(tmp_path / name / f"{part}.parquet")
        return str(tmp_path / name)
    folder = write("a", rows([20, 20]), rows([25, 1]))
    data = load_data(folder, text_processor(), n_train=39, n_test=20)
    assert len(data.train) + len(data.val) == 39 and len(data.test) == 20
    rare = write("b", rows([60, 1]), rows([5, 5]))
    with pytest.raises(DataError, match="leaves no row of '1'"): load_data(rare, text_processor(), n_train=2, split_seed=0)


def test_csv_files_are_read_like_parquet(tmp_path):
    for part in ("train", "test"): (tmp_path / f"{part}.csv").write_text("text,label\n" + "".join(f'"good, {i}",{"ab"[i % 2]}\n' for i in range(10)))
    found, names = load_rows(str(tmp_path))
    assert names == ["a", "b"] and found["train"]["input"][3] == "good, 3" and list(found["test"]["label"]) == [0, 1] * 5
    (tmp_path / "test.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="test.csv"): load_rows(str(tmp_path))


def test_a_class_of_one_row_cannot_be_split():
    with pytest.raises(ValueError, match="'rare' has one row"): stratified_split(rows([9, 1], ["common", "rare"]), 0, test_size=0.2)


def write(folder, **parts):
    folder.mkdir(exist_ok=True)
    for part, columns in parts.items(): datasets.Dataset.from_dict(columns).to_parquet(folder / f"{part}.parquet")
    return str(folder)


def texts(n, **more): return dict(text=[f"ka {i}" for i in range(n)], label=[i % 2 for i in range(n)]) | more


def test_a_folder_becomes_train_validation_and_test(tmp_path):
    folder = write(tmp_path / "d", train=texts(40), test=texts(10, label=[0, 1] * 5))
    data = load_data(folder, text_processor(), n_train=30, n_test=6)
    assert (len(data.train), len(data.val), len(data.test)) == (24, 6, 6) and data.labels == ["0", "1"]
    train, val = (set(part.rows["input"]) for part in (data.train, data.val))
    assert not train & val and sum(data.train.labels) == 12 and sum(data.val.labels) == 3 and sum(data.test.labels) == 3
    again = load_data(folder, text_processor(), n_train=30, n_test=6)
    assert list(again.val.rows["input"]) == list(data.val.rows["input"])
    other = load_data(folder, text_processor(), n_train=30, n_test=6, split_seed=1)
    assert list(other.val.rows["input"]) != list(data.val.rows["input"])


def test_a_validation_file_is_used_as_it_is(tmp_path):
    data = load_data(write(tmp_path / "d", train=texts(40), val=texts(7), test=texts(10)), text_processor())
    assert (len(data.train), len(data.val), len(data.test)) == (40, 7, 10)


def test_words_as_labels_are_sorted_and_numbers_in_their_order(tmp_path):
    words = write(tmp_path / "w", train=texts(4, label=["pos", "neg", "pos", "neg"]), test=texts(2, label=["neg", "pos"]))
    loaded, names = load_rows(words)
    assert names == ["neg", "pos"] and list(loaded["test"]["label"]) == [0, 1] and list(loaded["train"]["label"]) == [1, 0, 1, 0]
    numbers = write(tmp_path / "n", train=texts(12, label=[*range(12)]), test=texts(2, label=[10, 2]))
    loaded, names = load_rows(numbers)
    assert names == [str(i) for i in range(12)] and list(loaded["test"]["label"]) == [10, 2]


def test_label_names_come_from_their_file(tmp_path):
    folder = write(tmp_path / "d", train=texts(4), test=texts(2))
    (tmp_path / "d" / "label_names.json").write_text('["bad", "good"]')
    assert load_rows(folder)[1] == ["bad", "good"]


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_file_is_named(missing, tmp_path):
    folder = write(tmp_path / "d", **{p: texts(4) for p in ("train", "test") if p != missing})
    with pytest.raises(FileNotFoundError, match=f"{missing}.parquet"): load_rows(folder)


@pytest.mark.parametrize("columns, message", [
    (dict(words=["a"] * 4, label=[0, 1] * 2), "train has no column .*text.*words"),
    (dict(text=["a"] * 4, sentiment=[0, 1] * 2), "train has no column 'label'.*sentiment"),
    (dict(text=["a", None, "b", "c"], label=[0, 1] * 2), "1 rows of train have no (text|input)"),
    (dict(text=["a"] * 4, label=[0, None, 1, None]), "2 rows have no label")])
def test_missing_columns_and_values_are_named(columns, message, tmp_path):
    with pytest.raises(ValueError, match=message): load_rows(write(tmp_path / "d", train=columns, test={k: [v[0]] * 2 for k, v in columns.items()}))


def test_parts_with_different_columns_are_named(tmp_path):
    with pytest.raises(ValueError, match="test has no column 'label'"): load_rows(write(tmp_path / "d", train=texts(4), test=dict(text=["a"], sentiment=[0])))


def test_an_unknown_label_in_test_is_named(tmp_path):
    with pytest.raises(ValueError, match="test.parquet, row 2: unknown label '2'"): load_rows(write(tmp_path / "d", train=texts(4), test=texts(2, label=[0, 2])))


def test_an_unknown_data_set_is_named():
    with pytest.raises(ValueError, match="'imbd'.*imdb.*cifar10"): load_rows("imbd")


# --- a smaller vocabulary ---

def test_a_trimmed_vocabulary_keeps_the_vectors_of_its_words(tmp_path):
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel
    processor = text_processor()
    config = {k: v for k, v in tiny.BACKBONES["bert"].items() if k != "model_type"}
    BertModel(BertConfig(**config)).half().save_pretrained(tmp_path / "a")
    processor.tokenizer.save_pretrained(tmp_path / "a")
    trim_vocabulary(tmp_path / "a", ["good ka ka", "bad ka good"], 2, tmp_path / "b")
    old, new = (AutoModel.from_pretrained(tmp_path / f).get_input_embeddings().weight for f in "ab")
    tok = AutoTokenizer.from_pretrained(tmp_path / "b")
    assert sorted(tok.get_vocab()) == sorted([*tiny.SPECIAL, "good", "ka"]) # those used most
    for word, i in tok.get_vocab().items(): assert torch.equal(new[i], old[tiny.VOCAB.index(word)])


# --- tables that name files, and words that look like holes ---

@pytest.fixture
def named(tmp_path):
    "A folder with CSV files that name pictures beside them."
    for i, image in enumerate(tiny.images(8, 0)): image.save(tmp_path / f"{i}.png")
    for part in ("train", "test"): (tmp_path / f"{part}.csv").write_text("image,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(8)))
    return tmp_path


def test_a_table_may_name_its_image_files(named, monkeypatch):
    "Beside the table, wherever one calls from."
    monkeypatch.chdir("/")
    rows, labels = load_rows(str(named))
    assert labels == ["a", "b"] and rows["train"][3]["input"].tobytes() == tiny.images(8, 0)[3].tobytes()


def test_another_picture_in_the_same_file_is_other_data(named):
    processor = ImageProcessor(16, 4)
    def name(): return load_data(str(named), processor, val_share=0.5).train.fingerprint()
    before = name()
    assert name() == before
    for image in named.glob("*.png"): Image.new("RGB", (16, 16), "red").save(image)
    assert name() != before


def test_a_class_may_be_called_none(tmp_path):
    for part in ("train", "test"): (tmp_path / f"{part}.csv").write_text("text,label\nka,None\nNA,NA\nle,None\n")
    rows, labels = load_rows(str(tmp_path))
    assert labels == ["NA", "None"] and rows["train"]["input"] == ["ka", "NA", "le"]


def test_a_warning_about_rows_in_memory_names_no_temporary_file(caplog):
    pairs = [(f"a film {i % 7}", "Good" if i % 3 else "good") for i in range(40)] + [(f"a film {i % 7}", "dull") for i in range(40)]
    rows_in_memory(pairs)
    said = [r.getMessage() for r in caplog.records if r.name == "rekd.data"]
    assert any("stand in train or val too" in s for s in said) and any("look alike" in s for s in said) # two kinds
    assert all("/" not in s and s.startswith("memory") for s in said), said


# ---- what spreadsheets and other programs write

def test_a_first_line_that_names_the_separator_is_obeyed(tmp_path):
    "As Excel writes and reads it; lines keep their numbers."
    from rekd.stream import table_rows
    from rekd.table import read_table
    for sep, name in ((";", "a.csv"), ("|", "b.csv"), (",", "c.tsv")):
        for end in ("\n", "\r\n"):
            (tmp_path / name).write_bytes(f"\ufeffsep={sep}{end}text{sep}label{end}good, and short{sep}1{end}".replace(", and", ", and" if sep != "," else " and").encode())
            held = read_table(tmp_path / name)
            assert held.table.to_pylist() == list(table_rows(tmp_path / name)) and held.table.column_names == ["text", "label"] and held.place(0).endswith("line 3")
    (tmp_path / "d.csv").write_text("sep=;\ntext;label\nbad\n")
    for read in (lambda: read_table(tmp_path / "d.csv"), lambda: list(table_rows(tmp_path / "d.csv"))):
        with pytest.raises(DataError, match="line 3: 1 fields"): read()

def test_json_of_other_forms_says_what_is_expected(tmp_path):
    from rekd.stream import table_rows
    from rekd.table import read_table
    rows = [dict(text="a", label="x"), dict(text="b", label="y")]
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=2))
    assert read_table(tmp_path / "list.json").table.to_pylist() == list(table_rows(tmp_path / "list.json")) == rows
    (tmp_path / "many.json").write_text(json.dumps(rows[0], indent=2))
    for read in (lambda: read_table(tmp_path / "many.json"), lambda: list(table_rows(tmp_path / "many.json"))):
        with pytest.raises(DataError, match="line 1 is not JSON.*a JSON file of rows is one list"): read()
    (tmp_path / "inner.json").write_text(json.dumps(dict(data=rows)))
    with pytest.raises(DataError, match="its 'data' holds the rows; a JSON file of rows is one list.*keep the list alone"): read_table(tmp_path / "inner.json")

def test_a_readme_beside_folders_of_classes_is_no_matter(tmp_path):
    "A table there is: which of the two is meant?"
    from PIL import Image
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(6): Image.new("RGB", (8, 8), (20 * i, 40 * len(name), 7)).save(tmp_path / "pets" / name / f"{i}.png")
    for stray in ("README.md", "LICENSE", "Thumbs.db"): (tmp_path / "pets" / stray).write_text("read me")
    rows, labels = load_rows(str(tmp_path / "pets"))
    assert labels == ["cat", "dog"] and {p: len(r) for p, r in rows.items()} == dict(train=9, test=3)
    (tmp_path / "pets" / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(MissingError, match="notes.csv"): load_rows(str(tmp_path / "pets"))

def test_labels_with_a_fraction_are_called_numbers_of_a_regression(tmp_path):
    (tmp_path / "in.csv").write_text("text,label\n" + "".join(f"text {i},{i / 7:.3f}\n" for i in range(20)))
    with pytest.raises(DataError, match="regression, and this is a classifier. Cut them into classes"): load_rows(str(tmp_path / "in.csv"))
    (tmp_path / "in.csv").write_text("text,label\n" + "".join(f"text {i},{1 + i % 4 / 2}\n" for i in range(40))) # half stars are classes
    assert load_rows(str(tmp_path / "in.csv"))[1] == ["1.0", "1.5", "2.0", "2.5"]
