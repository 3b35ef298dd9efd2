"""Which module imports which: `python tools/imports.py [PICTURE.svg]` draws it, and fails on an arrow upwards or a private name across modules."""

import ast
import sys
from pathlib import Path

# a module imports only from those before it
ORDER = """
    errors settings registry machine checkpoint
    select backbone vision pretrained processor check draw hub inputs model auto export
    loss context objective estimate
    table stream rows crowd data guard steps train
    measure evaluate compare judge documents plot show report attribute teachers vocabulary
    config preset run study results starter
    console explore serve answers cli
""".split()
HOME = Path(__file__).resolve().parents[1] / "rekd"


def imports(folder: Path = HOME) -> dict[str, dict[str, list[str]]]:
    "Module -> module it imports from -> names, wherever in the file the import stands."
    found: dict[str, dict[str, list[str]]] = {}
    for file in sorted(folder.glob("[!_]*.py")):
        mine = found.setdefault(file.stem, {})
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom): continue
            names, module = [a.name for a in node.names], node.module or ""
            if node.level == 1 or module.split(".")[0] == "rekd":
                inner = module if node.level else module.partition(".")[2]
                for other in [inner] if inner else [n for n in names if (folder / f"{n}.py").is_file()]:
                    mine.setdefault(other, []).extend(names if inner else [])
    return found


def complaints(found: dict[str, dict[str, list[str]]]) -> list[str]:
    "What is not allowed, a line each."
    out = [f"{m}: not in ORDER of tools/imports.py" for m in found if m not in ORDER]
    known = [m for m in found if m in ORDER]
    for m in known:
        for other, names in found[m].items():
            if other in ORDER and ORDER.index(other) >= ORDER.index(m): out.append(f"{m} imports upwards from {other}: {', '.join(names)}")
            private = [n for n in names if n.startswith("_") and not n.startswith("__")]
            if private: out.append(f"{m} takes private names of {other}: {', '.join(private)}")
    return out


def draw(found: dict[str, dict[str, list[str]]], file: Path):
    "Modules in their order, an arc a pair: whoever is lower reads from above."
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch
    modules = [m for m in ORDER if m in found]
    fig = Figure(figsize=(8, 0.36 * len(modules) + 0.6), layout="constrained")
    ax, place = fig.subplots(), {m: -i for i, m in enumerate(modules)}
    for m, y in place.items():
        ax.text(-0.1, y, m, ha="right", va="center", fontsize=11)
        for other in found[m]:
            if other not in place: continue
            wrong = place[other] <= y
            style = dict(lw=2.5, color="#D55E00") if wrong else dict(lw=0.8, color="#0072B2", alpha=0.55)
            ax.add_patch(FancyArrowPatch((0, y), (0, place[other]), connectionstyle=f"arc3,rad={-0.5 if wrong else 0.5}",
                                         arrowstyle="-|>", mutation_scale=9, **style))
    ax.set(xlim=(-3, len(modules) / 3), ylim=(-len(modules), 1))
    ax.axis("off")
    fig.savefig(file)


if __name__ == "__main__":
    found = imports()
    if len(sys.argv) > 1: draw(found, Path(sys.argv[1]))
    bad = complaints(found)
    print("\n".join(bad) or f"{len(found)} modules, {sum(map(len, found.values()))} arrows, none upwards, no private name across")
    sys.exit(bool(bad))
