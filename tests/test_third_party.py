"""Somebody else's package adds a part of each kind: installed, found, used, and tested by our suites."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = Path(__file__).parent / "acme_guard"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The package as pip installs it, in a folder of its own, and an environment whose Python finds it there."""
    target = tmp_path_factory.mktemp("site")
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(PACKAGE)], check=True, timeout=300)
    path = os.pathsep.join([str(target), *sys.path[1:]])
    return {**os.environ, "PYTHONPATH": path, "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state"))}


def run(environment: dict[str, str], *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**environment, "COLUMNS": "400"}
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )


CLI = ("-c", "from stars_guard.cli import main; main()")

CALL = """
import json
from stars_guard import CallOptions, Guard, Message
from stars_guard.audit import open_store

judge = {{"name": "calm", "type": "acme/shouting", "letters": 5, "scope": "segment"}}
decoding = {{"segment_tokens": 4, "max_tokens": 64, "attempts": 12, "parallel": 1}}
policy = {{"apiVersion": "stars-guard/v1", "name": "calm", "judges": [judge], "decoding": decoding}}
with Guard(
    policy, model="polly", backend="acme/parrot", options={{"times": 3}}, audit="acme-lines://{log}"
).blocking as guard:
    done = guard.generate([Message("user", "please tell me about quiet birds")], CallOptions(seed=5))
(record,) = open_store("acme-lines://{log}").read()
attempts = [attempt for segment in record.segments for attempt in segment.attempts]
print(json.dumps({{
    "text": done.text,
    "engine": record.backend["engine"],
    "scorer": record.scorers["calm"]["kind"],
    "vetoes": sorted({{attempt.veto for attempt in attempts if attempt.veto}}),
    "loud": all((attempt.veto is not None) == attempt.text.text.isupper() for attempt in attempts if attempt.text.text),
}}))
"""


def test_its_parts_are_used_by_name(installed: dict[str, str], tmp_path: Path) -> None:
    done = run(installed, "-c", CALL.format(log=tmp_path / "log"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "text": "please tell me about quiet birds " * 3,
        "engine": "acme/parrot",
        "scorer": "acme/shouting",
        "vetoes": ["calm"],
        "loud": True,
    }


DECIDING = """\
apiVersion: stars-guard/v1
name: deciding
judges:
  - {name: calm, type: acme/shouting, weight: -1.0, reject_above: null, letters: 4}
decoding:
  method: {type: acme/growing, first: 2}
  segment_tokens: 6
  max_tokens: 48
  attempts: 6
  r_star: -0.05
  beta: 0.2
  schedule: {type: acme/ramp, drop: 0.5, tokens: 20}
  acceptance: acme/logistic
"""

DECIDE = """
import json
from stars_guard import CallOptions, Guard, Message
from stars_guard.audit import open_store

said = [Message("user", "please tell me about quiet birds in old gardens " * 3)]
with Guard("deciding.yaml", model="polly", backend="acme/parrot", audit="LOG").blocking as guard:
    for seed in range(3):
        guard.generate(said, CallOptions(seed=seed))
record = list(open_store("LOG").read())[0]
decided = [(segment.index, attempt) for segment in record.segments for attempt in segment.attempts if attempt.u]
first = [attempt for index, attempt in decided if index == 0]
print(json.dumps({
    "id": record.call_id,
    "lengths": [segment.kept_attempt.tokens for segment in record.segments],
    "thresholds": sorted({round(attempt.threshold, 9) for attempt in first}),
    "by_chance": all(0 < attempt.probability < 1 for _, attempt in decided),
    "decoding": {key: record.decoding[key] for key in ("method", "schedule", "acceptance")},
}))
"""


def test_its_method_schedule_and_rule_decide_and_are_redone(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "deciding.yaml").write_text(DECIDING)
    log = f"sqlite://{tmp_path}/log.db"
    done = run(installed, "-c", DECIDE.replace("LOG", log), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    call = found.pop("id")
    assert found == {
        "lengths": [2, 2, 4, 6, 6, 6, 6, 6, 6, 4],
        "thresholds": [-0.5],
        "by_chance": True,
        "decoding": {
            "method": {"type": "acme/growing", "first": 2},
            "schedule": {"type": "acme/ramp", "drop": 0.5, "tokens": 20},
            "acceptance": "acme/logistic",
        },
    }
    verify = (*CLI, "audit", "verify", log)
    again = (*CLI, "audit", "replay", call, "--url", log, "--under", "deciding.yaml")
    for command, says in ((verify, "3 records in 1 chains hold"), (again, "The same: ")):
        done = run(installed, *command, cwd=tmp_path)
        assert (done.returncode, says in done.stdout) == (0, True), done.stdout + done.stderr
    # on a machine that lacks the package
    without = {**os.environ}
    done = run(without, *verify, cwd=tmp_path)
    assert done.returncode == 1
    assert "the schedule 'acme/ramp' isn't installed" in done.stdout
    assert "the decisions of 3 records could not be redone here" in done.stdout
    done = run(without, *again, cwd=tmp_path)
    assert done.returncode == 2
    assert "deciding.yaml:6: decoding.method" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("drop: 0.5", "dorp: 0.5", "decoding.schedule.dorp: unknown key; did you mean `drop`?"),
        ("acme/logistic", "acme/logistc", "did you mean `acme/logistic`?"),
        ("first: 2", "first: 0", "decoding.method.first: should be greater than or equal to 1"),
    ],
)
def test_a_mistake_in_them_is_found(installed: dict[str, str], tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "deciding.yaml").write_text(DECIDING.replace(old, new))
    done = run(installed, *CLI, "policy", "check", "deciding.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stdout + done.stderr


POLICY = """\
apiVersion: stars-guard/v1
name: calm
judges:
  - {{name: calm, type: acme/shouting, {option}: 5}}
"""


def test_its_options_are_checked_and_described(installed: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "calm.yaml"
    path.write_text(POLICY.format(option="letters"))
    assert run(installed, *CLI, "policy", "check", str(path)).returncode == 0
    path.write_text(POLICY.format(option="leters"))
    wrong = run(installed, *CLI, "policy", "check", str(path))
    assert wrong.returncode == 1
    assert "did you mean `letters`?" in wrong.stdout + wrong.stderr
    schema = run(installed, *CLI, "policy", "schema")
    assert "fewer letters than this are never shouting" in schema.stdout
    assert "how much less the first token needs" in schema.stdout


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calm.yaml"
    path.write_text(POLICY.format(option="letters"))
    done = run({**os.environ}, *CLI, "policy", "check", str(path))
    assert done.returncode == 1
    assert "unknown type 'acme/shouting'" in done.stdout + done.stderr


def test_our_suites_pass_on_its_parts(installed: dict[str, str], tmp_path: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = run(installed, "-m", "pytest", *options, str(PACKAGE / "tests"))
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 60


@pytest.mark.parametrize("module", ["shouting", "parrot", "lines", "ramp", "logistic", "growing"])
def test_the_page_on_extending_shows_its_very_files(module: str) -> None:
    page = (REPOSITORY / "docs" / "extend.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert (PACKAGE / "acme_guard" / f"{module}.py").read_text() in blocks
