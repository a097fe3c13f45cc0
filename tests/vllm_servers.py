"""A real vLLM server for the tests, and replicas of it that can be killed without another start of vLLM."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

__all__ = ["RUNNING", "Relay", "Server"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One process; ready when `wait` returns. As a context it is ready at its beginning, and killed at its end."""

    model: Path
    log: Path
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=_free_port)
    process: subprocess.Popen[bytes] = field(init=False)

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
            "--kv-cache-memory-bytes",
            "512M",
            *self.arguments,
        ]
        env = {**os.environ, "VLLM_LOGGING_LEVEL": "WARNING"}
        env.pop("VLLM_CPU_KVCACHE_SPACE", None)  # whole GiB alone, and the engine of this process has set it
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)

    def __enter__(self) -> Server:
        RUNNING.append(self)
        try:
            self.wait()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        RUNNING.remove(self)
        self.kill()

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
        _kill(self.process)


RUNNING: list[Server] = []
"""Those that are open as contexts."""

_RELAY = """
import asyncio, sys
listens, serves = map(int, sys.argv[1:])

async def pump(source, sink):
    try:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()

async def relay(reader, writer):
    print("connected", flush=True)
    their_reader, their_writer = await asyncio.open_connection("127.0.0.1", serves)
    await asyncio.gather(pump(reader, their_writer), pump(their_reader, writer))

async def main():
    server = await asyncio.start_server(relay, "127.0.0.1", listens)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@dataclass
class Relay:
    """A replica of a server: a process of its own that hands each connection on, and takes it along when it is killed.

    A client can't tell it from a second vLLM, which would take half a minute to start.
    """

    server: Server
    log: Path
    port: int = field(default_factory=_free_port)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-S", "-E", "-c", _RELAY, str(self.port), str(self.server.port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        end = time.monotonic() + 30
        while "ready" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the relay is not ready:\n{self.log.read_text()}")
            time.sleep(0.01)

    @property
    def url(self) -> str:
        """Without ``/v1``."""
        return f"http://127.0.0.1:{self.port}"

    def connections(self) -> int:
        """How many it has taken so far."""
        return self.log.read_text().count("connected")

    def kill(self) -> None:
        """At once."""
        _kill(self.process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        return
    process.wait()
