"""What a bit of code in another language than shell would do: the calls that reach out of the language."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator

__all__ = ["called_programs", "is_code", "risks_in", "strings_in"]

_RUNS = re.compile(
    r"\b(?:system|popen\w*|exec[lv]p?e?|spawn\w*|posix_spawn|fork|subprocess|child_process|shell_exec|passthru|proc_open|"
    r"pcntl_exec|execSync|execFile\w*|spawnSync|Runtime\.getRuntime|ProcessBuilder|Open3|IO\.popen|os\.execute|io\.popen|"
    r"pty|ctypes|cffi|dlopen|Process\.(?:spawn|Start)|Kernel|Deno\.(?:run|Command)|Bun\.spawn\w*|sys(?:call)?open)\b"
    r"|\bdo\s+shell\s+script\b|(?:^|[;\[{])\s*exec\s+[\w/]|\bopen\b[^;]*[\"']\s*\||\bopen\b[^;]*\|\s*[\"']"
    r"|`[^`$]+`\s*(?:;|$)|%x[\[({]|\bqx\b|\bopen\s*\(?\s*[\"']\||\bexec\b\s*[\"'(]"
)
_EVALUATES = re.compile(
    r"\b(?:eval|compile|__import__|import_module|getattr|globals|locals|vars|__builtins__|__subclasses__|marshal|pickle|"
    r"b(?:64|32|16)decode|unhexlify|fromhex|decodebytes|assert_options|create_function|instance_eval|class_eval|"
    r"loadstring|runpy|new\s+Function|Function\s*\(|vm\.runIn\w+|atob|Buffer\.from|base64_decode|gzinflate|str_rot13|unpack)\b"
    r"|\brequire\s*\((?:[^)\"']*[\w\[]|[^)]*\+)|\bprocess\.(?:binding|mainModule|dlopen)\b|\[[^\]]*[\"'][^\]]*\+[^\]]*\]\s*\("
)
_REMOVES = re.compile(
    r"\b(?:rmtree|remove\w*|unlink\w*|rmdir\w*|rm_r\w*|rm_f\w*|rmSync|truncate\w*|delete_?(?:file|tree|dir)|FileUtils|"
    r"shutil\.(?:move|rmtree)|os\.(?:rename|replace|kill|chmod|chown|symlink|link)|chmod\w*|kill|remove_tree|file_put_contents|"
    r"fs\.(?:rm\w*|unlink\w*|writeFile\w*|truncate\w*|rename\w*|chmod\w*|promises)|File\.(?:delete|write|unlink)|"
    r"Deno\.(?:remove\w*|writeTextFile\w*)|dropDatabase|deleteMany|drop_all|killpg)\b"
)
_WRITES = re.compile(
    r"\bopen\s*\([^)]*,\s*(?:mode\s*=\s*)?[rbu]?[\"'][^\"')]*[wax+]|\bwrite_(?:text|bytes)\b|\bfwrite\b|\bfputs\b"
    r"|open\s*\(?\s*(?:my\s+)?\$?\w+\s*,\s*[\"']\s*>"
)
_SENDS = re.compile(
    r"\b(?:socket\w*|urlopen|urlretrieve|urllib|requests\.\w*(?:get|post|put|patch|delete|request|Session)|httpx\.\w+|aiohttp|"
    r"http\.client|httplib|smtplib|ftplib|telnetlib|paramiko|xmlrpc|fsockopen|curl_exec|curl_init|Net::\w+|LWP|IO::Socket|"
    r"TCPSocket|UDPSocket|TCPServer|open-uri|fetch\s*\(|https?\.(?:get|request)|net\.(?:connect|Socket|createServer|createConnection)|"
    r"dgram|XMLHttpRequest|WebSocket|HttpClient|file_get_contents\s*\(\s*[\"']https?:|dns\.\w+|axios|websockets?|SimpleHTTP\w*|"
    r"HTTPServer|socketserver|wget|luasocket)\b"
)
_SHOWS = re.compile(
    r"\bos\.environ\b(?!\s*(?:\.get\(|\[)\s*[\"'](?:PATH|HOME|USER|LANG|PWD|SHELL|VIRTUAL_ENV)[\"'])|\bprocess\.env\b(?!\.(?:PATH|HOME|NODE_ENV|PWD|USER)\b)|\bENV\.(?:to_h|each|inspect)|\bgetenv\s*\(\s*\)|%ENV"
)


def risks_in(code: str, language: str) -> str:
    """Why a person should look at the code, in a few words; empty where it only computes and prints.

    Args:
        language: ``python``, ``js`` or ``other``.
    """
    text = re.sub(r"\bre\.compile\b", "", code)
    if language == "python":
        text = _without_plain_strings(text)
    if language == "other" and re.search(r"`[^`]+`", text):
        return "runs a program"
    for pattern, why in (
        (_RUNS, "runs a program"),
        (_EVALUATES, "runs code that is not known"),
        (_REMOVES, "removes or changes files"),
        (_WRITES, "writes a file"),
        (_SENDS, "talks to the network"),
        (_SHOWS, "shows the environment"),
    ):
        if pattern.search(text):
            return why
    return ""


def _without_plain_strings(code: str) -> str:
    """Python code without the texts that it only prints, so that a word in them is no call."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    printed = [
        argument.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and len(argument.value) > 3
    ]
    for value in printed:
        code = code.replace(value, "")
    return code


_LITERAL = re.compile(
    r"""(?:[rbfuRBFU]{0,2})("{3}.*?"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)""",
    re.DOTALL,
)


def strings_in(code: str) -> Iterator[str]:
    """The texts that stand between quotes in code, each as its language reads it."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        for match in _LITERAL.finditer(code):
            quoted = match[1]
            body = quoted[3:-3] if quoted[:3] in ('"""', "'''") else quoted[1:-1]
            yield re.sub(r"\\(.)", r"\1", body)
        return
    joined = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in joined:
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("utf-8", "replace")
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
        elif isinstance(node, ast.BinOp) and (whole := _constant(node)) is not None:
            yield whole


def _constant(node: ast.expr) -> str | None:
    """A text that is put together of constants alone."""
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [_constant(left), _constant(right)]
            return None if None in parts else "".join(part or "" for part in parts)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            parts = [_constant(left), _constant(right)]
            return None if None in parts else "/".join(part or "" for part in parts)
        case ast.Call(args=[first]):
            return _constant(first)
        case _:
            return None


def is_code(text: str) -> bool:
    """Whether a text is code in Python rather than a command: ``ls -la`` could be both, and counts as a command."""
    try:
        tree = ast.parse(_without_magic(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return bool(_STATEMENT.search(text))
    return any(isinstance(node, _OF_CODE) for node in ast.walk(tree))


_OF_CODE = (
    ast.Call,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.ClassDef,
)
_STATEMENT = re.compile(
    r"(?m)^\s*(?:(?:const|let|var)\s+[\w{\[].*=|import\s+[\w{*].*\bfrom\b|(?:async\s+)?(?:def|function)\s+\w+\s*\(|"
    r"import\s+[\w.]+\s*(?:$|as\b|;)|from\s+[\w.]+\s+import\b|class\s+\w+.*[:{]|console\.\w+\(|print\s*\(|require\s*\()"
)
_MAGIC_LINE = re.compile(r"(?m)^[ \t]*[!%].*$")


def _without_magic(text: str) -> str:
    """Code of a notebook without the lines that aren't of its language: ``!ls`` and ``%time``."""
    return _MAGIC_LINE.sub("", text)


_RUNNERS = frozenset(
    {"system", "popen", "run", "call", "check_call", "check_output", "Popen", "getoutput", "getstatusoutput", "spawn"}
    | {f"{verb}{end}" for verb in ("exec", "spawn") for end in ("l", "le", "lp", "v", "ve", "vp", "vpe", "lpe")}
    | {"create_subprocess_shell", "create_subprocess_exec", "execSync", "spawnSync", "execFile", "execFileSync"}
)
_OF_PROGRAMS = frozenset({"os", "subprocess", "sp", "commands", "pty", "asyncio", "posix", "child_process", "sh", ""})
_RUNS_TEXT = re.compile(
    r"\b(?:execSync|exec|execFile|spawnSync|spawn|system|popen|shell_exec|passthru|proc_open|check_output|getoutput)"
    r"\s*\(\s*([\"'`])((?:\\.|(?!\1).)*)\1",
    re.DOTALL,
)


def called_programs(text: str) -> Iterator[str]:
    """The command lines that code runs, with a variable in the place of what only a run would tell."""
    try:
        tree = ast.parse(_without_magic(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from (match[2] for match in _RUNS_TEXT.finditer(text))
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and _runs_a_program(node.func):
            lists = [argument for argument in node.args if isinstance(argument, ast.List | ast.Tuple)]
            words = ast.List(elts=node.args[1:])  # execl("rm", "rm", "-rf", "/")
            yield _line(lists[0] if lists else words if len(node.args) > 2 else node.args[0])


def _runs_a_program(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            return name in _RUNNERS and module in _OF_PROGRAMS
        case ast.Attribute(value=ast.Call(func=ast.Name(id="__import__")), attr=name):
            return name in _RUNNERS
        case ast.Name(id=name):
            return name in _RUNNERS - {"run", "call", "spawn"}
        case _:
            return False


def _line(node: ast.expr) -> str:
    if isinstance(node, ast.List | ast.Tuple):
        return " ".join(shlex.quote(known) if (known := _constant(item)) is not None else "$x" for item in node.elts)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "$x" for part in node.values)
    known = _constant(node)
    return known if known is not None else "$x"
