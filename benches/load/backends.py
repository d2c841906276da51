"""What the servers under test talk to: a Redis with one key, and a back end that says nothing for long."""

import asyncio
import signal
import socket
import subprocess
import tempfile
import threading
import time

from servers import LOAD_CORE, free_port


class Redis:
    """A redis-server beside the load generator, so that the server under test has its core alone."""

    def __init__(self):
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory()
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            ["taskset", "-c", str(LOAD_CORE), "redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
             "--save", "", "--appendonly", "no", "--dir", self.folder.name],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                    client.sendall(b"SET k hello\r\n")
                    if client.recv(64).startswith(b"+OK"):
                        return self
            except OSError:
                time.sleep(0.02)
        raise SystemExit("redis-server does not start")

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
            self.process = None
        self.folder.cleanup()


class Silence:
    """Accepts, reads and answers nothing until it is stopped."""

    def __init__(self):
        self.port = None
        self.loop = asyncio.new_event_loop()
        self.connections = []

    async def held(self, reader, writer):
        self.connections.append(writer)
        await reader.read()
        writer.close()

    def run(self, ready):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            asyncio.start_server(self.held, "127.0.0.1", 0, backlog=4096))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    def start(self):
        ready = threading.Event()
        threading.Thread(target=self.run, args=(ready,), daemon=True).start()
        ready.wait()
        return self

    def stop(self):
        """Gives its files back before the next one needs as many."""
        async def close():
            for writer in self.connections:
                writer.close()
        asyncio.run_coroutine_threadsafe(close(), self.loop).result()
