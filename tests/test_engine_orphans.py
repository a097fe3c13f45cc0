"""A program that is killed leaves no engine process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points

import pytest

from stars_guard.engines import vllm_orphans

CHILD = """
import sys, time
from stars_guard.engines.vllm_orphans import watch_parent
watch_parent()
print("watching", flush=True)
time.sleep(120)
"""
PARENT = f"""
import subprocess, sys, time
from contextlib import nullcontext
from stars_guard.engines.vllm_orphans import end_with_this_process
with end_with_this_process() if sys.argv[1] == "engine" else nullcontext():
    child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(120)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_ends_with_the_program_that_started_it(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, "engine"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        assert alive(child)
        program.send_signal(how)
    assert ends(child, 30)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
def test_another_server_of_the_same_program_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, "other"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        program.kill()
    try:
        assert not ends(child, 1.5 * vllm_orphans.EVERY)
    finally:
        os.kill(child, signal.SIGKILL)


def test_vllm_loads_it() -> None:
    (plugin,) = entry_points(group="vllm.general_plugins", name="stars_guard")
    assert plugin.load() is vllm_orphans.watch_parent
