"""The house rules: who imports whom, who asks for a device, nothing at import time, small files, no stray names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "diffusers", "transformers", "gradio")
LIMIT = 300
# Files that may be longer, each with its reason.
LONGER: dict[str, str] = {}

# (who, may not import, except these)
RULES = [
    ("pipelines", ("studio", "app", "gradio"), ()),
    ("studio", ("app",), ()),
    ("studio", ("gradio", "gradio_client"), ("studio.ui",)),
    ("studio", ("studio.ui",), ("studio.ui", "studio.cli", "studio.__main__")),
    ("studio", ("studio.server",), ("studio.ui", "studio.server", "studio.cli", "studio.__main__")),
    ("studio.ui", ("torch", "diffusers", "transformers", "peft", "xformers", "safetensors", "pipelines"), ()),
    ("studio", ("peft",), ()),
    ("pipelines", ("peft",), ("pipelines.weights",)),
    ("studio.training", ("studio.engine", "studio.jobs", "studio.worker", "studio.batch", "studio.ui"), ()),
    ("studio.training", ("studio.toybox.examiner",), ()),
    ("studio.training.loop", ("studio.training.objectives",), ()),
    ("studio.training.objectives", ("torch.optim",), ()),
]
# bases.py and its device half.
DEVICE_ROOMS = ("studio.bases", "studio.devices")
DEVICE_QUESTION = re.compile(r"torch\.(cuda|xpu|mps|accelerator|backends\.(mps|cuda))(\.|$)")
KEY_NAMES = re.compile(r"lora_(unet|te\d?|A|B|up|down)(?![a-z])|hada_w|lokr_w|oft_(diag|blocks)|\.alpha$")
# Calls that do work; at module level they would run when the module is imported.
WORK = {"mkdir", "makedirs", "parse_args", "is_available", "open", "basicConfig", "from_pretrained", "load_file", "run"}
# Calls that only fill a table of this program.
TABLES = {"command", "add_typer", "register", "update", "append", "getLogger", "NullHandler", "addHandler"}


def name_of(path: Path) -> str:
    """`studio/ui/form.py` -> `studio.ui.form`; a package's `__init__` has the package's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, ast.Module]:
    """Every module of the program by dotted name."""
    paths = [*ROOT.glob("app.py"), *ROOT.glob("studio/**/*.py"), *ROOT.glob("pipelines/**/*.py")]
    return {name_of(path): ast.parse(path.read_text("utf-8")) for path in paths}


def imports(tree: ast.AST, module: str, package: bool = False) -> set[str]:
    """Dotted names imported at any depth, relative ones resolved; `from a import b` gives `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if package else module.split(".")[:-1]
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return found


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the prefixes or lies below one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def breaches(who: str, forbidden: tuple[str, ...], spared: tuple[str, ...]) -> list[str]:
    """`module imports name` for each import that breaks one rule."""
    return [
        f"{module} imports {name}"
        for module, tree in modules().items()
        if within(module, (who,)) and not within(module, spared)
        for name in sorted(imports(tree, module, (ROOT / module.replace(".", "/")).is_dir()))
        if within(name, forbidden)
    ]


def chains(tree: ast.AST) -> Iterator[str]:
    """Attribute chains such as `torch.cuda.is_available`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def texts(tree: ast.Module) -> Iterator[str]:
    """String constants that are not docstrings."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: everything but bodies of functions and `__main__` blocks."""
    pending: list[ast.AST] = [node for node in tree.body if not _main_block(node)]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        pending += ast.iter_child_nodes(node)


def _main_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def called(node: ast.Call) -> str:
    """The last name of what is called: `path.mkdir()` -> `mkdir`, `app.command("x")(f)` -> `command`."""
    return called(node.func) if isinstance(node.func, ast.Call) else ast.unparse(node.func).split(".")[-1]


def work_at_import(tree: ast.Module) -> list[str]:
    """Statements that do work when a module is imported."""
    found = [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and called(node.value) not in TABLES
    ]
    for node in at_import(tree):
        if isinstance(node, ast.Call) and called(node) in WORK:
            found.append(ast.unparse(node))
        if isinstance(node, ast.Assign) and "os.environ" in "".join(map(ast.unparse, node.targets)):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(("who", "forbidden", "spared"), RULES)
def test_imports_follow_the_rules(who: str, forbidden: tuple[str, ...], spared: tuple[str, ...]) -> None:
    assert breaches(who, forbidden, spared) == []


def test_methods_do_not_import_each_other() -> None:
    methods = {n: t for n, t in modules().items() if n.startswith("pipelines.methods.")}
    crossed = {
        name: other
        for name, tree in methods.items()
        for other in imports(tree, name)
        if other.startswith("pipelines.methods.") and not within(other, (name,))
    }
    assert crossed == {}


def test_only_bases_asks_for_a_device() -> None:
    rest = {n: t for n, t in modules().items() if n not in DEVICE_ROOMS}
    asked = {n: c for n, t in rest.items() for c in chains(t) if DEVICE_QUESTION.match(c)}
    assert asked == {}


def test_only_weights_knows_key_names() -> None:
    known = {
        name: text
        for name, tree in modules().items()
        if not within(name, ("pipelines.weights",))
        for text in texts(tree)
        if KEY_NAMES.search(text)
    }
    assert known == {}


def test_no_module_does_work_when_imported() -> None:
    assert {name: work for name, tree in modules().items() if (work := work_at_import(tree))} == {}


def test_the_checks_see_what_they_forbid() -> None:
    function = 'def f():\n    "lora_up"\n    from ..engine import Studio\n    return "lora_unet_x"'
    tree = ast.parse(f'import os\nos.makedirs("x")\n{function}')
    assert imports(tree, "studio.ui.form") == {"os", "studio.engine", "studio.engine.Studio"}
    assert imports(ast.parse("from . import form"), "studio.ui", package=True) == {"studio.ui", "studio.ui.form"}
    assert work_at_import(tree)[0] == "os.makedirs('x')"
    assert list(texts(tree)) == ["x", "lora_unet_x"]
    assert DEVICE_QUESTION.match("torch.cuda.is_available") and not DEVICE_QUESTION.match("torch.device")


@pytest.mark.parametrize(
    "program",
    [
        "import studio",
        "import sys, runpy; sys.argv = ['studio', '--help']; runpy.run_module('studio', run_name='__main__')",
        "import sys, runpy; sys.argv = ['app.py', '--help']; runpy.run_path('app.py', run_name='__main__')",
    ],
    ids=["import studio", "python -m studio --help", "python app.py --help"],
)
def test_the_door_opens_without_the_heavy_libraries(program: str) -> None:
    tell = f"import atexit, sys; atexit.register(lambda: print('LOADED', [m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{tell}\n{program}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def own_files() -> list[Path]:
    """Everything this project wrote, without environments, caches and what the studio makes."""
    folders = ("studio", "pipelines", "tests", "bench", "tools", "docs", "assets", ".ci")
    deep = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return [path for path in [*ROOT.glob("*"), *deep] if path.is_file()]


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in own_files()
        if path.suffix == ".py" and (lines := len(path.read_text("utf-8").splitlines())) > LIMIT
    }
    assert {name: lines for name, lines in long.items() if name not in LONGER} == {}
    assert set(LONGER) <= set(long), "a file in LONGER has become short"


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    machine = re.compile(rb"(?<![\w.])/(work/(main|shared)|root/|opt/(wheels|pypi)|tmp/brief|home/[a-z]+/)")
    registry = re.compile(rb"\b(pypi\.org|pythonhosted\.org|npmjs\.(org|com)|deb\.debian\.org|artifactory)\b")
    text = {".py", ".md", ".txt", ".toml", ".sh", ".bat", ".json", ".yml", ".yaml", ""}
    named = [
        str(path.relative_to(ROOT))
        for path in own_files()
        if path.suffix in text
        and path != Path(__file__)
        and ((data := path.read_bytes()) and (machine.search(data) or registry.search(data)))
    ]
    assert named == []
