"The docs site: all notebooks, and the API from docstrings. `make docs` stages the pages with docs/stage.py, then runs Sphinx on them."
import os
import re
import sys
import tomllib
from pathlib import Path

TOP = Path(os.environ["REKD_TOP"]) # docs/stage.py says where the repository is
sys.path.insert(0, str(TOP))

import rekd # noqa: E402
from docutils import nodes # noqa: E402
from fastcore.docments import docments # noqa: E402
from latex2mathml.converter import convert # noqa: E402
from sphinx.util import logging # noqa: E402

project, author, release = "rekd", "The rekd developers", rekd.__version__
copyright = "The rekd developers, Apache-2.0"
html_title = f"rekd {release}"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

# notebooks as they were saved; headings have GitHub's anchors, so that links work there and here
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst" # the table of the front page
html_math_renderer = "mathml" # below: browsers draw it themselves, without a script from elsewhere
myst_heading_anchors = 6
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
repository = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
if "OWNER" not in repository: html_theme_options = dict(source_repository=repository, source_branch="main", source_directory="")

# the API: what a module exports, with the comments behind parameters (docments) as their description
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "show-inheritance": False}


def plain(text):
    "A comment as reStructuredText shows it: stars and bars mean themselves, except in code."
    parts = " ".join(str(text).split()).split("`")
    return "`".join(re.sub(r"([*|_\\\\])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))


def add_docments(app, what, name, obj, options, lines):
    "The comments of a signature, as fields of the docstring."
    if what not in ("function", "method", "class"): return
    try: said = docments(obj, full=True)
    except Exception: return # no source, as in a property
    told = [(k, v.docment) for k, v in said.items() if k != "self" and getattr(v, "docment", None)]
    if not told: return
    lines.append("")
    for k, text in told: lines.append(f":{'returns' if k == 'return' else f'param {k}'}: {plain(text)}")


def mathml(tex, display): # "block" or "inline"
    "TeX as MathML, with what the converter does not know said in another way."
    return convert(tex.replace(r"\arg", r"\operatorname{arg}").replace(r"\|", "‖"), display=display)


def formula(writer, node):
    "A formula of a page. A command that the converter does not know is a warning, which stops the build."
    block = node.tagname == "math_block"
    found = mathml(node.astext(), "block" if block else "inline")
    if "\\" in found: logging.getLogger(__name__).warning("a formula has an unknown command: %s", node.astext(), location=node)
    writer.body.append(f'<div class="math">{found}</div>' if block else found)
    raise nodes.SkipNode


def setup(app):
    "Called by Sphinx."
    app.connect("autodoc-process-docstring", add_docments)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
