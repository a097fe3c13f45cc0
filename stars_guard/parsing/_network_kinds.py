"""Programs that send, fetch and install: what leaves, and from where code comes."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from stars_guard.parsing._target_kinds import everything
from stars_guard.parsing.addresses import is_metadata, read_address
from stars_guard.parsing.program_table import Level
from stars_guard.parsing.shell_arguments import base_name, like
from stars_guard.parsing.shell_findings import FINE, Case, Finding, worst
from stars_guard.parsing.shell_words import UNKNOWN, Word
from stars_guard.parsing.word_lists import word_list

__all__ = ["cipher", "cloud", "downloader", "host_of", "lookup", "packages", "system_packages"]

_LOOPBACK = word_list("network_kinds.loopback")


def host_of(url: str) -> str:
    """The host that a URL names, in lower case; empty where it is not known."""
    try:
        return (urlsplit(url if "://" in url else f"http://{url}").hostname or "").lower()
    except ValueError:
        return ""


_SECRET_VARIABLE = re.compile(r"\$\{?\w*(?:TOKEN|SECRET|PASSW|API_?KEY|PRIVATE|CREDENTIAL|AWS_|KEY)\w*", re.IGNORECASE)


_LOGS = ("--cookie-jar", "--dump-header", "--trace", "--trace-ascii", "--stderr", "--etag-save", "--hsts", "--libcurl")


def downloader(case: Case) -> Finding:
    """``curl`` and the like: what they send, and where to."""
    given = case.given
    urls = [*given.operands, *given.of("--url")]
    local = bool(urls) and all(like(host_of(word.text), _LOOPBACK) for word in urls)
    if given.has("-K", "--config") or (case.name == "wget" and given.has("-e", "--use-askpass", "--execute")):
        return case.ask("follows another file")
    if given.has("-x", "--proxy", "--preproxy", "--socks5") and not local:
        return case.ask("sends through another machine")
    if given.has("-T", "--upload-file", "--post-file", "--body-file") and not local:
        return case.ask("sends a file elsewhere")
    sent = given.of(
        "-d",
        "--data",
        "--data-raw",
        "--data-binary",
        "--data-urlencode",
        "--json",
        "-F",
        "--form",
        "--post-data",
        "--body-data",
        "-b",
    )
    for word in sent:
        reads = re.match(r"@|[\w.-]*=?[@<]", word.text) and "--data-raw" not in given.flags
        if (reads or UNKNOWN in word.text) and not local:
            return case.ask("sends data elsewhere")
        if reads and case.table.is_secret(re.sub(r"^[\w.-]*=?[@<]", "", word.text)):
            return case.ask("sends secrets")
    if case.name in ("http", "https", "xh", "httpie") and any(
        re.search(r"@|:=@|=@", word.text) for word in given.operands[1:]
    ):
        return case.ask("sends a file elsewhere")
    methods = [value.text.upper() for value in given.of("-X", "--request", "--method")]
    if "DELETE" in methods and not local:
        return case.ask("removes something elsewhere")
    for word in urls:
        address = read_address(word.text if "://" in word.text else f"http://{word.text}")
        if address and is_metadata(address):
            return case.ask("reaches for the cloud's own data")
        if word.text.lower().startswith(("file:", "gopher:", "dict:", "ldap:", "scp:", "sftp:", "smb:", "telnet:")):
            return case.ask("opens something that is no web page")
        if (
            UNKNOWN in word.text
            and not local
            and ("$(" in word.raw or "`" in word.raw or _SECRET_VARIABLE.search(word.raw))
        ):
            return case.ask("sends data in the address")
    headers = given.of("-H", "--header", "-A", "--user-agent", "-e", "--referer")
    if any("$(" in word.raw or "`" in word.raw for word in headers) and not local:
        return case.ask("sends data elsewhere")
    outputs = given.of("-o", "--output", "-O", "--output-document", "--out")
    logs = given.of(*_LOGS, *(("-c", "-D") if case.name == "curl" else ("-a",)))
    found = worst([case.verdicts.written(word.text) for word in (*outputs, *logs) if word.text != "-"])
    _fetch(case, urls, outputs)
    return found


def _fetch(case: Case, urls: list[Word], outputs: list[Word]) -> None:
    names = [word.text for word in outputs]
    if not names and (
        case.given.has("-O", "--remote-name", "-J") or case.name in ("wget", "wget2", "aria2c", "axel", "fetch")
    ):
        names = [re.split(r"[?#]", word.text)[0].rpartition("/")[2] for word in urls]
    for name in names:
        case.verdicts.made(name, None)


def cipher(case: Case) -> Finding:
    """``openssl``: a session with another machine sends what it reads."""
    found = case.by_table
    if case.given.texts[:1] == ["s_client"]:
        feeds = [fed for fed in case.command.feeds if base_name(fed.program) not in ("echo", "printf", "true", ":")]
        inputs = [r for r in case.command.redirects if not r.writes and r.target.text != "/dev/null"]
        if feeds or inputs or UNKNOWN in (case.command.stdin or ""):
            found = worst([found, case.ask("sends what it reads elsewhere")])
    return found


def lookup(case: Case) -> Finding:
    """``dig`` and the like: a name that is put together of data carries it out."""
    unknown = any(
        ("$(" in word.raw or "`" in word.raw) or _SECRET_VARIABLE.search(word.raw) for word in case.command.words[1:]
    )
    return case.ask("sends data in a name") if unknown else FINE


def packages(case: Case) -> Finding:
    """Package managers: code from somewhere else than the usual places."""
    found = case.by_table
    if found.level is not Level.ALLOW:
        return found
    sources = [
        *case.given.operands,
        *case.given.of(
            "--index-url",
            "-i",
            "--extra-index-url",
            "-f",
            "--find-links",
            "--registry",
            "--source",
            "--git",
            "-e",
            "-r",
            "-p",
            "--package",
            "--trusted-host",
        ),
    ]
    for word in sources:
        match = re.search(r"(?:https?|git\+\w+|git|ssh|ftp|hg\+\w+|svn\+\w+|s3)://([^/\s]*)", word.text)
        if match and not _is_trusted(case, match[1]):
            return case.ask("takes code from elsewhere")
        if UNKNOWN in word.text and "://" in word.text:
            return case.ask("takes code from elsewhere")
    if case.given.has("--trusted-host") and not all(
        case.verdicts.settings.trusts(word.text) for word in case.given.of("--trusted-host")
    ):
        return case.ask("takes code from elsewhere")
    if case.given.has("--unsafe-perm", "--break-system-packages"):
        return case.ask("changes the system's packages")
    texts = case.given.texts
    if case.name in ("npx", "bunx", "pnpx") or (case.name == "pipx" and texts[:1] == ["run"]):
        inner = _skip_options(case.command.words[1 + (case.name == "pipx") :], case)
        return case.verdicts.of_words(inner, case.command) if inner and _is_known(case, inner) else FINE
    if texts[:1] in (["exec"], ["x"], ["dlx"], ["run"]) and case.name in (
        "poetry",
        "uv",
        "pipenv",
        "pdm",
        "hatch",
        "conda",
        "mamba",
        "micromamba",
        "bundle",
        "nix",
        "rye",
        "npm",
        "pnpm",
        "yarn",
    ):
        words = case.command.words
        at = next(i for i, word in enumerate(words) if word.text == texts[0])
        inner = _skip_options(words[at + 1 :], case)
        runs = texts[0] != "run" or case.name not in ("npm", "pnpm", "yarn")
        if inner and runs and _is_known(case, inner):
            return case.verdicts.of_words(inner, case.command)
    return FINE


def _is_known(case: Case, words: tuple[Word, ...]) -> bool:
    return case.table.entry(base_name(words[0].text)) is not None


def _skip_options(words: tuple[Word, ...], case: Case) -> tuple[Word, ...]:
    values = case.entry.takes_value(case.name)
    while words and words[0].text.startswith("-"):
        words = words[2 if words[0].text in values else 1 :]
    return words


def _is_trusted(case: Case, host: str) -> bool:
    bare = host.rpartition("@")[2].partition(":")[0]
    return UNKNOWN not in host and (case.verdicts.settings.trusts(bare) or like(bare, _LOOPBACK))


def system_packages(case: Case) -> Finding:
    """``apt`` and the like: what is installed comes from the usual places."""
    found = case.by_table
    if found.level is not Level.ALLOW:
        return found
    installs = case.given.texts[:1] in (["install"], ["add"], ["reinstall"], ["in"], ["-i"])
    foreign = any(
        re.search(r"://|\.(?:deb|rpm|apk|pkg|msi|snap|flatpak)$", text) or text.startswith(("./", "/"))
        for text in case.given.texts[1:]
    )
    return case.ask("installs a file from elsewhere") if installs and foreign else FINE


def cloud(case: Case) -> Finding:
    """Clouds: reading is fine; copies to a bucket are as copies to another machine."""
    found = case.by_table
    texts = case.given.texts
    if found.level is Level.ALLOW and texts[:2] == ["s3", "cp"] and len(texts) > 3:
        source, target = texts[2], texts[3]
        sends = target.startswith("s3://") and not source.startswith("s3://")
        if sends and (
            everything(source)
            or case.table.is_secret(source)
            or source == "-"
            or (case.given.has("--recursive") and not case.table.is_rebuilt(source))
        ):
            return case.ask("sends files elsewhere")
    return found
