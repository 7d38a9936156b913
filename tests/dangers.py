"""What in a source file could run code from data or start a shell, found in its syntax tree."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

# Whole modules, and names anywhere below them; "os.exec" also stands for os.execv, os.execvp, ...
MODULES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "jsonpickle", "marshal", "shelve"),
    *("ctypes", "_ctypes", "cffi", "runpy", "code", "codeop", "imp", "pty"),
    *("builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__"),
    *("torch.hub", "torch.package", "torch.utils.cpp_extension", "torch.jit.load", "timm.models.load_checkpoint"),
}
NAMES = {
    *("os.system", "os.popen", "os.startfile", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "shutil.unpack_archive", "tarfile.open", "tarfile.TarFile"),
    *("torch.serialization.add_safe_globals", "torch.serialization.safe_globals", "torch.utils.model_zoo.load_url"),
    *("pandas.read_pickle", "scipy.io.loadmat"),
}
STARTS = ("os.exec", "os.spawn", "os.posix_spawn", "yaml.load", "yaml.full_load", "yaml.unsafe_load")
LOADERS = {f"yaml.{kind}" for kind in ("Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader")}
BUILTINS = {"eval", "exec", "compile", "__import__"}  # by their bare names
METHODS = {"extractall", "load_state", "register_for_checkpointing", "load_state_dict_from_url"}  # of any object
# Functions that may only be called, and only with this argument written out; the argument may have no other value.
NEEDED = {"torch.load": ("weights_only", True), "torch.serialization.load": ("weights_only", True)}
NEEDED |= {"numpy.load": ("allow_pickle", False)}
LITERALS = {"weights_only": True, "allow_pickle": False, "shell": False, "trust_remote_code": False}
IMPORTERS = {"importlib.import_module", "importlib.util.find_spec"}


def violations(source: str) -> list[str]:
    """Each dangerous import, reference or argument with its line, none twice."""
    tree = ast.parse(source)
    known = _names(tree)
    found = [said for node in ast.walk(tree) for said in _of(node, known)]
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name | ast.Attribute | ast.Call) or id(node) in inner:
            continue
        for path in _paths(node, known):
            if path in NEEDED and id(node) not in called:
                found.append(f"{path} handed on in line {node.lineno}")
            elif _banned(path):
                found.append(f"{path} in line {node.lineno}")
    return list(dict.fromkeys(found))


def _of(node: ast.AST, known: dict[str, set[str]]) -> Iterator[str]:
    """What is wrong with this node by itself: an import, a method, the arguments of a call."""
    if isinstance(node, ast.Import):
        yield from (f"import {alias.name}" for alias in node.names if _banned(alias.name))
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        for alias in node.names:
            if alias.name == "*" or _banned(f"{node.module}.{alias.name}"):
                yield f"from {node.module} import {alias.name}"
    elif isinstance(node, ast.Attribute) and node.attr in METHODS:
        yield f"{node.attr} in line {node.lineno}"
    elif isinstance(node, ast.Call):
        yield from _of_call(node, known)


def _of_call(call: ast.Call, known: dict[str, set[str]]) -> Iterator[str]:
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    paths = _paths(call.func, known)
    for name, value in given.items():
        if name in LITERALS and not _is(value, LITERALS[name]):
            yield f"{name} in line {call.lineno}"
    for path in paths:
        name, _ = NEEDED.get(path, (None, None))
        if name is not None and name not in given:
            yield f"{path} without {name} in line {call.lineno}"
        if path.startswith("subprocess.") and any(keyword.arg is None for keyword in call.keywords):
            yield f"{path} with unknown arguments in line {call.lineno}"
        if path in IMPORTERS and call.args and isinstance(call.args[0], ast.Constant):
            yield from (f"{path} of {name} in line {call.lineno}" for name in [call.args[0].value] if _banned(name))


def _banned(path: str) -> bool:
    inside = any(path == module or path.startswith(f"{module}.") for module in MODULES)
    return inside or path in NAMES | LOADERS or path.startswith(STARTS)


def _is(value: ast.expr, wanted: object) -> bool:
    return isinstance(value, ast.Constant) and value.value is wanted


def _names(tree: ast.AST) -> dict[str, set[str]]:
    """Local name -> full paths it may stand for, from imports and from plain assignments, in whatever scope."""
    known: dict[str, set[str]] = defaultdict(set)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                known[alias.asname or top].add(alias.name if alias.asname else top)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                known[alias.asname or alias.name].add(f"{node.module}.{alias.name}")
    for _ in range(3):  # an alias of an alias
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known[node.targets[0].id] |= _paths(node.value, known)
    return known


def _paths(node: ast.AST, known: dict[str, set[str]]) -> set[str]:
    """Full paths that an expression may name: `np.load`, `getattr(os, "system")`, a built-in by its bare name."""
    if isinstance(node, ast.Name):
        bare = {f"builtins.{node.id}"} if node.id in BUILTINS else set()
        return set(known.get(node.id, ())) | bare
    if isinstance(node, ast.Attribute):
        return {f"{path}.{node.attr}" for path in _paths(node.value, known)}
    match node:
        case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=name), *_]):
            return {f"{path}.{name}" for path in _paths(owner, known)}
    return set()
