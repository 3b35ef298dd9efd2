"""Run mypy over rekd/, with each `@patch`ed function moved into the class that it extends, where a type checker can see it."""
import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def patched(node: ast.stmt) -> str | None:
    "What a decorator `@patch` becomes in a class body; None for any other statement."
    for d in getattr(node, "decorator_list", []):
        name, options = (d.func, [k.arg for k in d.keywords]) if isinstance(d, ast.Call) else (d, [])
        if isinstance(name, ast.Name) and name.id == "patch": return {"as_prop": "@property", "cls_method": "@classmethod"}[options[0]] if options else ""
    return None


def inline(source: str) -> list[tuple[int, str]]:
    "The lines of a module with its patched functions in their classes, each with the number that it has in the source."
    tree, lines = ast.parse(source), list(enumerate(source.splitlines(), 1))
    ends = {n.name: n.end_lineno for n in tree.body if isinstance(n, ast.ClassDef)}
    moved: dict[int, list[tuple[int, str]]] = {}
    gone: set[int] = set()
    for node in tree.body:
        if (decorator := patched(node)) is None: continue
        first = node.args.args[0] # `self: Class`, whose annotation a class body does not need
        if first.annotation.id not in ends: continue # a class of another module
        body = lines[node.decorator_list[0].lineno - 1:node.end_lineno]
        gone |= {i for i, _ in body}
        for i, line in body:
            if line.startswith("@patch"): line = decorator
            if i == first.lineno: line = line[:first.col_offset + len(first.arg)] + line[first.annotation.end_col_offset:]
            moved.setdefault(ends[first.annotation.id], []).append((i, "    " + line))
    return [out for i, line in lines if i not in gone for out in [(i, line), *moved.get(i, [])]]


def check(package: Path) -> int:
    "Print what mypy says of a package, in the line numbers of its own files; mypy's exit code."
    with tempfile.TemporaryDirectory() as folder:
        copy, files = Path(folder) / package.name, {}
        for f in package.rglob("*.py"):
            name = f.relative_to(package.parent)
            files[str(name)] = inline(f.read_text())
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_text("\n".join(line for _, line in files[str(name)]) + "\n")
        command = [sys.executable, "-m", "mypy", "--config-file", str(TOP / "pyproject.toml"), "--cache-dir", str(TOP / ".mypy_cache"), copy.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    back = lambda m: f"{m[1]}:{files[m[1]][int(m[2]) - 1][0]}:"
    print(re.sub(r"^(\S+\.py):(\d+):", back, done.stdout, flags=re.M) + done.stderr, end="")
    return done.returncode


if __name__ == "__main__": sys.exit(check(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else TOP / "rekd"))
