"""The end of a vLLM engine in this process, and a start that takes too long. This module ends the engine and the server
that all tests share, and so its name is the last of those that use them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from conftest import policy, rewarding
from vllm_servers import RUNNING

from stars_guard.audit import MemoryStore
from stars_guard.backends.vllm_engine import VllmEngineBackend
from stars_guard.calling import portal
from stars_guard.calling.backend_loading import unload_backends
from stars_guard.core.events import Released
from stars_guard.core.messages import Message
from stars_guard.errors import BackendUnavailable
from stars_guard.guard import CallOptions, Guard

STORY = [Message("user", "Tell me a long story about a lighthouse keeper and the sea.")]


def engine_processes() -> set[BaseProcess]:
    return {child for child in multiprocessing.active_children() if child.name.startswith("EngineCore")}


def ended(processes: Iterable[BaseProcess]) -> bool:
    """Whether they have ended, at the latest soon after they were killed."""
    for process in processes:
        process.join(30)
    return not any(process.is_alive() for process in processes)


@pytest.fixture(scope="module", autouse=True)
def _servers_ended() -> None:
    """This process goes on with other modules, which need the memory."""
    for server in RUNNING:
        server.kill()


def test_unloading_ends_a_call_that_runs_and_the_engine(vllm_engine: VllmEngineBackend) -> None:
    before = engine_processes()
    assert before  # the generator's, and a judge's where another test has left one to the end of the run
    judges = [rewarding(lambda passage: 9.0)]
    guard = Guard(policy(max_tokens=4000, segment_tokens=8), model=vllm_engine, judges=judges, audit=MemoryStore())
    stream = guard.blocking.stream(STORY)
    next(event for event in stream if isinstance(event, Released))
    portal.call(unload_backends)
    with pytest.raises(BackendUnavailable, match="closed"):
        list(stream)
    assert guard.audit.read()[0].error == "BackendUnavailable"
    assert any(ended([process]) for process in before)
    assert vllm_engine.dead
    portal.call(vllm_engine.aclose)
    with pytest.raises(BackendUnavailable, match="closed"):
        guard.blocking.generate(STORY, CallOptions(max_tokens=4))


HASTY = """
import multiprocessing, sys, time
from stars_guard.calling import portal
from stars_guard.engines import vllm_process
from stars_guard.errors import BackendError

for limit in (0.5, 5):
    try:
        portal.call(lambda: vllm_process.start(sys.argv[1], {}, limit=limit))
    except BackendError as error:
        print(error)
    while vllm_process._starting.locked():
        time.sleep(0.1)  # on a busy machine, the start that was given up is still at vLLM's import
for process in multiprocessing.active_children():
    process.join(30)
print("processes left:", len(multiprocessing.active_children()))
"""


def test_a_start_that_takes_too_long_is_ended(embedded_model: Path) -> None:
    """In a process of its own, because vLLM leaves open what it opened for a start that failed. It must end, too."""
    command = [sys.executable, "-c", HASTY, str(embedded_model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    first, second, left = done.stdout.splitlines()
    assert "within 0.5 s" in first
    assert "within 5 s" in second
    assert left == "processes left: 0"


GENERATING = """
import multiprocessing, sys, time
from stars_guard.audit import MemoryStore
from stars_guard.core.events import Released
from stars_guard.core.messages import Message
from stars_guard.guard import Guard

decoding = {"max_tokens": 2000, "segment_tokens": 8}
policy = {"apiVersion": "stars-guard/v1", "name": "killed", "mode": "off", "decoding": decoding}
guard = Guard(policy, model=sys.argv[1], backend="vllm", audit=MemoryStore())
stream = guard.blocking.stream([Message("user", "Tell me a long story.")])
next(event for event in stream if isinstance(event, Released))
"""
"""A program whose engine generates."""

KILLED = f"""
{GENERATING}
print("engines:", *(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(300)
"""


JUDGED = """
import multiprocessing, sys, time
from stars_guard.calling import portal
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.errors import StarsGuardError
from stars_guard.scorers.vllm_pooling import VllmPoolingScorer

scorer = portal.call(lambda: VllmPoolingScorer.load(sys.argv[1]))
ask = (Message("user", "Tell me about the sea."),)
asked = [Passage(call_id="c", messages=ask, accepted="", segment="It is wide.")]

def score():
    return portal.call(lambda: scorer.score(asked))[0].value

first = score()
for child in multiprocessing.active_children():
    child.kill()
    child.join()
failed = 0
while True:
    try:
        again = score()
        break
    except StarsGuardError:
        failed += 1
        time.sleep(0.2)
assert abs(first - again) < 1e-3, (first, again)
assert failed < 100, failed
print("engines:", *(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(300)
"""

CLOSED = f"""
{GENERATING}
from stars_guard.calling import portal
from stars_guard.calling.backend_loading import unload_backends
from stars_guard.errors import BackendUnavailable

portal.call(unload_backends)
try:
    list(stream)
except BackendUnavailable:
    print("closed")
"""


def test_an_engine_that_is_closed_logs_no_trace_of_its_end(embedded_model: Path) -> None:
    command = [sys.executable, "-c", CLOSED, str(embedded_model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "closed" in done.stdout
    assert "EngineDeadError" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("what", ["generator", "judge"])
def test_a_program_that_is_killed_leaves_no_engine(what: str, embedded_model: Path, judge_dir: Path) -> None:
    """The generator generates. The judge's engine died before and was started again for the next passage."""
    import psutil

    source, model = (KILLED, embedded_model) if what == "generator" else (JUDGED, judge_dir)
    command = [sys.executable, "-c", source, str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        # vLLM says there too that its engine has died
        said = next((line for line in program.stdout if line.startswith("engines:")), "")
        engines = [psutil.Process(int(pid)) for pid in said.split()[1:]]
        assert engines
        # and their workers
        engines += [child for engine in engines for child in engine.children(recursive=True)]
        program.kill()
    _, left = psutil.wait_procs(engines, timeout=30)
    for process in left:
        process.kill()
    assert not left
