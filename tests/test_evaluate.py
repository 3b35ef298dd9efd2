"""The metrics against an independent reference written from ERASER's definitions, and what would bore a reader of the chapter."""

import math
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from rekd.attribute import attribute
from rekd.errors import DataError, MissingError, ModelError, SettingError
from rekd.compare import at_shares, crossed, shift_mask
from rekd.measure import replace_dropped, spans_of
from rekd.evaluate import BINS, auprc, comprehensiveness, erasure, interval, iou_f1, judge, keep_scores, mask_only_accuracy, model_prob, plausibility, random_scores, replacement_difference, sufficiency, task_scores, token_f1
from rekd.documents import document_prob, explain_document, judge_document, load_eraser, read_document, to_words, windows, word_of, word_spans
from rekd.select import topk_mask
from rekd.train import validate


# ---- the reference: plain Python over sets of positions and lists, one definition a function ----

def f1(p, r): return 2 * p * r / (p + r) if p > 0 and r > 0 else 0.0
def mean(xs): xs = list(xs); return sum(xs) / len(xs)
def ones(mask): return {i for i, m in enumerate(mask) if m}


def ref_token_f1(masks, humans):
    "ERASER 4.1: precision and recall of each document's tokens, their F1, the mean over documents."
    scores = []
    for a, b in zip(map(ones, masks), map(ones, humans)):
        if not a and not b: continue
        scores.append(f1(len(a & b) / len(a) if a else 0, len(a & b) / len(b) if b else 0))
    return mean(scores)


def ref_iou_f1(predicted, human, threshold):
    "ERASER 4.1: a span counts if some span of the other side has at least this intersection over union; F1 of the mean precision and recall."
    def iou(a, b):
        a, b = set(range(*a)), set(range(*b))
        return len(a & b) / len(a | b)
    def share(xs, ys): return mean(max([iou(x, y) for y in ys], default=0) >= threshold for x in xs)
    p = [share(a, b) for a, b in zip(predicted, human) if a]
    r = [share(b, a) for a, b in zip(predicted, human) if b]
    return f1(mean(p) if p else 0, mean(r) if r else 0)


def ref_auprc(scores, humans):
    "The precision-recall points of every threshold, joined by straight lines from (recall 0, precision 1)."
    areas = []
    for s, h in zip(scores, humans):
        if sum(h) in (0, len(h)): continue
        points = [(0.0, 1.0)]
        for t in sorted(set(s), reverse=True):
            kept = [b for a, b in zip(s, h) if a >= t]
            points.append((sum(kept) / sum(h), sum(kept) / len(kept)))
        areas.append(sum((r1 - r0) * (p0 + p1) / 2 for (r0, p0), (r1, p1) in zip(points, points[1:])))
    return mean(areas)


def ref_lost(full, others):
    "ERASER 4.2: m(x)_j minus m(other)_j for the class j predicted from x, averaged over bins and documents."
    losses = []
    for probs in others:
        for f, o in zip(full, probs):
            j = max(range(len(f)), key=lambda c: f[c])
            losses.append(f[j] - o[j])
    return mean(losses)


def corpus(seed, n=7):
    "Documents of different lengths: masks, scores with ties, human marks; some of them empty."
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, n)
    draw = lambda size, p: (rng.random(size) < p).astype(int).tolist()
    masks, humans = ([draw(s, rng.choice([0, 0.1, 0.5, 1])) for s in sizes] for _ in range(2))
    humans[0], masks[0] = [1, 0, 0], [1, 1, 0] # never nothing at all
    scores = [rng.integers(0, 6, len(h)).astype(float).tolist() for h in humans]
    return masks, scores, humans


@pytest.mark.parametrize("seed", range(60))
def test_plausibility_is_the_reference(seed):
    masks, scores, humans = corpus(seed)
    spans = [[spans_of(d) for d in x] for x in (masks, humans)]
    assert abs(token_f1(masks, humans) - ref_token_f1(masks, humans)) < 1e-9
    assert abs(auprc(scores, humans) - ref_auprc(scores, humans)) < 1e-9
    for threshold in (0.1, 0.5, 1.0): assert abs(iou_f1(*spans, threshold) - ref_iou_f1(*spans, threshold)) < 1e-9
    together = plausibility(masks, scores, humans)
    assert together["token_f1"] == token_f1(masks, humans) and together["iou_f1"] == iou_f1(*spans) and together["auprc"] == auprc(scores, humans)
    assert abs(together["selection_rate"] - sum(map(sum, masks)) / sum(map(len, masks))) < 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_faithfulness_is_the_reference(seed):
    rng = np.random.default_rng(seed)
    n, c, k = rng.integers(1, 9), rng.integers(2, 6), rng.integers(1, 6)
    full, others = rng.dirichlet(np.ones(c), n), rng.dirichlet(np.ones(c), (k, n))
    for metric in (comprehensiveness, sufficiency):
        assert abs(metric(full, others) - ref_lost(full, others)) < 1e-9
        assert abs(metric(full, others) - mean(metric(full, o) for o in others)) < 1e-9 # the AOPC is the mean over bins
        assert abs(metric(full, others[0]) - ref_lost(full, others[:1])) < 1e-9


def test_iou_f1_is_the_scorers_away_from_exact_halves():
    "ERASER's scorer counts predicted spans with a partner for both precision and recall; above 0.5 a partner is unique, so it is the same number."
    for seed in range(40):
        masks, _, humans = corpus(seed)
        a, b = [spans_of(m) for m in masks], [spans_of(h) for h in humans]
        hit = lambda xs, ys: sum(any(2 * len(set(range(*x)) & set(range(*y))) > len(set(range(*x)) | set(range(*y))) for y in ys) for x in xs)
        for x, y in zip(a, b): # F1 of precision hit / len(x) and recall hit / len(y)
            if x or y: assert abs(iou_f1([x], [y], 0.5 + 1e-9) - 2 * hit(x, y) / (len(x) + len(y))) < 1e-9


# ---- properties ----

documents = st.lists(st.integers(1, 15).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 1), min_size=n, max_size=n)] * 2,
                                                                    st.lists(st.integers(-9, 9), min_size=n, max_size=n))), min_size=1, max_size=6)


def judged(f):
    "The value, or None where there is nothing to judge."
    try: return f()
    except DataError: return None


@given(documents, st.randoms())
def test_bounds_and_order_of_documents(docs, random):
    mixed = random.sample(docs, len(docs))
    spans = lambda x: [spans_of(d) for d in x]
    metrics = [lambda m, h, s: token_f1(m, h), lambda m, h, s: iou_f1(spans(m), spans(h)), lambda m, h, s: auprc(s, h)]
    for metric in metrics:
        one, other = (judged(lambda x=x, metric=metric: metric(*zip(*x))) for x in (docs, mixed))
        assert (one is None) == (other is None)
        if one is not None: assert 0 <= one <= 1 and abs(one - other) < 1e-9


@given(documents)
def test_perfect_and_empty_rationales(docs):
    _, humans, _ = zip(*docs)
    if not any(map(sum, humans)): return
    spans = [spans_of(h) for h in humans]
    assert token_f1(humans, humans) == iou_f1(spans, spans) == 1
    nothing = [[0] * len(h) for h in humans]
    assert token_f1(nothing, humans) == 0 and iou_f1([[] for _ in humans], spans) == 0
    if any(0 < sum(h) < len(h) for h in humans): assert abs(auprc(humans, humans) - 1) < 1e-9


@given(documents)
def test_only_the_order_of_scores_counts(docs):
    _, humans, scores = zip(*docs)
    one, other = (judged(lambda f=f: auprc([[f(x) for x in s] for s in scores], humans)) for f in (float, lambda x: math.exp(x / 3) - 100))
    assert one == other or abs(one - other) < 1e-9


@given(documents)
def test_a_document_twice_weighs_twice(docs):
    masks, humans, _ = zip(*docs)
    once = judged(lambda: token_f1(masks, humans))
    if once is not None: assert abs(token_f1(masks * 2, humans * 2) - once) < 1e-9


@given(st.lists(st.integers(0, 1), max_size=20))
def test_spans_cover_the_mask(mask):
    spans, back = spans_of(mask), [0] * len(mask)
    for a, b in spans: back[a:b] = [1] * (b - a)
    assert back == mask and all(b < c for (_, b), (c, _) in zip(spans, spans[1:])) # runs are apart


@given(st.integers(2, 5).flatmap(lambda c: st.lists(st.tuples(*[st.lists(st.floats(0.01, 1), min_size=c, max_size=c)] * 2), min_size=1, max_size=6)))
def test_faithfulness_bounds(rows):
    full, other = (np.array(x) / np.array(x).sum(-1, keepdims=True) for x in zip(*rows))
    assert -1 <= comprehensiveness(full, other) <= 1 and comprehensiveness(full, full) == 0
    assert abs(sufficiency(full[::-1], other[::-1]) - sufficiency(full, other)) < 1e-9


# ---- what is refused ----

@pytest.mark.parametrize("call, says", [
    (lambda: token_f1([[1, 0]], [[1, 0], [1]]), "1 documents, but human rationales of 2"),
    (lambda: token_f1([[1, 0]], [[1, 0, 1]]), "give one a word"),
    (lambda: token_f1([[1, 0]], [[1, 2]]), "0 or 1"),
    (lambda: token_f1([], []), "nothing to compare"),
    (lambda: auprc([[math.nan, 1]], [[1, 0]]), "not finite"),
    (lambda: auprc([[1, 2]], [[0, 0]]), "nothing to rank"),
    (lambda: iou_f1([[(0, 1)]], [[(0, 1)], []]), "give one for each"),
    (lambda: iou_f1([[(3, 1)]], [[(0, 1)]]), "start < end"),
    (lambda: iou_f1([[]], [[]]), "nothing to compare"),
    (lambda: comprehensiveness([[0.2, 0.8]], [[0.5, 0.2, 0.3]]), "(N, C)"),
    (lambda: comprehensiveness([[0.2, math.inf]], [[0.5, 0.5]]), "not finite"),
    (lambda: task_scores([0.5, 0.5], [1, 0]), "(N, C)"),
    (lambda: interval(np.mean, [1, 2], [1]), "parallel"),
    (lambda: interval(np.mean, []), "parallel"),
    (lambda: mask_only_accuracy([[0, 1]], [0, 1], [[1]], [0]), "one label a mask"),
])
def test_bad_input(call, says):
    with pytest.raises(DataError, match=says.replace("(", r"\(").replace(")", r"\)")) as e: call()
    assert "\n" not in str(e.value)


def test_bad_threshold():
    with pytest.raises(SettingError, match="threshold"): iou_f1([(0, 1)], [(0, 1)], 0)


def test_one_document_may_come_bare():
    mask, human, scores = [1, 1, 0, 0], [0, 1, 1, 0], [3, 2, 1, 0]
    assert token_f1(mask, human) == token_f1([mask], [human]) == token_f1(torch.tensor(mask), np.array(human))
    assert auprc(scores, human) == auprc([scores], [human])
    assert iou_f1([(0, 2)], [(1, 3)], 0.3) == iou_f1([[(0, 2)]], [[(1, 3)]], 0.3) == 1
    assert plausibility(mask, scores, human) == plausibility([mask], [scores], [human])


def test_task_scores():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    out = task_scores(probs, [0, 1, 1])
    assert abs(out["accuracy"] - 2 / 3) < 1e-9 and abs(out["macro_f1"] - 2 / 3) < 1e-9
    assert abs(out["ece"] - (abs(1 - 0.7) + abs(1 - 0.8) + abs(0 - 0.6)) / 3) < 1e-6


def test_interval_covers():
    "A 90% interval of a mean over 60 coins misses the truth in about one of ten repetitions."
    rng = np.random.default_rng(0)
    hits = [low <= 0.5 <= high for low, high in (interval(np.mean, rng.integers(0, 2, 60), n=200, level=0.9, seed=i) for i in range(100))]
    assert 0.8 < np.mean(hits) < 0.97


# ---- models ----

def test_erasure_reads_what_it_should(text_model):
    batch = tiny.make_batch("bert")
    selectable, scores = text_model.selectable(batch), keep_scores(text_model, batch)
    out, prob = erasure(model_prob(text_model), batch, selectable, scores, (0.2, 1.0)), model_prob(text_model)
    mask = topk_mask(scores, selectable, 0.2)
    assert torch.equal(out["full"], prob(batch, torch.ones_like(mask))) and torch.equal(out["only"][0], prob(batch, mask))
    assert torch.equal(out["without"][0], prob(batch, 1 - mask))
    assert torch.allclose(out["only"][1], out["full"]) and torch.allclose(out["without"][1], prob(batch, torch.zeros_like(mask)))
    assert out["full"].shape == (3, 2) and out["only"].shape == out["without"].shape == (2, 3, 2) and not out["full"].requires_grad


@pytest.mark.parametrize("kind", ["bert", "bigru", "vit"])
def test_judge_keeps_the_order(kind):
    model = tiny.make_model(kind)
    part = tiny.image_data().train if kind == "vit" else tiny.text_data(12).train
    big, small = (judge(model, part, batch_size=b) for b in (64, 5))
    assert big["labels"].tolist() == part.labels and big["only"].shape == (len(BINS), len(part), 2)
    for key in ("full", "only", "without"): assert np.allclose(big[key], small[key], atol=1e-5)
    for i in range(len(part)):
        assert len(big["scores"][i]) == big["masks"][i].shape[1] and np.allclose(big["scores"][i], small["scores"][i], atol=1e-5)
        e = model.explain(part.rows[i]["input"], sparsity=0.1)
        assert e.mask == big["masks"][i][2].tolist() and np.allclose(e.scores, big["scores"][i], atol=1e-5)
        assert np.allclose(list(e.probabilities.values()), big["only"][2, i], atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_models_at_several_shares(kind):
    part = tiny.image_data().train if kind == "vit" else tiny.text_data(12).train
    a, b = tiny.make_model(kind, 1), tiny.make_model(kind, 2)
    rows = at_shares(dict(a=a, b=b, again=a), part, (0.3, 1.0))
    assert [(r["model"], r["share"]) for r in rows] == [(n, s) for n in ("a", "b", "again") for s in (0.3, 1.0)]
    assert [r["agreement"] for r in rows[:2] + rows[4:]] == [1.0] * 4 and rows[3]["agreement"] == 1.0 and 0 < rows[2]["agreement"] < 1
    for r, model, mask in ((rows[2], b, "topk"), (rows[3], b, "none")):
        model.config.sparsity = r["share"] if mask == "topk" else 0.5
        assert r["accuracy"] == pytest.approx(validate(model, part, mask)["accuracy"])


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_every_predictor_answers_from_every_choice(kind):
    part = tiny.image_data().train if kind == "vit" else tiny.text_data(12).train
    a, b = tiny.make_model(kind, 1), tiny.make_model(kind, 2)
    found = {(r["chooser"], r["predictor"]): r["accuracy"] for r in crossed(dict(a=a, b=b), part, batch_size=5)}
    assert list(found) == [(c, p) for c in ("blind choice", "a", "b") for p in "ab"]
    batch = part.collate([part[i] for i in range(len(part))])
    mask = lambda m: topk_mask(keep_scores(m, batch), m.selectable(batch), m.config.sparsity)
    with torch.no_grad(): right = {(c, p): (n.eval().predict(batch, mask(m)).argmax(-1) == batch["labels"]).float().mean().item() for c, m in (("a", a), ("b", b)) for p, n in (("a", a), ("b", b))}
    for key, value in right.items(): assert found[key] == pytest.approx(value), key
    with pytest.raises(DataError, match="no examples"): crossed(dict(a=a), [])


def test_models_that_read_different_features_are_not_compared():
    a, b = tiny.make_model(select_special=True), tiny.make_model(select_special=False)
    for compare in (crossed, at_shares):
        with pytest.raises(ModelError, match="a and b must have the same select_special"): compare(dict(a=a, b=b), tiny.text_data(12).train)


def test_random_scores_repeat(text_model):
    part = tiny.text_data().test
    a, b, c = (judge(text_model, part, random_scores(s), shares=[0.5])["masks"] for s in (0, 0, 1))
    same = lambda x, y: all(np.array_equal(i, j) for i, j in zip(x, y))
    assert same(a, b) and not same(a, c)


# ---- words, windows, documents ----

def test_words_are_the_whitespace_tokens():
    for text in ("", " ", "one", "  two\nwords\t", "naïve café", "a\u00a0b\u2003c", "x" * 300):
        assert [text[a:b] for a, b in word_spans(text)] == text.split()


def test_pieces_that_begin_with_a_space_find_their_words():
    "SentencePiece tokenizers (XLM-R, DeBERTa v3) give a piece the space before it."
    from tokenizers import Tokenizer, models, pre_tokenizers
    tok = Tokenizer(models.Unigram([("<unk>", 0.0), ("\u2581good", -1.0), ("\u2581film", -1.0), ("\u2581bad", -1.0), ("s", -2.0)], unk_id=0))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    text = "good film bad films"
    assert word_of(tok.encode(text).offsets, word_spans(text)) == [0, 1, 2, 3, 3]


def test_pieces_find_their_words():
    assert word_of([(0, 0), (0, 2), (2, 5), (6, 7), (0, 0)], [(0, 5), (6, 8)]) == [-1, 0, 0, 1, -1]
    assert to_words([[5, 1, 2, -3, 9]], [[-1, 0, 0, 1, -1]], 3).tolist() == [2, -3, -3] # the third word has no piece
    assert to_words([[5.0]], [[-1]], 0).tolist() == []


@given(st.lists(st.sampled_from(["good", "dull", "kala", "unknown", "ka-la-me", "\x00", "la,mo"]), max_size=60).filter(lambda words: set(words) - {"\x00"}), st.integers(5, 12))
def test_windows_cut_between_words(words, max_length):
    processor, text = tiny.text_processor(max_length), " ".join(words)
    cut = windows(processor, text)
    assert [w for a, b in cut for w in text[a:b].split()] == text.split()
    sizes = [len(processor.spans(text[a:b])) - 2 for a, b in cut]
    whole = tiny.text_processor(10_000).spans(text)
    longest = max([0, *np.bincount([w for w in word_of(whole, word_spans(text)) if w >= 0] or [0])])
    if longest <= max_length - 2: assert sum(sizes) == len(whole) - 2 and max(sizes) <= max_length - 2
    assert max(sizes) - min(sizes) <= 2 * max(longest, 1) # equally full, but for whole words


def test_dropout_is_off_while_a_model_is_judged():
    "Whatever mode the model is in, and it stays in it."
    model, examples = tiny.make_model(dropout=0.5), tiny.text_data().test
    for f in (lambda: judge(model, examples)["full"].tolist(), lambda: explain_document(model, "ka good ke").probabilities, lambda: attribute(model, ["ka good"]).tolist()):
        expected = f()
        assert f() == expected and not model.training
        model.train()
        assert f() == expected and model.training
        model.eval()


def test_windows_of_a_tokenizer_whose_words_begin_with_their_space():
    "Byte-level BPE: a first word without its space would be four pieces, and the window would no longer fit."
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    from rekd.processor import TextProcessor
    pieces = ["<pad>", "<s>", "</s>", "<unk>", "Ġ", "g", "o", "d", "Ġg", "Ġgo", "Ġgoo", "Ġgood"]
    bpe = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[("Ġ", "g"), ("Ġg", "o"), ("Ġgo", "o"), ("Ġgoo", "d")], unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    names = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", cls_token="<s>", sep_token="</s>")
    batch, owner = read_document(TextProcessor(PreTrainedTokenizerFast(tokenizer_object=bpe, **names), 12), " ".join(["good"] * 35))
    assert set(owner.flatten().tolist()) == {-1, *range(35)}


@pytest.mark.parametrize("text", ["good", "ka-la-me-ni-ko-lu good", "good " * 200, "\ud800 good"])
def test_documents_of_any_kind(text):
    model = tiny.make_model("bert", sparsity=0.25)
    model.processor.max_length = 6
    e = explain_document(model, text)
    n = len(text.split())
    assert len(e.features) == len(e.mask) == len(e.scores) == len(e.spans) == n and set(e.mask) <= {0, 1}
    assert abs(sum(e.probabilities.values()) - 1) < 1e-5 and all(math.isfinite(s) for s in e.scores)
    if n == 200: assert sum(e.mask) == 50 # a quarter of every window
    e._repr_html_()


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_document_is_refused_like_an_empty_text(text_model, text):
    for explain in (text_model.explain, lambda t: explain_document(text_model, t)):
        with pytest.raises(DataError): explain(text)


def test_a_short_document_is_a_text(text_model):
    text = "good kala kele dull mamo"
    one, other = text_model.explain(text), explain_document(text_model, text)
    assert one.mask == other.mask and np.allclose(one.scores, other.scores) and np.allclose(list(one.probabilities.values()), list(other.probabilities.values()))


def test_judge_document(text_model):
    text_model.processor.max_length = 8
    text = " ".join(tiny.planted_texts(5, 0)[0])
    j, e = judge_document(text_model, text, shares=(0.25, 1.0)), explain_document(text_model, text, sparsity=0.25)
    assert j["masks"][0].tolist() == e.mask and j["masks"][1].all() and np.allclose(j["scores"], e.scores)
    assert np.allclose(j["only"][0, 0], list(e.probabilities.values())) and np.allclose(j["only"][1], j["full"], atol=1e-6)
    batch, owner = read_document(text_model.processor, text)
    z = text_model.predict(batch, torch.ones(owner.shape))
    assert torch.allclose(document_prob(text_model)(batch, torch.ones(owner.shape))[0], z.log_softmax(-1).mean(0).softmax(-1), atol=1e-6)


def test_images_are_no_documents(image_model):
    with pytest.raises(DataError, match="reads images"): explain_document(image_model, "a text")


def eraser(folder, **change):
    row = dict(text="a fine\nfilm indeed .", label=1, evidence=[dict(start_token=1, end_token=3), dict(start_token=4, end_token=4)]) | change
    for part in ("train", "val", "test"): pq.write_table(pa.Table.from_pylist([row]), folder / f"{part}.parquet")


def test_load_eraser(tmp_path):
    eraser(tmp_path)
    row, = load_eraser(tmp_path)["val"]
    assert row["human"].tolist() == [0, 1, 1, 0, 0] and row["spans"] == [(1, 3)] and row["label"] == 1 # an empty span marks nothing
    eraser(tmp_path, evidence=[dict(start_token=4, end_token=6)])
    with pytest.raises(DataError, match="row 1: evidence .* is not a span of the text's 5 words"): load_eraser(tmp_path)
    (tmp_path / "val.parquet").unlink()
    eraser_columns = pa.table(dict(text=["a"], label=[0]))
    pq.write_table(eraser_columns, tmp_path / "train.parquet")
    with pytest.raises(DataError, match="no column 'evidence'"): load_eraser(tmp_path)
    with pytest.raises(MissingError, match="load_eraser needs"): load_eraser(tmp_path / "gone")


# ---- the replacement test ----

@pytest.mark.parametrize("options", [{}, dict(select_special=True), dict(pool="mean"), dict(freeze_embeddings="both")])
@pytest.mark.parametrize("kind", tiny.BACKBONES)
def test_replacement_moves_nothing(kind, options):
    if kind in tiny.IMAGES: options = {k: v for k, v in options.items() if k == "pool"}
    if kind == "bigru": options = options | dict(pool="mean")
    model, batch = tiny.make_model(kind, **options), tiny.make_batch(kind)
    with torch.no_grad(): logits, selectable = model.select(batch), model.selectable(batch)
    masks = [model.mask(logits, selectable, how) for how in ("topk", "deterministic", "sampled")] + [torch.zeros(selectable.shape), torch.ones(selectable.shape)]
    for seed, mask in enumerate(masks):
        assert replacement_difference(model, batch, mask, seed=seed) == 0.0
    assert replacement_difference(model, batch, masks[0], sees=torch.ones(selectable.shape)) > 0 # a classifier with the same rationale


def test_replacement_with_huge_features():
    "0 times anything finite is 0, however large."
    model = tiny.make_model("bert", select_special=True)
    with torch.no_grad(): model.predictor.backbone.net.get_input_embeddings().weight.mul_(1e30)
    assert replacement_difference(model, tiny.make_batch("bert"), torch.zeros(3, 12)) == 0.0


def test_replacement_replaces_padding(text_model):
    batch = tiny.make_batch("bert", lengths=(4, 60))
    other = replace_dropped(text_model, batch, torch.ones(2, 60))
    assert torch.equal(other[batch["valid"]], batch["inputs"][batch["valid"]]) and (other[0, 4:] != 0).any()


# ---- masks that tell ----

def told(kind, label, n, rng):
    "A rationale whose pattern gives the label away."
    mask, k = np.zeros(n, int), max(2, n // 10)
    if kind == "ends": mask[-1 if label else 0] = 1
    if kind == "count": mask[rng.choice(n, k + 2 * label, replace=False)] = 1
    if kind == "neighbours": mask[(0 if label else 1) + np.arange(k) * (1 if label else 2)] = 1
    if kind == "parity": mask[rng.choice(np.arange(label, n, 2), k, replace=False)] = 1
    if kind == "nothing": mask[rng.choice(n, k, replace=False)] = 1
    return mask


@pytest.mark.parametrize("kind", ["ends", "count", "neighbours", "parity", "nothing"])
def test_mask_only_accuracy(kind):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    masks = [told(kind, y, int(n), rng) for y, n in zip(labels, rng.integers(20, 60, 500))]
    accuracy = mask_only_accuracy(masks[:300], labels[:300], masks[300:], labels[300:])
    assert accuracy < 0.62 if kind == "nothing" else accuracy > 0.85


@pytest.mark.parametrize("k", [0, 1, 3, -2, 100])
def test_shift_mask(k):
    batch = tiny.make_batch("bert")
    selectable = batch["valid"] & ~batch["special"]
    mask = topk_mask(torch.rand(selectable.shape), selectable, 0.3)
    moved = shift_mask(mask, selectable, k)
    assert torch.equal(moved.sum(-1), mask.sum(-1)) and not (moved.bool() & ~selectable).any()
    assert torch.equal(shift_mask(moved, selectable, -k), mask)
