"""Make a checkout ready to be built for PyPI, as in: python tools/release.py https://github.com/ME/rekd v0.1.0.

The repository's address goes where pyproject.toml has OWNER, and into the README's links, which on PyPI have no files beside them.
It changes files in place: the release workflow runs it in a checkout of its own."""
import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
PLACEHOLDER = "https://github.com/OWNER/rekd"


def whole_links(text: str, repository: str, tag: str) -> str:
    "Markdown with the addresses of its relative links and pictures written out; code stays as it is."
    def one(m):
        if re.match(r"[a-z][a-z0-9+.-]*:|//|#", m[3]): return m[0]
        return f"{m[1]}{m[2]}({repository}/{'raw' if m[1] else 'blob'}/{tag}/{m[3]})"
    parts = re.split(r"(^```.*?^```$|`[^`\n]+`(?!\]))", text, flags=re.S | re.M)
    return "".join(p if i % 2 else re.sub(r"(!?)(\[[^\]]*\])\(([^)\s]+)\)", one, p) for i, p in enumerate(parts))


def release(top: Path, repository: str, tag: str):
    "Write README.md and pyproject.toml anew. ValueError for an address that is none, or a tag that is not the version's."
    if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", repository) or "OWNER" in repository:
        raise ValueError(f"the repository's address has the form https://github.com/ME/rekd, got {repository}")
    version = re.search(r'__version__ = "([^"]+)"', (top / "rekd" / "__init__.py").read_text())[1]
    if tag != f"v{version}": raise ValueError(f"the tag must be v{version}, as rekd/__init__.py says, got {tag}")
    if f"## [{version}]" not in (top / "CHANGELOG.md").read_text(): raise ValueError(f"CHANGELOG.md says nothing about {version}")
    owner, name = repository.split("/")[-2:]
    project, readme = top / "pyproject.toml", top / "README.md"
    project.write_text(project.read_text().replace(PLACEHOLDER, repository).replace("https://OWNER.github.io/rekd", f"https://{owner}.github.io/{name}"))
    readme.write_text(whole_links(readme.read_text(), repository, tag))


if __name__ == "__main__":
    try: release(TOP, *sys.argv[1:3])
    except (TypeError, ValueError) as e: sys.exit(f"release: {e}")
