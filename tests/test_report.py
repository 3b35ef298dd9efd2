"The report in a real browser: what it shows is what the models said, nothing in the data can run, and a keyboard is enough."
import json
import os
import re
import shutil

import pytest
import tiny
import torch
from PIL import Image

from rekd.cli import main
from rekd.documents import read_document
from rekd.errors import DataError, SettingError
from rekd.evaluate import keep_scores
from rekd.select import topk_mask
from rekd.report import RATES, report_data, report_page, stratified_sample, whole_test

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
EVIL = '--></script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2"> <svg onload="window.hacked = 3"> good klm \u2028 {{DATA}}'


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")
    if not CHROMIUM: pytest.skip("no chromium on the path: the browser tests need one")
    with api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, tmp_path):
    "Open a page from disk without a network; at the end nothing may have complained, asked for a dialog, or fetched anything."
    seen, contexts = [], []
    def go(page, **options):
        file = tmp_path / f"{len(contexts)}.html"
        file.write_text(page, encoding="utf-8")
        contexts.append(browser.new_context(offline=True, **(dict(viewport=dict(width=1200, height=800)) | options)))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(60_000)
        tab.on("console", lambda m: seen.append(f"console: {m.text}"))
        tab.on("pageerror", lambda e: seen.append(f"error: {e}"))
        tab.on("dialog", lambda d: (seen.append(f"dialog: {d.message}"), d.dismiss()))
        tab.on("request", lambda r: None if r.url == file.as_uri() or r.url.startswith("data:") else seen.append(f"request: {r.url}"))
        tab.goto(file.as_uri())
        return tab
    yield go
    for c in contexts: c.close()
    assert seen == []


def models(*kinds): return {f"{kind} {i}": tiny.make_model(kind, i) for i, kind in enumerate(kinds)}


def texts():
    made, truths, _ = tiny.planted_texts(10, 0, words=14)
    return ["\U0001f642 " + made[0], made[1] + " " + "klm " * 40, *made[2:]], truths # letters outside the first plane; longer than what a model reads


@pytest.fixture(scope="module")
def told():
    some, (sources, truths) = models("bert", "bigru", "bert"), texts()
    return some, sources, truths, report_data(some, sources, truths, about="Ten toys.")


@pytest.fixture(scope="module")
def page(told): return report_page(told[3], "A <test>")


def to_rate(tab, k):
    tab.focus("#rate")
    tab.keyboard.press("Home")
    for _ in range(k): tab.keyboard.press("ArrowRight")


def topk(model, source, rate):
    "The mask over selectable features as Python makes it."
    batch = model.processor([source])
    with torch.inference_mode(): logits = model.select(batch)
    able = model.selectable(batch)
    return topk_mask(logits[..., 1] - logits[..., 0], able, rate)[able].int().tolist()


# ---- what is stored

def test_data_holds_what_the_models_say(told):
    some, sources, truths, data = told
    assert json.loads(json.dumps(data))["models"] == list(some)
    for e, source, truth in zip(data["examples"], sources, truths):
        assert e["truth"] == truth
        for m, model in zip(e["models"], some.values()):
            pieces = [p for word in m["words"] for p in word]
            for k, rate in enumerate(RATES):
                said = model.explain(source, sparsity=rate)
                assert [p[2] >> k & 1 for p in pieces] == said.mask == topk(model, source, rate) and m["kept"][k] == sum(said.mask)
                assert m["probs"][k] == pytest.approx(list(said.probabilities.values()), abs=1e-4) and data["labels"][m["said"][k]] == said.label
            assert [(p[0], p[1]) for p in pieces] == said.spans and [p[3] for p in pieces] == pytest.approx(said.scores, abs=1e-3)


def test_metrics_are_those_of_the_examples(told):
    some, sources, truths, data = told
    for name, metrics in zip(some, data["metrics"]):
        for k, rate in enumerate(RATES):
            es = some[name].explain(sources, sparsity=rate)
            full = some[name].explain(sources, sparsity=1.0)
            assert metrics["accuracy"][k] == pytest.approx(sum(e.label == data["labels"][y] for e, y in zip(es, truths)) / len(es), abs=1e-4)
            assert metrics["selection_rate"][k] == pytest.approx(sum(sum(e.mask) / len(e.mask) for e in es) / len(es), abs=1e-4)
            assert metrics["sufficiency"][k] == pytest.approx(sum(f.probabilities[f.label] - e.probabilities[f.label] for e, f in zip(es, full)) / len(es), abs=2e-4)


def test_models_of_one_task_only(text_model, image_model):
    other = tiny.make_model("bert")
    other.config.labels = ["x", "y"]
    with pytest.raises(SettingError, match="image"): report_data({"a": image_model}, ["good"], [0])
    with pytest.raises(SettingError, match="b knows the classes x, y"): report_data({"a": text_model, "b": other}, ["good"], [0])


def test_odd_inputs(visit):
    "One word, half a surrogate pair, a model that may select [CLS] and [SEP], people who marked nothing: odd, not an error."
    for some, humans in (({"a": tiny.make_model("bert", select_special=True)}, None), (models("bert"), [[0, 0], [0, 0]])):
        data = report_data(some, ["\ud83d klm", "good klm"], [0, 1], humans)
        tab = visit(report_page(data))
        tab.click("#next")
        assert set(data["metrics"][0]) == {"accuracy", "selection_rate", "comprehensiveness", "sufficiency"}
        assert tab.text_content("article .text") == "good klm" and "NaN" not in tab.inner_text("#table")
    with pytest.raises(DataError, match="no examples"): report_data(models("bert"), [], [])


def test_single_removals_are_what_the_models_say(told):
    "Of every kept word up to the share to start with, the prediction without it, as one that asks for each in turn."
    some, sources, truths, data = told
    assert all(len(m["drops"]) == data["start"] + 1 for e in data["examples"] for m in e["models"])
    for e, source in zip(data["examples"][:3], sources):
        for m, model in zip(e["models"], some.values()):
            batch = model.processor([source])
            able = model.selectable(batch)[0]
            pieces = [(a, b, w) for w, word in enumerate(m["words"]) for a, b, *_ in word]
            owner = {(a, b): w for a, b, w in pieces}
            word = torch.tensor([owner.get(s, -1) for s in model.processor.spans(source)])
            for k, drops in enumerate(m["drops"]):
                kept = torch.zeros(len(able)).masked_scatter(able, torch.tensor(topk(model, source, RATES[k])).float())
                assert [d[0] for d in drops] == sorted({int(w) for w in word[kept > 0]})
                for unit, said, p, before in drops:
                    with torch.inference_mode(): probs = model.predict(batch, (kept * (word != unit))[None]).softmax(-1)[0]
                    assert int(probs.argmax()) == said and p == pytest.approx(float(probs[said]), abs=2e-3) and before == pytest.approx(float(probs[m["said"][k]]), abs=2e-3)


def test_removals_in_windows_and_of_patches():
    "A document's word is dropped from the window that holds it; a patch like a word."
    text, model = " ".join(["good klm dull kala"] * 20), tiny.make_model("bert")
    e, = report_data({"a": model}, [text], [0], [[0, 1] * 40])["examples"]
    batch, owner = read_document(model.processor, text)
    assert len(owner) > 1
    scores = keep_scores(model, batch)
    for k, drops in enumerate(e["models"][0]["drops"]):
        mask = topk_mask(scores, model.selectable(batch), RATES[k])
        for unit, said, p, _ in drops:
            with torch.inference_mode(): probs = model.predict(batch, mask * (owner != unit)).mean(0).softmax(-1)
            assert p == pytest.approx(float(probs[said]), abs=2e-3)
    assert max(map(len, e["models"][0]["drops"])) <= 40
    vit = tiny.make_model("vit")
    m, = report_data({"a": vit}, tiny.images(1, 0), [0])["examples"][0]["models"]
    for k, drops in enumerate(m["drops"]): assert [d[0] for d in drops] == [i for i, (bits, _) in enumerate(m["patches"]) if bits >> k & 1]


# ---- in the browser

def test_a_reader_drops_a_word_and_shares_the_link(told, page, visit):
    data, tab = told[3], visit(page)
    i = next(i for i, e in enumerate(data["examples"]) if all(len(m["drops"][data["start"]]) > 1 for m in e["models"]))
    tab.select_option("#example", str(i))
    e, k = data["examples"][i], data["start"]
    box = tab.query_selector_all("article .drop")[1]
    box.query_selector("summary").click()
    chips, m = box.query_selector_all("button"), e["models"][1]
    assert len(chips) == len(m["drops"][k]) and "Switch a word off" in box.inner_text()
    for chip, (unit, said, p, _) in zip(chips[:2], m["drops"][k]):
        chip.click()
        word = e["text"][m["words"][unit][0][0]:m["words"][unit][-1][1]]
        assert f"Without “{word}”: {data['labels'][said]} {100 * p:.0f}%" in box.inner_text()
        assert [c.get_attribute("aria-pressed") for c in chips].count("true") == 1
        assert tab.inner_text("article mark.gone") == word and tab.evaluate("document.activeElement.tagName") == "BUTTON"
    link = tab.url
    assert link.endswith(f"#example={i + 1}&share={100 * RATES[k]:g}&drop=2.{unit + 1}")
    other = tab.context.new_page()
    other.goto(link)
    assert other.input_value("#example") == str(i) and other.inner_text("article mark.gone") == word and f"Without “{word}”" in other.inner_text("#cards")
    chips[1].click()
    assert tab.query_selector("mark.gone") is None and "&drop=" not in tab.url
    chips[0].click()
    tab.click("#next")
    assert tab.query_selector("mark.gone") is None and f"example={i + 2}" in tab.url and "&drop=" not in tab.url
    to_rate(tab, 9)
    assert "share=100" in tab.url and "measured for shares up to" in tab.inner_text("#cards") and not tab.query_selector("article .drop button")


def test_a_link_that_makes_no_sense_does_nothing(told, page, visit):
    tab = visit(page)
    tab.evaluate("location.hash = '#example=4&share=50'")
    tab.wait_for_function("document.getElementById('example').value === '3'")
    assert tab.inner_text("#share") == "50%"
    for odd in ("example=99&share=x&drop=9.9", "example=-1", "drop=<img src=x>&example=1e3", "share=%", "example=2&drop=1.__proto__&share=1e999"):
        tab.evaluate(f"location.hash = '#{odd}'")
        tab.wait_for_timeout(50)
        assert len(tab.query_selector_all("article")) == 3 and tab.query_selector("mark.gone") is None


def test_one_input_without_a_truth(visit):
    "As `rekd explain --html` writes it: no filters, nothing right or wrong, the slider at the share that was asked for."
    model = tiny.make_model("bert")
    text = "good klm <b>dull</b> kala"
    data = report_data({"a": model}, [text], rates=(0.1, 0.37, 1.0), start=0.37)
    tab = visit(report_page(data, "One"))
    assert tab.inner_text("#share") == "37%" and not tab.is_visible("#filter") and not tab.is_visible("#example") and not tab.is_visible("#metrics")
    assert not tab.query_selector(".badge") and "ruly" not in tab.inner_text("main") and "undefined" not in tab.inner_text("body") and "NaN" not in tab.inner_text("body")
    assert [m.inner_text() for m in tab.query_selector_all("mark.kept")] == [f for f, m in zip(*(lambda e: (e.features, e.mask))(model.explain(text, sparsity=0.37))) if m]
    assert "accuracy" not in data["metrics"][0]


def test_slider_marks_what_topk_keeps(told, page, visit):
    some, sources, truths, data = told
    tab = visit(page)
    seen = []
    for k, rate in enumerate(RATES):
        to_rate(tab, k)
        assert tab.inner_text("#share") == f"{rate:.0%}"
        cards = tab.query_selector_all("article")
        seen.append(len(tab.query_selector_all("article mark")))
        for card, model in zip(cards, some.values()):
            e, mask = model.explain(sources[0], sparsity=rate), topk(model, sources[0], rate)
            assert [m.inner_text() for m in card.query_selector_all("mark")] == [f for f, m in zip(e.features, mask) if m]
            assert f"from {sum(mask)} of {len(mask)} word pieces" in card.inner_text()
            label, p = re.search(r"(negative|positive) (\d+)%", card.inner_text()).groups()
            assert label == e.label and int(p) == pytest.approx(100 * e.probabilities[label], abs=0.51)
            assert ("right" in card.inner_text()) == (e.label == data["labels"][truths[0]])
            assert f"{label} {p}%" in tab.inner_text("#said") # what a screen reader hears
        assert f"at {rate:.0%}" in tab.inner_text("#table") and f"{data['metrics'][0]['accuracy'][k]:.3f} (" in tab.inner_text("#table")
    assert seen == sorted(seen) and len(set(seen)) > 5 # the marked words change, and only grow
    assert tab.text_content("article .text") == sources[0] # every character is there


def test_starts_at_the_models_sparsity_and_says_where_reading_ends(page, visit):
    tab = visit(page)
    assert tab.inner_text("#share") in ("20%", "30%") # the tiny models' is 25%
    assert "reads no further" not in tab.inner_text("#cards")
    tab.click("#next")
    assert "reads no further" in tab.inner_text("#cards")


def test_filters(told, page, visit):
    some, sources, truths, data = told
    tab = visit(page)
    for k in (0, 4, 9):
        to_rate(tab, k)
        said = [[m["said"][k] for m in e["models"]] for e in data["examples"]]
        want = {"all": [True] * 10, "every model right": [all(s == y for s in row) for row, y in zip(said, truths)],
                "some model wrong": [any(s != y for s in row) for row, y in zip(said, truths)], "models disagree": [len(set(row)) > 1 for row in said]}
        for name, which in want.items():
            assert f"{name} ({sum(which)})" in tab.inner_text("#filter")
            tab.select_option("#filter", "all")
            tab.select_option("#example", "0")
            tab.select_option("#filter", name)
            shown = [int(o.get_attribute("value")) for o in tab.query_selector_all("#example option")]
            assert shown == ([i for i, w in enumerate(which) if w] or [0])
            assert f"1 of {sum(which)}" in tab.inner_text("#position") if any(which) else "no example" in tab.inner_text("#position")


def test_example_stays_when_the_slider_moves_it_out(told, page, visit):
    data, tab = told[3], visit(page)
    every = [[all(m["said"][k] == e["truth"] for m in e["models"]) for k in range(10)] for e in data["examples"]]
    i, verdicts = next((i, v) for i, v in enumerate(every) if len(set(v)) == 2)
    to_rate(tab, verdicts.index(True))
    tab.select_option("#filter", "every model right")
    tab.select_option("#example", str(i))
    to_rate(tab, verdicts.index(False))
    assert tab.input_value("#example") == str(i)


def test_hostile_reviews_do_nothing(visit):
    some = {"<img src=x onerror='window.hacked = 4'>": tiny.make_model("bert")}
    some[next(iter(some))].config.labels = ["</script><script>window.hacked = 5</script>", "good"]
    tab = visit(report_page(report_data(some, [EVIL, EVIL], [0, 1], about=EVIL), EVIL))
    to_rate(tab, 9)
    tab.click("#next")
    tab.wait_for_timeout(300)
    assert tab.evaluate("window.hacked") is None
    assert EVIL[:60] in tab.text_content("article .text")
    assert tab.evaluate("document.querySelectorAll('img, script:not([id]), main svg[onload]').length") == 1 # the page's own script


def test_a_smuggled_script_would_be_refused(told, browser, tmp_path):
    "The second lock: even a script that got into the page may not run."
    broken = report_page(told[3]).replace("</body>", "<script>window.hacked = 1</script></body>")
    (tmp_path / "x.html").write_text(broken, encoding="utf-8")
    tab = browser.new_page()
    tab.goto((tmp_path / "x.html").as_uri())
    assert tab.evaluate("window.hacked") is None and tab.query_selector("article")
    tab.close()


def test_keyboard_alone(told, page, visit):
    tab = visit(page)
    tab.keyboard.press("ArrowRight")
    assert tab.input_value("#example") == "1"
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    assert tab.input_value("#example") == "9" # around the end
    reached, ring = [], []
    for _ in range(12):
        tab.keyboard.press("Tab")
        name = tab.evaluate("document.activeElement.id || document.activeElement.tagName")
        if name == "BODY": break
        reached.append(name)
        ring.append(tab.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
        if name == "filter":
            tab.keyboard.press("ArrowDown")
            assert tab.input_value("#filter") == "every model right"
            tab.keyboard.press("ArrowUp")
        if name == "previous":
            tab.keyboard.press("Enter")
            assert tab.input_value("#example") == "8"
        if name == "next":
            tab.keyboard.press("Space")
            assert tab.input_value("#example") == "9"
        if name == "example":
            tab.keyboard.press("ArrowUp")
            assert tab.input_value("#example") == "7"
            tab.keyboard.press("ArrowDown")
        if name == "rate":
            tab.keyboard.press("End")
            assert tab.inner_text("#share") == "100%" and tab.get_attribute("#rate", "aria-valuetext") == "100%"
        if name == "SUMMARY" and tab.evaluate("!document.activeElement.closest('.drop')"):
            tab.keyboard.press("Enter")
            assert "ERASER" in tab.inner_text("#meanings")
    assert reached == ["filter", "previous", "example", "next", "rate", *["SUMMARY"] * 3, "DIV", "SUMMARY"] and set(ring) == {"solid"}
    named = "e => e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()"
    assert all(tab.eval_on_selector_all("select, input, button, [role=img], [role=region]", f"all => all.map({named})"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_contrast(page, visit, scheme):
    tab = visit(page, viewport=dict(width=375, height=700), color_scheme=scheme)
    to_rate(tab, 3)
    tab.click("article .drop summary")
    tab.click("article .drop button")
    assert tab.query_selector("mark.gone")
    assert tab.evaluate("document.documentElement.scrollWidth") == 375
    assert min(tab.eval_on_selector_all("select, button, input", "all => all.map(e => e.getBoundingClientRect().height)")) >= 38 # a finger's width
    contrast = """selector => {
      const rgb = c => { const x = document.createElement("canvas").getContext("2d"); x.fillStyle = c; x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data] }
      const light = c => rgb(c).slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0)
      const ground = e => { while (rgb(getComputedStyle(e).backgroundColor)[3] === 0 && e.parentElement) e = e.parentElement; return getComputedStyle(e).backgroundColor }
      return [...document.querySelectorAll(selector)].map(e => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x); return (a + .05) / (b + .05) })
    }"""
    for selector, least in (("mark", 4.5), (".drop summary, .drop p", 4.5), (".text .faded, .part, p, h1, h2, label, .badge, td, th, select, button", 4.5)):
        found = tab.evaluate(contrast, selector)
        assert not found or min(found) >= least, (selector, min(found))
    assert tab.evaluate(contrast, "mark") and tab.evaluate(contrast, ".text .faded")


def test_interval_of_the_accuracy(page, visit):
    tab = visit(page)
    assert [tab.evaluate(f"wilson({p}, 10)") for p in (0, 0.5, 1)] == ["0.00 to 0.28", "0.24 to 0.76", "0.72 to 1.00"] # Wilson, 1927


def test_print_leaves_the_controls_out(page, visit):
    tab = visit(page)
    tab.emulate_media(media="print")
    assert not tab.is_visible("#rate") and not tab.is_visible("#filter") and tab.is_visible("article")


def test_images(visit):
    some, pictures = models("vit", "dinov2"), tiny.images(4, 0)
    data = report_data(some, pictures, [0, 1, 0, 1])
    tab = visit(report_page(data))
    for k in (0, 3, 7):
        to_rate(tab, k)
        for card, model in zip(tab.query_selector_all("article"), some.values()):
            mask, side = topk(model, pictures[0], RATES[k]), tiny.SIZE // tiny.PATCH
            drawn = [(int(r.get_attribute("y")), int(r.get_attribute("x"))) for r in card.query_selector_all("rect.patch")]
            assert drawn == [divmod(i, side) for i, m in enumerate(mask) if m]
            assert f"from {sum(mask)} of 16 patches" in card.inner_text()
    assert tab.evaluate("document.querySelector('article image').href.baseVal").startswith("data:image/webp;base64,")


# ---- the commands

def eraser(folder):
    "Reviews with human marks, as the ERASER files have them; longer than what a model reads at once."
    import datasets
    made, truths, places = tiny.planted_texts(6, 3, words=70)
    rows = [dict(annotation_id=str(i), text=t, label=y, evidence=[dict(start_token=p, end_token=p + 1, start_sentence=-1, end_sentence=-1, text=t.split()[p])])
            for i, (t, y, p) in enumerate(zip(made, truths, places))]
    folder.mkdir()
    for part in ("train", "val", "test"): datasets.Dataset.from_list(rows).to_parquet(folder / f"{part}.parquet")
    return made, truths, places


@pytest.fixture
def saved(tmp_path, monkeypatch):
    "A starter set and saved tiny models."
    import datasets
    monkeypatch.setenv("REKD_ARTIFACTS", str(tmp_path / "artifacts"))
    made, truths, _ = tiny.planted_texts(12, 1)
    for name, rows in (("imdb", [dict(text=t, label=y) for t, y in zip(made, truths)]), ("cifar10", [dict(image=im, label=i % 2) for i, im in enumerate(tiny.images(6, 0, 32))])):
        folder = tmp_path / "artifacts" / "data" / name
        folder.mkdir(parents=True)
        for part in ("train", "test"): datasets.Dataset.from_list(rows).to_parquet(folder / f"{part}.parquet")
        (folder / "label_names.json").write_text(json.dumps(tiny.LABELS))
    for kind in ("bert", "bigru", "vit"): tiny.make_model(kind).save_pretrained(tmp_path / kind)
    return tmp_path


def stored(file): return json.loads(re.search(r'id="data">(.*?)</script>', file.read_text(encoding="utf-8"), re.S)[1])


def test_report_command_and_human_rationales(saved, capsys, visit):
    made, truths, places = eraser(saved / "movies")
    main(["report", str(saved / "bert"), str(saved / "bigru"), "--dataset", str(saved / "movies"), "--examples", "4", "--out", str(saved / "new" / "r.html")])
    said = capsys.readouterr().out
    assert "token_f1" in said and "bigru" in said and "r.html" in said
    data = stored(saved / "new" / "r.html")
    assert len(data["examples"]) == 4 and set(data["metrics"][0]) == {"accuracy", "selection_rate", "comprehensiveness", "sufficiency", "token_f1", "iou_f1", "auprc"}
    chosen = stratified_sample(truths, 4)
    for e, i in zip(data["examples"], chosen):
        words = [p for word in e["human"] for p in word]
        assert e["truth"] == truths[i] and [k for k, p in enumerate(words) if p[2]] == [places[i]]
        for m in e["models"]: assert m["n"] == 70 and m["kept"][-1] == 70 # read to the end
    tab = visit((saved / "new" / "r.html").read_text(encoding="utf-8"))
    human = tab.query_selector_all("article")[-1]
    assert human.inner_text().startswith("human") and "marked 1 of 70 words" in human.inner_text()
    assert [m.inner_text() for m in human.query_selector_all("mark")] == [made[chosen[0]].split()[places[chosen[0]]]]
    assert "token F1" in tab.inner_text("#table") and "AUPRC" in tab.inner_text("#table")


@pytest.mark.parametrize("kind, n", [("bert", 12), ("vit", 6)])
def test_report_defaults_to_the_starter_set(saved, kind, n):
    main(["report", str(saved / kind)])
    data = stored(saved / "report.html")
    assert len(data["examples"]) == n and data["labels"] == tiny.LABELS and "starter set" in data["about"]
    assert "models disagree" not in json.dumps(data)


@pytest.mark.parametrize("args, said", [
    (["report", "bert", "--examples", "0"], "--examples must be at least 1"),
    (["report", "nowhere"], "nowhere"),
    (["report", "bert", "vit"], "vit reads images"),
    (["report", "vit", "--dataset", "imdb", "--starter"], "reads images"),
    (["explain", "bert"], "--text-file"),
    (["explain", "bert", "--text", "a", "--image", "photo.png"], "one input"),
    (["explain", "bert", "--text-file", "nothing.txt"], "no file nothing.txt"),
    (["explain", "bert", "--text-file", "latin.txt"], "not UTF-8"),
    (["explain", "bert", "--text-file", "blank.txt"], "blank.txt is empty"),
    (["explain", "vit", "--image", "nothing.png"], "no file nothing.png"),
    (["explain", "vit", "--image", "latin.txt"], "not a picture"),
    (["explain", "vit", "--image", "cut.png"], "damaged"),
    (["explain", "vit", "--text", "a film"], "reads images, not texts"),
    (["explain", "bert", "--image", "photo.png"], "reads texts, not images"),
])
def test_wrong_input_ends_in_one_line(saved, args, said):
    (saved / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (saved / "blank.txt").write_text(" \n")
    tiny.images(1, 0, 64)[0].save(saved / "photo.png")
    (saved / "cut.png").write_bytes((saved / "photo.png").read_bytes()[:2000])
    with pytest.raises(SystemExit) as e: main(args)
    assert said in str(e.value) and "\n" not in str(e.value)


def labelled(labels):
    model = tiny.make_model("bert")
    model.config.labels = labels
    return dict(a=model)


def test_classes_of_the_data_must_be_the_models(saved):
    with pytest.raises(DataError, match="the data have the classes negative, positive, the model knows x, y"): whole_test(labelled(["x", "y"]), "imdb", True)
    there, back = (whole_test(labelled(names), "imdb", True) for names in (tiny.LABELS, tiny.LABELS[::-1]))
    assert back[0].labels == [1 - y for y in there[0].labels] and not there[2] + back[2] # by name, not by number, and nothing to say


def test_explain_a_file_of_ones_own(saved, capsys, visit):
    (saved / "review.txt").write_text("good klm <b>dull</b>\n\nkam", encoding="utf-8")
    main(["explain", str(saved / "bert"), "--text-file", "review.txt", "--html", "text.html", "--sparsity", "0.5"])
    assert "[" in capsys.readouterr().out
    tab = visit((saved / "text.html").read_text(encoding="utf-8"), viewport=dict(width=375, height=700))
    assert "good klm <b>dull</b>" in tab.inner_text("article .text") and tab.query_selector("mark") # of both tags a piece was kept
    assert tab.evaluate("document.documentElement.scrollWidth") == 375

    upright = Image.new("RGB", (40, 20), "red")
    exif = upright.getexif()
    exif[0x0112] = 6 # held upright: stored lying
    upright.save("photo.jpg", exif=exif)
    main(["explain", str(saved / "vit"), "--image", "photo.jpg", "--html", "image.html"])
    assert "## " in capsys.readouterr().out
    tab = visit((saved / "image.html").read_text(encoding="utf-8"))
    assert [i.get_attribute("aria-label") for i in tab.query_selector_all("svg.picture")] == ["the whole picture", "4 of 16 patches kept"] # the picture itself beside its rationale


def test_template_is_shipped():
    import rekd
    assert os.path.isfile(os.path.join(os.path.dirname(rekd.__file__), "report.html"))


def test_classes_of_eraser_are_named_or_said(tmp_path):
    "Its 0 and 1 are the model's classes in its order, and the page says so; with names they are read by name."
    truths = eraser(tmp_path / "movies")[1]
    test, _, said = whole_test(labelled(tiny.LABELS), str(tmp_path / "movies"))
    assert test.labels == truths and "0 was taken for negative, 1 was taken for positive" in said
    (tmp_path / "movies" / "label_names.json").write_text(json.dumps(tiny.LABELS))
    for labels in (tiny.LABELS, tiny.LABELS[::-1]): assert [labels[y] for y in whole_test(labelled(labels), str(tmp_path / "movies"))[0].labels] == [tiny.LABELS[y] for y in truths]
    with pytest.raises(DataError, match="the model knows x, y"): whole_test(labelled(["x", "y"]), str(tmp_path / "movies"))
