"Write README.md from nbs/index.ipynb: prose, code and text outputs, with links that work from the top of the repo."
import re
from pathlib import Path

from nbconvert import MarkdownExporter

top = Path(__file__).parents[1]
text, _ = MarkdownExporter().from_filename(str(top / "nbs" / "index.ipynb"))
text = re.sub(r"```python\n#\| hide\n.*?```\n", "", text, flags=re.S) # cells that a reader need not see
text = re.sub(r"\]\((?!https?:|#|\.\./)", "](nbs/", text).replace("](../", "](")
text = re.sub(r"\n{3,}", "\n\n", text)
(top / "README.md").write_text("<!-- Made from nbs/index.ipynb by `make readme`: change that. -->\n\n" + text.strip() + "\n")
