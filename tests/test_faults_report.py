"Faults of the report, the pictures and the evaluation: each kind by an input of its own and its siblings, with the right value."
import io
import json
from collections import Counter

import numpy as np
import pytest
import tiny
import torch

from rekd.attribute import METHODS, attribute, document_scores, post_hoc
from rekd.cli import main
from rekd.errors import DataError, ModelError, RekdError, SettingError
from rekd.compare import at_shares, crossed
from rekd.evaluate import comprehensiveness, interval, judge, plausibility, replacement_difference, task_scores, token_f1
from rekd.documents import judge_document
from rekd.draw import Explanation, _FADED, layout_tags, without_tags
from rekd.model import RationaleModel
from rekd.show import _lay_out, draw_frame, human_rationale, image_grid, plot_temperature, rationale_gif, rationale_page, segments, side_by_side, to_terminal
from rekd.plot import plot_curves, plot_seeds
from rekd.report import report_data, report_page, stratified_sample, taken_as, whole_test
from test_report import browser, labelled, stored, visit # noqa: F401 -- two of them are fixtures

NAN = float("nan")


def folder_of(path, labels, names=None, texts=None):
    "A data set of one's own, train and test alike."
    import datasets
    texts = texts or [f"{tiny.FILLER[i % 20]} {(tiny.GOOD + tiny.BAD)[i % 6]} {tiny.FILLER[(i // 20) % 20]}" for i in range(len(labels))]
    path.mkdir()
    for part in ("train", "test"): datasets.Dataset.from_dict(dict(text=texts, label=labels)).to_parquet(path / f"{part}.parquet")
    if names: (path / "label_names.json").write_text(json.dumps(names))
    return str(path)


def many(n, seed=0, **options):
    model = tiny.make_model("bert", seed, **options)
    model.config.labels = [f"class {i}" for i in range(n)]
    torch.manual_seed(seed)
    model.predictor.head = torch.nn.Linear(32, n)
    return RationaleModel(model.config, model.processor, model.generator.backbone, model.predictor.backbone).eval()


# ---- the report tells the truth

@pytest.mark.parametrize("labels, n, want", [
    ([i % 2 for i in range(600)], 50, {0: 25, 1: 25}), # alternating
    ([i % 5 for i in range(150)], 50, {k: 10 for k in range(5)}), # in turn
    ([0] * 900 + [1] * 90 + [2] * 10, 100, {0: 90, 1: 9, 2: 1}), # sorted, and uneven
    (["b", "a"] * 3, 6, {"a": 3, "b": 3}), # all
    ([0] * 50 + [1], 5, {0: 5}), # a class whose share is less than half a row
    (list(range(100)), 7, None), # fewer examples than classes
])
def test_examples_are_a_stratified_sample_with_a_seed(labels, n, want):
    rows = stratified_sample(labels, n)
    assert rows == sorted(set(rows)) == stratified_sample(labels, n) and len(rows) == n
    if want: assert Counter(labels[i] for i in rows) == want
    if n < len(labels): assert any(stratified_sample(labels, n, seed) != rows for seed in (1, 2))


@pytest.mark.parametrize("n_classes, n_rows", [(2, 60), (5, 45)])
def test_headline_is_what_evaluate_says(tmp_path, capsys, n_classes, n_rows):
    "To the last digit, on the whole test part, of each model at its own share, whatever the examples are."
    data = folder_of(tmp_path / "rows", [i % n_classes for i in range(n_rows)], [f"class {i}" for i in range(n_classes)])
    for i, share in enumerate((0.25, 0.7)): many(n_classes, i, sparsity=share).save_pretrained(tmp_path / f"m{i}")
    main(["report", str(tmp_path / "m0"), str(tmp_path / "m1"), "--dataset", data, "--examples", "10", "--out", "r.html"])
    said, page = capsys.readouterr().out, stored(tmp_path / "r.html")
    for i, whole in enumerate(page["whole"]):
        main(["evaluate", str(tmp_path / f"m{i}"), "--dataset", data, "--masks", "topk", "--json", "e.json"])
        row, = json.loads((tmp_path / "e.json").read_text())
        assert {k: whole[k] for k in ("accuracy", "selection_rate")} == {k: row[k] for k in ("accuracy", "selection_rate")} and whole["rows"] == n_rows
        printed = capsys.readouterr().out
        for digits in whole["digits"]: assert digits in said and digits in printed
    assert Counter(e["truth"] for e in page["examples"]) == {k: 10 // n_classes for k in range(n_classes)}
    assert f"10 of the {n_rows} test rows of rows" in page["about"] and "seed 0" in page["about"] and "taken" not in page["about"]
    assert page["made"].startswith("rekd ") and page["made"].endswith("--examples 10") # `--out report.html` apart, it can be typed again


def test_part_of_the_test_part_is_called_so(tmp_path, capsys):
    data = folder_of(tmp_path / "rows", [i % 2 for i in range(40)], tiny.LABELS)
    tiny.make_model("bert").save_pretrained(tmp_path / "m")
    main(["report", str(tmp_path / "m"), "--dataset", data, "--n-test", "20", "--examples", "4", "--seed", "3", "--out", "r.html"])
    page = stored(tmp_path / "r.html")
    assert page["whole"][0]["rows"] == 20 and page["whole"][0]["part"] and "4 of the 20 test rows (n_test)" in page["about"] and "seed 3" in page["about"]
    assert "A part of the test part (n_test): 20 rows" in capsys.readouterr().out
    for n in ("40", "99"): # all rows are no part
        main(["report", str(tmp_path / "m"), "--dataset", data, "--n-test", n, "--examples", "4", "--out", "r.html"])
        assert not stored(tmp_path / "r.html")["whole"][0]["part"] and "The whole test part: 40 rows" in capsys.readouterr().out


def test_pictures_have_a_headline_too():
    model = tiny.make_model("vit")
    made = report_data({"a": model}, tiny.images(2, 0), [0, 1], whole=[dict(data="toy", rows=9, part=False, share=.25, accuracy=.15625, selection_rate=.25)])
    assert made["whole"][0]["digits"] == ["0.1562", "0.2500"] # as Python prints it


def test_page_says_what_its_numbers_are_of(visit): # noqa: F811
    made = report_data({"a": tiny.make_model("bert")}, ["good klm", "dull klm"], [0, 1], about="Two.", made="rekd 0: rekd report a",
                       whole=[dict(data="toy", rows=600, part=False, share=.125, accuracy=.513, selection_rate=.2571, length=40)])
    tab = visit(report_page(made))
    head = tab.inner_text("header")
    assert "A rationale is the part of an input" in head and "600 test rows of toy" in head and "0.5130 (0.473 to 0.553)" in head and "first 40 pieces" in head and "12.5% of them" in head
    assert "2 examples of this page, not on the whole test part" in tab.inner_text("#curves") and tab.inner_text("footer") == "rekd 0: rekd report a"
    assert not visit(report_page(report_data({"a": tiny.make_model("bert")}, ["good"], [0]))).is_visible("#headline") # nobody measured it


def test_class_numbers_are_no_silent_guess(tmp_path, capsys):
    data = folder_of(tmp_path / "rows", [i % 2 for i in range(8)])
    tiny.make_model("bert").save_pretrained(tmp_path / "m")
    main(["report", str(tmp_path / "m"), "--dataset", data, "--out", "r.html"])
    said = "In the data labels are positions: 0 is negative, 1 is positive."
    assert said in capsys.readouterr().out and said in stored(tmp_path / "r.html")["about"]
    assert taken_as(["b", "a"], ["a", "b"]) == "" and taken_as([str(i) for i in range(12)], [f"c{i}" for i in range(12)]).count("taken") == 10
    for names in (["1", "2"], ["0", "1", "2"], ["neg", "pos"]):
        with pytest.raises(DataError, match="not among them"): taken_as(names, tiny.LABELS)


def test_report_refuses_what_has_no_rationale(tmp_path):
    model = tiny.make_model("bert")
    model.config.selects = False
    with pytest.raises(ModelError, match="cls: .*no rationale to show"): report_data({"cls": model}, ["good"], [0])
    with pytest.raises(ModelError, match="cls: .*no rationale to show"): whole_test({"cls": model}, folder_of(tmp_path / "rows", [0, 1, 0, 1], tiny.LABELS))
    broken = tiny.make_model("bert")
    with torch.no_grad(): broken.predictor.head.weight.fill_(NAN)
    with pytest.raises(ModelError, match="broken gives probabilities that are not finite"): report_data({"broken": broken}, ["good"], [0])
    for truths in (["negative"], [2], [-1], [0.5]):
        with pytest.raises(DataError, match="class number from 0 to 1"): report_data({"a": tiny.make_model("bert")}, ["good"], truths)


# ---- markup of the data

@pytest.mark.parametrize("text, shown", [
    ("Dull.<br /><br />Not good.", "Dull.\n\nNot good."), ("a<BR>b<br/>c", "a\nb\nc"), ("<p>one<p class='x'>two</p>", "\none\ntwo\n"),
    ("an <i>odd</i> <em>one</em>", "an odd one"), ("<div>a</div>", "\na\n"), ("1 < 2 > 0, a <b> c", "1 < 2 > 0, a <b> c"), # half a pair is no tag
    ("<script>x</script> &amp; &lt;", "<script>x</script> &amp; &lt;"), ("<brave> <br", "<brave> <br"),
])
def test_tags_are_shown_as_what_they_mean(text, shown):
    e = Explanation("good", {}, [], [], [], text, [])
    assert without_tags(text, [], [])[0] == shown
    assert to_terminal(e, False) == shown.replace("\n", " ")
    import html
    assert html.escape(shown) in e._repr_html_() and html.escape(shown) in rationale_page([{"a": e}])


def test_spans_stay_right_when_tags_go():
    text = "good.<br /><br />dull <i>klm</i>!"
    pieces = [(0, 4), (4, 5), (5, 6), (6, 8), (9, 10), (10, 11), (17, 21), (22, 23), (25, 28), (32, 33)]
    for mask in ([1, 0, 0, 0, 0, 0, 1, 0, 1, 0], [0] * 10):
        new, spans = without_tags(text, pieces, mask)
        assert new == "good.\n\ndull klm!" and [new[a:b] for a, b in spans] == ["good", ".", "", "", "", "", "dull", "", "klm", "!"]
    kept = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0] # "br" of the first tag: a part of the rationale, and so it is seen
    new, spans = without_tags(text, pieces, kept)
    assert new == "good.<br />\ndull klm!" and new[slice(*spans[3])] == "br"
    e = Explanation("good", {}, [text[a:b] for a, b in pieces], kept, [.5] * 10, text, pieces)
    assert "[br]" in to_terminal(e, False) and ">br</mark>" in e._repr_html_() and "".join(s for s, _ in segments(e)) == text


def test_tags_in_the_report(visit): # noqa: F811
    text = "good<br /><br />klm <i>dull</i> kala"
    made = report_data({"a": tiny.make_model("bert")}, [text], [0])
    tab = visit(report_page(made))
    bits = [p for word in made["examples"][0]["models"][0]["words"] for p in word]
    for k in range(10):
        tab.evaluate(f"rate = {k}; render()")
        mask = [p[2] >> k & 1 for p in bits]
        assert tab.text_content("article .text") == without_tags(text, [tuple(p[:2]) for p in bits], mask)[0]
    assert tab.text_content("article .text") == text # all of it is kept: all of it is the rationale


def test_tags_in_png_begin_a_line():
    from matplotlib import font_manager
    from PIL import ImageFont
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 18)
    lay = lambda text: [(y, s) for _, y, s, _ in _lay_out(Explanation("a", {}, [], [], [], text, []), font, 300, 30)]
    assert lay("one<br />two") == [(0, "one"), (30, "two")] == lay("one\ntwo") and lay("one <b>two</b>") == [(0, "one"), (0, "two")]
    long = lay("a" * 200)
    assert "".join(s for _, s in long) == "a" * 200 and max(font.getlength(s) for _, s in long) <= 300 # a word wider than the page is broken


def test_many_tags_take_no_time():
    text = "<b>" * 20_000 + "<i" * 20_000
    assert layout_tags(text) == [] and to_terminal(Explanation("a", {}, [], [], [], text, []), False, 10).startswith("<b><b>")


ODD = ["&amp; &#60;b&#62; &nbsp;good", "\u202egood dull\u202c klm", "שלום עולם good", "👩‍👩‍👧‍👦 good 🏳️‍🌈", "good" * 2000, "zero\u200bwidth\ufeff good\u00ad", "e\u0301" * 300 + " good", "{{DATA}} ${x} `good` \\u003c", "good\x00\x1b[2J"]


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_break_no_page(visit, text): # noqa: F811
    model = tiny.make_model("bert")
    e = model.explain(text)
    for page in (report_page(report_data({"a": model}, [text], [0])), rationale_page([{"a": e, "b": e}])):
        tab = visit(page, viewport=dict(width=375, height=700))
        assert tab.evaluate("document.documentElement.scrollWidth") == 375
        assert text.replace("\x00", "") in tab.text_content("body").replace("\x00", "") # HTML has no NUL
    draw_frame(e, text[:20]).save(io.BytesIO(), "PNG")
    assert "\x1b" not in to_terminal(e, False) and "\u202e" not in to_terminal(e, False)


@pytest.mark.parametrize("ink, ground", [((0x1c,) * 3, (255,) * 3), ((33,) * 3, (255,) * 3), ((0xe8,) * 3, (0x16, 0x18, 0x1c)), ((0xff,) * 3, (0x11,) * 3)])
def test_dropped_words_can_be_read(ink, ground):
    alpha = float(_FADED.split(":")[1])
    light = lambda c: sum(w * (v / 12.92 if v <= .03928 else ((v + .055) / 1.055) ** 2.4) for w, v in zip((.2126, .7152, .0722), (x / 255 for x in c)))
    a, b = sorted((light([alpha * i + (1 - alpha) * g for i, g in zip(ink, ground)]), light(ground)))
    assert (b + .05) / (a + .05) >= 4.5


# ---- pictures

def test_picture_in_a_terminal(image_model):
    e = image_model.explain(tiny.images(1, 0)[0])
    rows = [line.split(" ") for line in to_terminal(e, False).splitlines()]
    assert [(r, c) for r, line in enumerate(rows) for c, sign in enumerate(line) if sign == "##"] == [f for f, m in zip(e.features, e.mask) if m]
    assert len(rows) == len(rows[0]) == 4 and to_terminal(e).count("\x1b[1") == sum(e.mask)
    for nothing in (Explanation("a", {}, [], [], []), Explanation("a", {}, [], [], [], tiny.images(1, 0)[0])):
        for draw in (to_terminal, draw_frame):
            with pytest.raises(SettingError, match="no text and no picture"): draw(nothing)


def test_picture_stands_beside_its_rationale(image_model, visit): # noqa: F811
    pictures = tiny.images(2, 0)
    e, f = image_model.explain(pictures)
    assert e._repr_html_().count("<img") == 2 and e.to_html(beside=False).count("<img") == 1
    page = rationale_page([{"a": e, "b": e}, {"a": f}])
    assert page.count('alt="the whole picture"') == 2 and page.count("patches kept") == 3
    tab = visit(report_page(report_data({"a": image_model}, pictures, [0, 1])))
    assert tab.get_attribute("figure image", "href") == tab.get_attribute("article image", "href") and tab.is_visible("figure")


def test_what_does_not_belong_together_is_not_drawn_together(image_model, text_model):
    e, f = image_model.explain(tiny.images(2, 0))
    text = text_model.explain("good")
    for draw, said in ((lambda: side_by_side({"a": e, "b": f}), "another input"), (lambda: side_by_side({"a": e, "b": text}), "a text"), (lambda: side_by_side({}), "no explanations"),
                       (lambda: image_grid([{"a": e}, {"b": f}]), "each column is a model"), (lambda: image_grid([{"a": text}]), "explanations of pictures"),
                       (lambda: image_grid([{"a": e}, {"a": f}], ["cat"]), "2 examples, but 1 truths"), (lambda: image_grid([]), "no examples"),
                       (lambda: rationale_page([{"a": text}] * 2, ["x"]), "2 examples, but 1 truths"), (lambda: rationale_page([]), "no examples"), (lambda: segments(e), "only a text")):
        with pytest.raises(SettingError, match=said): draw()


def test_figures_hide_no_runs():
    row = lambda **k: dict(objective="re", start="paper", seed=1, masks=dict(topk=dict(accuracy=.5))) | k
    with pytest.raises(DataError, match="2 rows are of re paper 1: choose one variant"): plot_seeds([row(), row(variant="low-lr")])
    epoch = dict(epoch=0, temperature=1.0, sparsity_target=.1, train=dict(ce=1.0), val=dict(accuracy=.5, expected_rate=.1))
    for history, said in (({}, "needs a history"), ({"RE": []}, "needs an epoch"), ({"RE": [[epoch], [epoch] * 2]}, "1 and 2 epochs have no mean")):
        with pytest.raises(DataError, match=said): plot_curves(history)
    for scores in ([], [NAN], [1.5]):
        with pytest.raises(DataError, match="keep probability"): plot_temperature(scores)


# ---- attribution, and numbers that are none

@pytest.mark.parametrize("kind", ["bert", "bigru", "vit"])
@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_input", "occlusion"])
def test_attribution_inside_inference_mode(kind, method):
    model = tiny.make_model(kind)
    raw = tiny.images(2, 0) if kind == "vit" else ["good kala", "dull mamo kele"]
    outside, marked = attribute(model, raw, method), post_hoc(model, raw, method)
    with torch.inference_mode():
        inside = attribute(model, raw, method)
        batch = model.processor(raw) # made of tensors without gradient
        assert torch.equal(inside, outside) and torch.equal(attribute(model, batch, method, torch.tensor([0, 1])), attribute(model, raw, method, [0, 1]))
        assert [e.mask for e in post_hoc(model, raw, method)] == [e.mask for e in marked]
    if kind != "vit":
        want = judge_document(model, "good kala " * 30, document_scores(method))["scores"]
        with torch.inference_mode(): assert np.array_equal(judge_document(model, "good kala " * 30, document_scores(method))["scores"], want)


def test_weights_made_in_inference_mode_are_named():
    with torch.inference_mode(): model = tiny.make_model("bert")
    for method in METHODS:
        with pytest.raises(ModelError, match="load it outside"): attribute(model, ["good"], method)


@pytest.mark.parametrize("target, said", [(2, "got 2"), (-1, "got -1"), (True, "got True"), ("positive", "got 'positive'"), ([0, 1, 1], "each of 2 rows"), (0.0, "got 0.0"), (torch.tensor([[0], [1]]), "the shape")])
def test_class_to_explain_must_be_one(text_model, target, said):
    with pytest.raises(SettingError, match=said): attribute(text_model, ["good", "dull"], "occlusion", target)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_like_full(half):
    model = tiny.make_model("bert").to(half)
    assert attribute(model, ["good kala"]).isfinite().all() and judge(model, tiny.text_data().test)["full"].dtype == np.float32
    assert len(report_data({"a": model}, ["good kala"], [0])["examples"]) == 1


def bad_head():
    model = tiny.make_model("bert")
    with torch.no_grad(): model.predictor.head.weight.fill_(NAN)
    return model


REFUSED = {
    "attribution of NaN": (lambda: attribute(bad_head(), ["good"]), "not finite"), "a batch without parts": (lambda: attribute(tiny.make_model("bert"), dict(inputs=torch.ones(1, 3))), "special, valid missing"),
    "no documents": (lambda: plausibility([], [], []), "nothing to compare"), "words for numbers": (lambda: token_f1(["ab"], ["cd"]), "expected numbers"), "no list": (lambda: token_f1(None, [1]), "list of documents"),
    "ragged probabilities": (lambda: comprehensiveness([[.5, .5], [1]], [[.5, .5]]), "rows of one length"), "NaN among probabilities": (lambda: comprehensiveness([[NAN, 1]], [[0, 1]]), "not finite"),
    "one class": (lambda: task_scores([[1.0]], [0]), "one class only"), "no numbers": (lambda: task_scores([["a", "b"]], [0]), "expected numbers"), "half a label": (lambda: task_scores([[.5, .5]], [.5]), "label 0.5"),
    "no resamples": (lambda: interval(np.mean, [1, 2], n=0), "n must be"), "level": (lambda: interval(np.mean, [1, 2], level=95), "level must be"), "NaN metric": (lambda: interval(np.mean, [NAN, 1]), "not finite"),
    "no shares": (lambda: judge(tiny.make_model("bert"), tiny.text_data().test, shares=[]), "a share or more"), "pictures for texts": (lambda: judge(tiny.make_model("bert"), tiny.image_examples(2, 0)), "hold images, the model reads texts"),
    "no examples": (lambda: judge(tiny.make_model("bert"), []), "no examples"), "no models": (lambda: at_shares({}, tiny.text_data().test), "name a model"), "nobody to cross": (lambda: crossed({}, tiny.text_data().test), "name a model"),
    "another mask": (lambda: replacement_difference(tiny.make_model("bert"), tiny.make_batch(), torch.ones(1, 2)), "a mask must have the shape"),
    "a span outside": (lambda: human_rationale("a b", [(2, 9)], "x"), "3 characters"), "marks in one string": (lambda: human_rationale("a b", "a", "x"), "list of phrases"), "a number for a span": (lambda: human_rationale("a b", [3], "x"), "marked span"),
    "fewer marks than spans": (lambda: Explanation("a", {}, ["a", "b"], [1], [.5], "a b", [(0, 1), (2, 3)])._repr_html_(), "one mask value a span"),
    "a span beyond the text": (lambda: to_terminal(Explanation("a", {}, ["a"], [1], [.5], "a", [(0, 7)])), "1 characters"), "a film backwards": (lambda: rationale_gif([human_rationale("a", ["a"], "x")], ["c"], seconds=-1), "seconds"),
    "a frame without room": (lambda: draw_frame(human_rationale("a", ["a"], "x"), width=10), "width"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_in_one_line(what):
    call, said = REFUSED[what]
    with pytest.raises(RekdError, match=said) as e: call()
    assert "\n" not in str(e.value)


def test_scores_of_any_size_have_a_shade():
    for score in (NAN, 7.0, -3.0): assert "background:#" in Explanation("a", {}, ["a"], [1], [score], "a", [(0, 1)])._repr_html_()
    assert draw_frame(human_rationale("a b", ["a"], "x"), "two\nlines").height > 60
