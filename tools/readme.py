"Write README.md from nbs/index.ipynb: prose, code and outputs (figures to nbs/images), with links that work from the top of the repo."
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

top = Path(__file__).parents[1]
nb = nbformat.read(top / "nbs" / "index.ipynb", as_version=4)
nb.cells = [c for c in nb.cells if c.source.split("\n")[0] != "#| hide"]
for c in nb.cells:
    if c.source.startswith("#| hide_input"): c.cell_type, c.source = "markdown", "".join(o.data["text/markdown"] for o in c.outputs) # only what it shows
nb.metadata["language_info"] = {"name": "python"}
text, resources = MarkdownExporter().from_notebook_node(nb)
for i, (name, data) in enumerate(resources["outputs"].items(), 1):
    picture = top / "nbs" / "images" / f"readme-{i}.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(data)
    text = text.replace(f"({name})", f"(images/{picture.name})")
text = re.sub(r"\]\((?!https?:|#|\.\./)", "](nbs/", text).replace("](../", "](")
text = re.sub(r"\n{3,}", "\n\n", text)
(top / "README.md").write_text("<!-- Made from nbs/index.ipynb by `make readme`: change that. -->\n\n" + text.strip() + "\n")
