"""Real vLLM servers for the tests: started once, killed at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

__all__ = ["Server"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One process; ready when `wait` returns."""

    model: Path
    log: Path
    arguments: tuple[str, ...] = ()
    core: int = 0
    port: int = field(default_factory=_free_port)

    def __post_init__(self) -> None:
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(self.model),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--enforce-eager",
            "--block-size",
            "32",
            "--enable-prefix-caching",
            "--max-num-seqs",
            "64",
            "--dtype",
            "float32",
            *self.arguments,
        ]
        # One core each: engines whose threads share cores wait for each other at every layer.
        cores = sorted(os.sched_getaffinity(0))
        env = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_CPU_OMP_THREADS_BIND": str(cores[self.core % len(cores)]),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)

    @property
    def url(self) -> str:
        """Without ``/v1``."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self, seconds: float = 240) -> None:
        """Until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/health", timeout=2).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.5)
        raise RuntimeError(f"the server is not ready:\n{self.log.read_text()[-3000:]}")

    def metric(self, name: str) -> int:
        """One of the server's own metrics, summed over its labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(name + "{"))

    def running(self) -> int:
        """Requests that the engine works on now."""
        return self.metric("vllm:num_requests_running")

    def kill(self) -> None:
        """At once, with all its children."""
        try:
            os.killpg(self.process.pid, 9)
        except ProcessLookupError:
            return
        self.process.wait()
