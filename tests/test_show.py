"Pictures of rationales: text stays text, every feature is drawn as it was chosen, seeds make bands."
import io
import json
import re

import pytest
import tiny
from hypothesis import given, strategies as st
from PIL import Image

from rekd.errors import DataError, RekdError
from rekd.draw import Explanation, _text_html, pieces_by_word
from rekd.show import draw_frame, human_rationale, image_grid, plot_temperature, rationale_gif, rationale_page, segments, side_by_side, soft_choices, to_terminal, verdict
from rekd.plot import plot_curves, plot_seeds, plot_traces, runs_by_model

LETTERS = st.text(st.sampled_from("ab<>&\"' \n日é🙂.#"), max_size=30)


@st.composite
def explained(draw):
    "A text with any spans that do not overlap, any mask and any scores."
    text = draw(LETTERS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    spans = list(zip(cuts[::2], cuts[1::2]))
    mask = draw(st.lists(st.integers(0, 1), min_size=len(spans), max_size=len(spans)))
    scores = draw(st.lists(st.floats(0, 1), min_size=len(spans), max_size=len(spans)))
    return Explanation("good", {"good": 0.75, "bad": 0.25}, [text[a:b] for a, b in spans], mask, scores, text, spans)


def plain(markup):
    import html
    return html.unescape(re.sub("<[^>]*>", "", markup))


@given(explained())
def test_every_drawing_holds_the_whole_text(e):
    assert "".join(s for s, _ in segments(e)) == e.source
    assert plain(_text_html(e.source, e.spans, e.mask, e.scores)) == e.source
    assert "\x1b" not in to_terminal(e, colour=False, width=None)


@given(explained())
def test_marks_are_the_kept_pieces(e):
    kept = [e.source[a:b] for (a, b), m in dict(zip(e.spans, e.mask)).items() if m and b > a]
    marked = [plain(m) for m in re.findall(r"<mark[^>]*>.*?</mark>", _text_html(e.source, e.spans, e.mask, e.scores), re.S)]
    if len(set(e.spans)) == len(e.spans): assert marked == kept


@given(explained())
def test_words_hold_each_piece_once(e):
    numbers = [i for word in pieces_by_word(e.source, e.spans) for i in word]
    assert numbers == [i for i, (a, b) in enumerate(e.spans) if a < b]


def test_pieces_with_one_span_are_kept_if_any_is():
    "Byte-level tokenizers cut an emoji into several pieces, all with its span."
    for mask in ([0, 1, 0], [1, 0, 0]): assert segments(Explanation(label="a", probabilities={"a": 1.0}, features=["🙂", "🙂", "x"], mask=mask, scores=[.4, .6, .1], source="🙂 x", spans=[(0, 1), (0, 1), (2, 3)])) == [("🙂", True), (" x", False)]


def test_pieces_of_one_word_read_as_one():
    e = Explanation("good", {"good": 1.0}, ["un", "forget", "table", "."], [0, 1, 0, 0], [0.1, 0.9, 0.2, 0.1], "unforgettable.", [(0, 2), (2, 8), (8, 13), (13, 14)])
    drawn = e._repr_html_()
    assert drawn.count("dotted") == 2 and drawn.count("opacity") == 1 # the rest of the word stays readable, the full stop does not


def test_what_was_not_read_looks_like_it():
    "The tail beyond the length limit was not dropped by the model, and no drawing may say so."
    whole, cut = (Explanation("good", {"good": 1.0}, ["good", "film"], [1, 0], [0.9, 0.1], text, [(0, 4), (5, 9)]) for text in ("good film.", "good film, or not"))
    assert "italic" not in whole._repr_html_() and '<span style="opacity:.65;font-style:italic">, or not</span>' in cut._repr_html_()
    assert [to_terminal(e, colour=False) for e in (whole, cut)] == ["[good] film.", "[good] film ... (the rest was not read)"]


def test_stronger_ground_for_surer_pieces():
    grounds = [re.search("background:(#......)", _text_html("a", [(0, 1)], [1], [p]))[1] for p in (0.0, 0.3, 0.6, 1.0)]
    light = [sum(int(g[i:i + 2], 16) for i in (1, 3, 5)) for g in grounds]
    assert light == sorted(light, reverse=True) and len(set(light)) == 4


def test_two_kept_words_are_one_bar():
    "What stands between them has their ground and their weight: another weight may come from another font, which is higher or lower."
    drawn = _text_html("the very good", [(0, 3), (4, 8), (9, 13)], [0, 1, 1], [.1, .9, .8])
    blank = re.search(r'<span style="([^"]*)"> </span><mark style="[^"]*" title="[^"]*">good', drawn)[1]
    assert "background:" in blank and "font-weight:600" in blank and drawn.count("font-weight:600") == 3


def test_human_rationale():
    text = "A dull, dull film. The end is <b>superb</b>."
    by_words, by_spans = human_rationale(text, ["dull", "superb"], "bad"), human_rationale(text, [(2, 6), (8, 12), (33, 39)], "bad")
    assert by_words.mask == by_spans.mask == [0, 1, 1, 0, 0, 0, 0, 1]
    assert verdict(by_words, "bad") == "bad, right" and "(" not in by_words._repr_html_().split("<div")[1]
    with pytest.raises(DataError, match="'fine' is not in the text"): human_rationale(text, ["fine"], "bad")
    assert sum(human_rationale("", [], "bad").mask) == 0


def test_pages_escape_names_labels_titles_and_texts():
    evil = "</script><img src=x onerror=alert(1)>"
    e = Explanation(evil, {evil: 1.0}, ["a"], [1], [0.5], evil, [(0, 1)])
    for page in (rationale_page([{evil: e}, {evil: e}], [evil, evil], evil, evil), side_by_side({evil: e}, evil)): assert "<img" not in page and "<script" not in page
    other, person = Explanation("other", {"other": 1.0}, ["a"], [1], [0.5], "a", [(0, 1)]), human_rationale("a", [], "other")
    for word in ("right", "wrong"): assert word in rationale_page([{"a": e, "b": other}], [evil])
    assert ", wrong" not in side_by_side({"b": person}, evil) # a person's label is not judged


def test_grid_of_images(image_model):
    models, pictures = {"teacher": image_model, "student": tiny.make_model("vit", 1)}, tiny.images(3, 0)
    told = [dict(zip(models, es)) for es in zip(*(m.explain(pictures) for m in models.values()))]
    for heat, columns in ((False, 3), (True, 5)):
        fig = image_grid(told, ["negative"] * 3, heat)
        fig.savefig(io.BytesIO())
        assert len(fig.axes) == 3 * columns + heat
        assert fig.axes[1].get_xlabel() == verdict(told[0]["teacher"], "negative")


def rows():
    history = lambda d, sparsity: [dict(epoch=k, temperature=1 / (k + 1), sparsity_target=0.1, train=dict(ce=1.0 - d) | sparsity, val=dict(accuracy=0.5 + d * k, expected_rate=0.1))
                                   for k in range(3)]
    return [dict(objective=o, start=start, seed=seed, epochs=history(0.1 * seed, {} if o == "cls" else dict(sparsity=1.0)))
            for o, start in (("cls", "paper"), ("re", "paper"), ("re", "warm")) for seed in (0, 1, 2)]


def test_curves_of_seeds_have_mean_and_band():
    runs = runs_by_model(rows())
    assert {k: len(v) for k, v in runs.items()} == {"CLS": 3, "RE": 3, "RE, warm start": 3}
    fig = plot_curves(runs)
    ce, accuracy, rate, _ = fig.axes
    assert list(accuracy.lines[0].get_ydata()) == pytest.approx([0.5, 0.6, 0.7])
    assert len(accuracy.lines) == 3 and len(rate.lines) == 3 # two that select, and the target
    band = accuracy.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(0.7 + 0.2) and band.min() == pytest.approx(0.5) # at the last epoch the seeds have 0.5, 0.7 and 0.9
    fig.savefig(io.BytesIO())


def test_traces_of_epochs_are_one_line_a_model():
    trace = lambda k: [dict(step=10 * k + s, temperature=5.0 / (10 * k + s), ce=1.0 / s, kept=0.2) for s in (5, 10)]
    runs = {"RE": [[dict(trace=trace(0)), dict(trace=trace(1))]] * 2, "CLS": [[dict(trace=[dict(step=s, temperature=1.0, ce=0.5) for s in (5, 10)])]]}
    fig = plot_traces(runs)
    ce, kept = fig.axes[:2]
    assert list(ce.lines[0].get_xdata()) == [5, 10, 15, 20] and len(ce.lines) == 2 and len(kept.lines) == 1 # CLS keeps all
    assert [list(line.get_xdata()) for line in fig.axes[2].lines] == [[5, 10, 15, 20], [5, 10]] # each cools at its own pace
    fig.savefig(io.BytesIO())
    with pytest.raises(ValueError, match="no traces"): plot_traces({"RE": rows()[0]["epochs"]})


def test_seeds_are_tied_in_pairs():
    some = [dict(objective=o, start="paper", seed=s, masks={"topk" if "re" in o else "none": dict(accuracy=0.5 + 0.1 * s)}) for o, s in (("cls", 1), ("re", 1), ("re", 2), ("rekd", 1))]
    ax, = plot_seeds(some, teacher=0.9).axes
    assert [t.get_text().split()[0] for t in ax.get_xticklabels()] == ["RE", "REKD", "CLS"]
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.6, 0.6], [0.9, 0.9]] # one pair, and the teacher
    warm, = plot_seeds([r | dict(start="warm") for r in some if r["objective"] == "re"], teacher=0.9).axes # whose teacher is another
    assert not warm.lines and warm.get_legend() is None


def test_one_run_and_many_models_are_drawn():
    one = rows()[0]["epochs"]
    plot_curves({"CLS": one}).savefig(io.BytesIO())
    assert len(plot_curves({f"model {i}": one for i in range(9)}).axes[0].lines) == 9


def test_temperature_hardens_and_never_changes_a_choice():
    scores = [0.0, 0.03, 0.4, 0.9, 1.0]
    hot, cold = soft_choices(scores, 5.0), soft_choices(scores, 0.1)
    assert ((hot > 0.5) == (cold > 0.5)).all() and (cold - 0.5).abs().mean() > (hot - 0.5).abs().mean()
    assert soft_choices(scores, 1.0, draws=3).shape == (3, 5)
    plot_temperature(scores).savefig(io.BytesIO())


def test_film(text_model):
    es = [text_model.explain("good klm dull <b>", sparsity=s) for s in (0.1, 0.5, 1.0)]
    for explanations in (es, [tiny.make_model("vit", k).explain(tiny.images(1, 0)[0]) for k in range(3)]):
        gif = rationale_gif(explanations, ["one", "two, with a longer caption " * 3, "three"], seconds=0.2)
        with Image.open(io.BytesIO(gif)) as film:
            assert film.n_frames == 3
            film.seek(2)
            assert film.info["duration"] == 600
    with pytest.raises(RekdError, match="3 and 2"): rationale_gif(es, ["a", "b"])
    with pytest.raises(RekdError): rationale_gif([], [])


@pytest.mark.parametrize("text", ["", " \n", "a" * 200, "日本 🙂"])
def test_any_text_makes_a_frame(text):
    image = draw_frame(human_rationale(text, [], "good"), "caption")
    assert image.width >= 100 and image.height >= 60


def test_an_explanation_is_json_and_html_without_anything_kept():
    e = Explanation("good", {}, [], [], [], "", [])
    assert json.dumps(e.to_dict()) and "good" in e._repr_html_() and segments(e) == []
