"""Lay out the pages of the docs site, and build it into the folder that is named, or docs/_build/html.

Notebooks keep their place, so that links between them hold. nbdev's directives and hidden cells go; a link to a file that is no page becomes a download."""
import os
import re
import shutil
import sys
import tempfile
import urllib.parse
from pathlib import Path

import nbformat

TOP = Path(__file__).resolve().parents[1]
PAGES = ("docs/index.md", "CHANGELOG.md", "CONTRIBUTING.md")


def cleaned(nb):
    "A notebook as a reader of the site sees it."
    kept = []
    for c in nb.cells:
        if c.cell_type == "code":
            if re.match(r"\s*#\|\s*(hide\b(?!_)|default_exp)", c.source): continue
            directives = re.findall(r"^\s*#\|.*$", c.source, flags=re.M)
            c.source = re.sub(r"^\s*#\|.*\n?", "", c.source, flags=re.M).strip("\n")
            if any("hide_input" in d or "echo: false" in d for d in directives): c.metadata["tags"] = ["remove-input"]
            c.outputs = [o for o in c.outputs if o.get("output_type") != "error"]
            if not c.source.strip() and not c.outputs: continue
        kept.append(c)
    nb.cells = kept
    return nb


def titled(text: str, # a page's first cell
    name: str, # of the notebook
) -> str:
    "With a title that the sidebar can show: chapters and solutions have their number, and the front door is not called as the site is."
    number = name[:2] if re.match(r"\d\d_", name) else ""
    if number: return re.sub(r"^# (?:Solutions: )?", lambda m: f"# Solutions {number} " if m[0] != "# " else f"# {number} ", text)
    return re.sub(r"^# rekd$", "# rekd in one page", text, flags=re.M) if name == "index" else text


def links(text):
    "Relative targets of links and pictures in Markdown."
    found = re.findall(r"\]\(\s*<?([^)\s>]+)>?", text) + re.findall(r"""(?:href|src)=["']([^"']+)""", text)
    return [t for t in found if not re.match(r"[a-z][a-z0-9+.-]*:|//|#", t)]


def stage(out: Path):
    "All pages below `out`, with what they link to."
    notebooks = [f for f in sorted(TOP.glob("nbs/**/*.ipynb")) if ".ipynb_checkpoints" not in f.parts]
    pages = [*notebooks, *(TOP / p for p in PAGES if (TOP / p).is_file())]
    for page in pages:
        there = out / page.relative_to(TOP / "docs" if page.parent.name == "docs" else TOP) # the front page moves up
        there.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".ipynb":
            nb = cleaned(nbformat.read(page, as_version=4))
            for c in nb.cells: # Sphinx knows no anchors within a table
                if c.cell_type == "markdown": c.source = re.sub(r"(glossary\.ipynb)#[\w-]+", r"\1", c.source)
            if nb.cells and nb.cells[0].cell_type == "markdown": nb.cells[0].source = titled(nb.cells[0].source, page.stem)
            text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
            nbformat.write(nb, there)
        else:
            text = page.read_text()
            there.write_text(text.replace("](../", "](") if page.parent.name == "docs" else text)
        for target in links(text):
            file = (page.parent / urllib.parse.unquote(target.partition("#")[0])).resolve()
            if file in pages or not file.is_file() or not file.is_relative_to(TOP): continue
            copy = out / file.relative_to(TOP)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    shutil.copy(TOP / "docs" / "conf.py", out / "conf.py")
    shutil.copytree(TOP / "docs" / "_static", out / "_static")
    (out / "api").mkdir()
    modules = [f.stem for f in sorted((TOP / "rekd").glob("[!_]*.py"))]
    for m in modules:
        (out / "api" / f"{m}.rst").write_text(f"rekd.{m}\n{'=' * (len(m) + 5)}\n\n.. automodule:: rekd.{m}\n")
    (out / "api" / "index.md").write_text("# API\n\nWhat each module exports. The notebook of the same name tells why.\n\n```{toctree}\n:maxdepth: 1\n\n"
                                          + "\n".join(modules) + "\n```\n")


def build(out: Path) -> int: # Sphinx's exit code; a warning is an error
    "The site in a folder."
    from sphinx.cmd.build import main
    os.environ["REKD_TOP"] = str(TOP)
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder) / "src")
        return main(["-q", "-W", "--keep-going", "-j", "auto", "-b", "html", str(Path(folder) / "src"), str(out)])


if __name__ == "__main__": sys.exit(build(Path(sys.argv[1] if len(sys.argv) > 1 else TOP / "docs" / "_build" / "html")))
