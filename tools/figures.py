"""What README, docs and talks show: `make figures` draws it into figures/. With names only these, e.g. `python tools/figures.py architecture`."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
OUT = TOP / "figures"
os.chdir(TOP) # settings.ini of the clone
INK, GREY, PALE, BLUE, GOLD, RED = "#222222", "#9a9a9a", "#f3f3f3", "#0072B2", "#E69F00", "#D55E00"
WORDS = "the plot is dull but the cast is an absolute joy".split()
SCORES = [.04, .12, .06, .55, .30, .03, .10, .05, .08, .82, .95]
CHAPTERS = dict(select={"mask"}, backbone={"backbone"}, model={"generator", "mask", "predictor", "class"}, loss={"loss"}, objective={"loss", "teacher"},
                estimate={"gradient"}, train={"gradient", "loss"}, evaluate={"class", "people"}, show={"kept", "class"}, attribute={"predictor", "attribution"})


def architecture(lit: set[str] | None = None):
    "The one picture: input, generator, mask, predictor, class, and the teacher above them; what is not `lit` is grey."
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
    on = lambda *parts: lit is None or bool(lit & set(parts))
    fig = Figure(figsize=(11, 4.6))
    ax = fig.add_axes([0, 0, 1, 1])
    ax.set(xlim=(0, 22), ylim=(-1.35, 7.85))
    ax.axis("off")

    def box(x, y, w, h, text, *parts, colour=BLUE, note="", size=13):
        live = on(*parts)
        ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0.02,rounding_size=0.18", lw=2 if live else 1.2,
                                    ec=colour if live else GREY, fc="#e8f2f9" if live and colour == BLUE else "#fdf3dc" if live else "white"))
        ax.text(x + w / 2, y + h / 2 + (0.22 if note else 0), text, ha="center", va="center", fontsize=size, color=INK if live else GREY,
                weight="bold" if live else "normal")
        if note:
            there = on("backbone")
            ax.text(x + w / 2, y + h / 2 - 0.35, note, ha="center", va="center", fontsize=10, color=INK if there else GREY,
                    weight="bold" if there and lit else "normal")

    def arrow(a, b, *parts, style="-|>", colour=INK, ls="-", bend=0.0, lw=1.6):
        live = on(*parts)
        ax.add_patch(FancyArrowPatch(a, b, arrowstyle=style, mutation_scale=14, lw=lw if live else 1.1, ls=ls, color=colour if live else GREY,
                                     connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0))

    def text(x, y, s, *parts, size=11, colour=INK, **kw):
        ax.text(x, y, s, fontsize=size, color=colour if on(*parts) else GREY, ha=kw.pop("ha", "center"), va="center", **kw)

    def strip(x, y, words, kept, *parts, whole=False):
        "Eleven words under each other as short bars: what is kept is gold."
        for i, w in enumerate(words):
            top = y + 3.3 - i * 0.33
            k = kept[i]
            live = on(*parts)
            ax.add_patch(Rectangle((x, top - 0.27), 1.75, 0.27, lw=0.5, ec=GREY, fc=(GOLD if live else "#dddddd") if k else "white"))
            if k or whole: ax.text(x + 0.875, top - 0.14, w, fontsize=7.6, ha="center", va="center", color=INK if live else GREY)

    keep = [s > 0.5 for s in SCORES]
    y = 0.75
    strip(0.4, y, WORDS, [0] * len(WORDS), "input", whole=True)
    text(1.28, y - 0.72, "input", "input")
    box(3.3, y + 0.7, 3.3, 2.0, "generator", "generator", note="backbone + head")
    for i, s in enumerate(SCORES): # keep probabilities
        top = y + 3.3 - i * 0.33
        live = on("mask", "generator", "gradient")
        ax.add_patch(Rectangle((7.75, top - 0.25), 1.5 * s, 0.23, lw=0, fc=(GOLD if keep[i] else "#b9cfdf") if live else "#dddddd"))
    text(8.5, y - 0.72, "keep probability", "mask", "generator")
    strip(10.4, y, WORDS, keep, "mask", "kept")
    text(11.28, y - 0.72, "rationale", "mask", "kept")
    box(13.3, y + 0.7, 3.3, 2.0, "predictor", "predictor", note="backbone + head")
    for i, (name, p) in enumerate((("negative", .14), ("positive", .86))):
        live = on("class")
        ax.add_patch(Rectangle((17.9, y + 1.95 - i * 0.75), 2.2 * p, 0.42, lw=0, fc=(BLUE if i else "#b9cfdf") if live else "#dddddd"))
        text(17.9, y + 2.55 - i * 0.75, name, "class", size=10, ha="left")
    text(19, y - 0.72, "class", "class")
    for a, b in (((2.25, y + 1.7), (3.2, y + 1.7)), ((6.7, y + 1.7), (7.6, y + 1.7))): arrow(a, b, "generator", "input")
    arrow((9.35, y + 1.7), (10.3, y + 1.7), "mask")
    text(9.85, y + 2.05, "choose", "mask", size=10)
    arrow((12.25, y + 1.7), (13.2, y + 1.7), "predictor", "kept")
    arrow((16.7, y + 1.7), (17.75, y + 1.7), "class", "predictor")
    # teacher
    t = 6.1
    box(3.3, t, 3.3, 1.2, "teacher's\ngenerator", "teacher", colour=GOLD, size=11)
    box(13.3, t, 3.3, 1.2, "teacher's\npredictor", "teacher", colour=GOLD, size=11)
    arrow((1.28, y + 3.45), (3.2, t + 0.7), "teacher", bend=-0.25)
    arrow((8.5, t + 0.1), (8.5, y + 3.4), "loss", colour=RED, style="<|-|>", ls=(0, (4, 2)))
    arrow((6.7, t + 0.7), (8.35, t + 0.15), "teacher", bend=-0.2)
    text(8.2, 5.0, "$L_r$  choose\nlike the teacher", "loss", colour=RED, ha="right", size=11)
    arrow((11.28, y + 3.4), (13.2, t + 0.45), "teacher", bend=-0.2)
    arrow((16.7, t + 0.7), (18.85, t + 0.15), "teacher", bend=-0.2)
    arrow((19, t + 0.1), (19, y + 3.2), "loss", colour=RED, style="<|-|>", ls=(0, (4, 2)))
    text(18.75, 5.0, "$L_y$  conclude\nlike the teacher", "loss", colour=RED, ha="right", size=11)
    text(21.15, y + 1.7, "$CE$\nbe right", "loss", "people", colour=RED, size=11)
    text(11.28, y - 1.3, r"$\Omega$  be brief", "loss", colour=RED, size=11)
    if lit and "gradient" in lit:
        ax.add_patch(FancyArrowPatch((14.9, y + 0.6), (4.9, y + 0.6), arrowstyle="-|>", mutation_scale=16, lw=2.2, color=RED, connectionstyle="arc3,rad=-0.22"))
        text(7.6, -0.95, "how does a gradient\npass a choice?", "gradient", colour=RED, size=11)
    return fig


def draw_architecture():
    "figures/architecture.svg and .png, and a PNG for each chapter with its part lit."
    for name, lit in {"": None, **{f"-{k}": v for k, v in CHAPTERS.items()}}.items():
        fig = architecture(lit)
        fig.savefig(OUT / f"architecture{name}.png", dpi=110)
        if not name: fig.savefig(OUT / "architecture.svg")


REVIEW = ("The plot is nothing new and the first half hour drags, but the two leads are wonderful together. "
          "By the end I was laughing out loud, and I would happily see it again.")


def load(name: str):
    "A shipped model."
    from rekd.model import RationaleModel
    from rekd.run import find_model
    return RationaleModel.from_pretrained(find_model(name))


def draw_review():
    "figures/review.png: what a teacher and a small student keep of one review."
    from PIL import Image
    from rekd.show import draw_frame, verdict
    frames = [draw_frame(e := load(name).explain(REVIEW), f"{title}: {verdict(e)}", width=760)
              for name, title in (("imdb-teacher", "a teacher of four layers"), ("imdb-gru-rekd", "a student, a GRU taught by it"))]
    page = Image.new("RGB", (max(f.width for f in frames), sum(f.height for f in frames)), "white")
    for i, f in enumerate(frames): page.paste(f, (0, sum(g.height for g in frames[:i])))
    page.save(OUT / "review.png")


def draw_film():
    "figures/film.gif: a rationale that shrinks from all words to a twentieth of them."
    from rekd.show import rationale_gif, verdict
    model, shares = load("imdb-teacher"), (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
    told = [model.explain(REVIEW, sparsity=min(s, 0.999)) for s in shares]
    (OUT / "film.gif").write_bytes(rationale_gif(told, [f"{s:.0%} of the words: {verdict(e)}" for s, e in zip(shares, told)], seconds=1.2))


def draw_picture():
    "figures/picture.png: four pictures of the starter set and the patches that a student keeps."
    from rekd.rows import load_rows
    from rekd.show import image_grid
    rows, labels = load_rows("cifar10", starter=True)
    some = rows["test"].select(range(4))
    told = load("cifar10-rekd").explain([r["input"] for r in some])
    image_grid([{"student": e} for e in told], [labels[r["label"]] for r in some], heat=True).savefig(OUT / "picture.png", dpi=110)


def draw_results():
    "figures/results.png: accuracy by model on IMDB and CIFAR-10, a dot a seed."
    from matplotlib.figure import Figure
    from rekd.study import read_study, results_file
    fig = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    for ax, (study, start, title) in zip(fig.subplots(1, 2), (("cpu-imdb-longer", "paper", "IMDB, a tenth of the words"),
                                                              ("cpu-cifar10", "paper", "CIFAR-10, 15% of the patches"))):
        rows = [r for r in read_study(results_file(study)) if not r.get("variant") and r["start"] == start]
        for i, (o, mask) in enumerate((("random", "random"), ("re", "topk"), ("rekd", "topk"), ("cls", "none"))):
            seen = [r["masks"][mask]["accuracy"] for r in rows if r["objective"] == o] or [r["masks"][mask]["accuracy"] for r in read_study(
                results_file("cpu-imdb")) if (r["objective"], r["start"]) == (o, start)] # REKD has two epochs there; blind masks one
            colour = {"re": BLUE, "rekd": RED}.get(o, GREY) # as in the notebooks
            ax.hlines(sum(seen) / max(len(seen), 1), i - 0.3, i + 0.3, color=colour, lw=2)
            ax.plot([i + 0.08 * (k - (len(seen) - 1) / 2) for k in range(len(seen))], seen, "o", color=colour, ms=5)
            ax.annotate(f"{sum(seen) / max(len(seen), 1):.3f}", (i, max(seen) + 0.012), ha="center", fontsize=10)
        ax.set_xticks(range(4), ["blind", "RE", "REKD", "CLS\n(sees all)"], fontsize=11)
        ax.set(title=title, ylim=(0.4, 0.9), xlim=(-0.6, 3.6))
        ax.spines[["top", "right"]].set_visible(False)
    fig.axes[0].set_ylabel("test accuracy: seeds, and their mean", fontsize=11)
    fig.savefig(OUT / "results.png")


def draw_report():
    "figures/report.png: the report of two students, as a browser shows it (needs Chromium)."
    from playwright.sync_api import sync_playwright
    from rekd.cli import main
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        main(["report", "imdb-gru-re", "imdb-gru-rekd", "--examples", "6", "--n-test", "200", "--out", f"{folder}/report.html"])
        page = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"]).new_page(viewport=dict(width=1280, height=800))
        page.goto(f"file://{folder}/report.html")
        below = page.evaluate("Math.max(...[...document.querySelectorAll('.card')].map(e => e.getBoundingClientRect().bottom))") # whole cards
        page.screenshot(path=OUT / "report.png", full_page=True, clip=dict(x=0, y=0, width=1280, height=below + 16))


def open_page(p, address: str, **options):
    "A page of a server that may still be starting."
    page = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"]).new_page(**options)
    for _ in range(90):
        try:
            page.goto(address)
            return page
        except Exception: time.sleep(2)
    raise SystemExit(f"no answer from {address}")


def draw_explore():
    "figures/explore.png: `explore` in JupyterLab, another sentence typed in (needs Chromium)."
    import nbformat
    from playwright.sync_api import sync_playwright
    code = ("from rekd.explore import explore\nfrom rekd.model import RationaleModel\nfrom rekd.run import find_model\n\n"
            "load = lambda name: RationaleModel.from_pretrained(find_model(name))\n"
            "models = {name: load(name) for name in (\"imdb-teacher\", \"imdb-gru-rekd\")}\n"
            "explore(models, \"The plot is nothing new, but the two leads are wonderful together.\", sparsity=0.3)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        kernel = dict(kernelspec=dict(name="python3", display_name="Python 3"))
        nbformat.write(nbformat.v4.new_notebook(metadata=kernel, cells=[nbformat.v4.new_code_cell(code)]), f"{folder}/explore.ipynb")
        lab = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=7921", "--IdentityProvider.token=x",
                                f"--ServerApp.root_dir={folder}"],
                               env=os.environ | dict(REKD_ARTIFACTS=str(TOP / "artifacts"), JUPYTERLAB_SETTINGS_DIR=folder))
        try:
            page = open_page(p, "http://127.0.0.1:7921/lab/tree/explore.ipynb?token=x&reset", viewport=dict(width=1280, height=540))
            page.click(".jp-CodeCell .jp-InputArea-editor", timeout=30_000)
            page.keyboard.press("Control+Enter")
            page.wait_for_selector("mark", timeout=180_000)
            page.locator("textarea").last.fill("A dull film that nobody should have to see, and a terrible end.")
            page.wait_for_selector("mark:has-text('dull')")
            page.locator("button:has-text('No')").last.click() # news of Jupyter
            page.wait_for_timeout(1000)
            page.screenshot(path=OUT / "explore.png")
        finally: lab.terminate()


def draw_serve():
    "figures/serve.png: the served page of two models (needs Chromium and gradio)."
    from playwright.sync_api import sync_playwright
    server = subprocess.Popen([sys.executable, "-m", "rekd.cli", "serve", "imdb-small", "imdb-teacher", "--port", "7911"])
    try:
        with sync_playwright() as p:
            page = open_page(p, "http://127.0.0.1:7911", viewport=dict(width=1280, height=530))
            page.fill("textarea", "The plot is nothing new and the first half hour drags, but the two leads are wonderful together. "
                                  "By the end I was laughing out loud, and I would happily see it again.")
            page.wait_for_selector("mark", timeout=60_000)
            page.screenshot(path=OUT / "serve.png")
    finally: server.terminate()


FIGURES = dict(architecture=draw_architecture, review=draw_review, film=draw_film, picture=draw_picture, results=draw_results, report=draw_report,
               explore=draw_explore, serve=draw_serve)

if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES: FIGURES[name]()
