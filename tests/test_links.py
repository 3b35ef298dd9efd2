"Every link inside the repository leads somewhere: files, and headings by GitHub's rules. README, the other pages, and all notebooks."
import json
import re
import urllib.parse
from pathlib import Path

import pytest

top = Path(__file__).parents[1]
PAGES = sorted(p for p in [*top.glob("*.md"), *top.glob("nbs/**/*.ipynb"), *top.glob("artifacts/models/*/README.md"), *top.glob("docs/**/*.md")]
               if ".ipynb_checkpoints" not in p.parts)


def prose(file):
    "The markdown of a page, without code."
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    text = re.sub(r"^---\n.*?\n---\n", "", text, flags=re.S) # a model card's metadata
    text = re.sub(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1", "", text, flags=re.S | re.M)
    return text

def anchor(heading):
    "GitHub's name for a heading: small letters, no marks but - and _, blanks to hyphens."
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading) # a link's text
    text = re.sub(r"[*`]|(?<!\w)_|_(?!\w)", "", text).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")

def anchors(text):
    "All anchors of a page; the second heading of one name gets -1, and so on."
    seen, found = {}, set()
    for heading in re.findall(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", text, flags=re.M):
        name = anchor(heading)
        found.add(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return found | set(re.findall(r"""<a\s+(?:name|id)=["']([^"']+)""", text))

def links(text):
    "The targets of links and pictures."
    text = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text) # inline code
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\)", text)
    return inline + re.findall(r"^ {0,3}\[[^\]^]+\]:\s*<?(\S+?)>?(?:\s|$)", text, flags=re.M) + re.findall(
        r"""<(?:a|img)\s[^>]*?(?:href|src)=["']([^"']+)""", text)

def dead(file, text=None):
    "What a page links to and is not there."
    for target in links(prose(file) if text is None else text):
        if re.match(r"[a-z][a-z0-9+.-]*:|//", target): continue # elsewhere
        path, _, heading = urllib.parse.unquote(target).partition("#")
        there = (file.parent / path).resolve() if path else file
        if not there.exists(): yield f"{target}: no such file"
        elif not there.is_relative_to(top): yield f"{target}: outside the repository"
        elif heading and heading not in anchors(prose(there) if there != file or text is None else text): yield f"{target}: no such heading"


@pytest.mark.parametrize("file", PAGES, ids=lambda p: str(p.relative_to(top)))
def test_no_link_is_dead(file):
    assert list(dead(file)) == []

def test_the_pages_are_found():
    names = {str(p.relative_to(top)) for p in PAGES}
    assert {"README.md", "nbs/index.ipynb", "nbs/experiments/imdb/imdb.ipynb"} <= names

@pytest.mark.parametrize("heading, name", [
    ("One epoch, or two?", "one-epoch-or-two"), ("On a GPU, with a deeper teacher", "on-a-gpu-with-a-deeper-teacher"),
    ("Whose *noise*?", "whose-noise"), ("`fit` and its `out`", "fit-and-its-out"), ("A [link](x.md) in it", "a-link-in-it"),
    ("What's new", "whats-new"), ("a_b and -- c", "a_b-and----c"), ("Größe & Übung", "größe--übung")])
def test_anchors_are_github_s(heading, name):
    assert anchor(heading) == name

def test_a_heading_twice_is_numbered():
    assert anchors("# The parts\n\n## The parts\n\n### The parts\n") == {"the-parts", "the-parts-1", "the-parts-2"}

@pytest.mark.parametrize("text", [
    "[a](#nothing)", "[a](imdb.ipynb#a-heavier-penalty-for-re)", "[a](no-such-page.ipynb)", "![a](../images/no-such.png)",
    "[a](/etc/passwd)", "[a]: gone.md", '<img src="gone.png">', '[a](gone.md "with a title")', "[a](<gone.md>)"])
def test_a_dead_link_is_seen(text):
    assert len(list(dead(top / "nbs" / "experiments" / "cifar10" / "cifar10.ipynb", text))) == 1

@pytest.mark.parametrize("text", [
    "[a](#here)\n\n## Here", "`[a](gone.md)`", "[a](https://x.org/gone.md#b)", "[a](mailto:a@b.org)", "[a](../imdb/imdb.ipynb#one-epoch-or-two)",
    "[a](../../../LICENSE)", "[a](../imdb/imdb.ipynb#one%2Depoch-or-two)"])
def test_a_good_link_is_left_alone(text):
    assert list(dead(top / "nbs" / "experiments" / "cifar10" / "cifar10.ipynb", text)) == []
