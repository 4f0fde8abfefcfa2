"""A standalone Spark cluster whose hosts are network namespaces, each with memory (/dev/shm), a disk and a name of its own.

    driver, master ── bridge ──┬── link, limited ── host 0: Spark worker, executors
                               └── link, limited ── host 1: ...

A link can be made slow, or be cut so that nobody hears of it: its port is taken off the bridge, so packets vanish. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.conftest import Cluster, _start, _wait_for

DISK_BYTES = 48 << 20


def run(line: str) -> None:
    subprocess.run(line.split(), check=True, capture_output=True)


def why_not() -> str:
    """Why this machine gives no namespaces, or ""."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    for tool in ("ip", "tc", "nsenter", "unshare"):
        if shutil.which(tool) is None:
            return f"network namespaces need the tool {tool}"
    name = f"ksf{os.getpid()}t"
    try:
        run(f"ip netns add {name}")
        try:
            run(f"ip link add {name[-13:]} type veth peer name eth0 netns {name}")
            run(f"ip link del {name[-13:]}")
        finally:
            run(f"ip netns del {name}")
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here: {error.stderr.decode().strip()}"
    return ""


class Hosts(Cluster):
    """A cluster of namespaces; `tests.conftest.Cluster` on the address of their bridge."""

    def __init__(self, url: str, folder: pathlib.Path, number: int, cores: int, owner: int = 0):
        super().__init__(url, folder)
        owner = owner or os.getpid()
        self.bridge, self.subnet = f"ksf{owner}", f"10.78.{owner % 250}."
        self.number, self.cores = number, cores

    def settings(self, executors: int = 0) -> dict[str, str]:
        found = super().settings(executors or self.number * self.cores)
        address = f"{self.subnet}254"
        found |= {"spark.driver.host": address, "spark.driver.bindAddress": address}
        del found["spark.local.dir"]
        return found

    def port(self, host: int) -> str:
        return f"{self.bridge}-{host}"

    def name(self, host: int) -> str:
        return f"{self.bridge}-{host}"

    def slow(self, host: int, mbit: float, latency_ms: float = 200) -> None:
        """Limits both directions of a host's link."""
        limit = f"root tbf rate {mbit:g}mbit burst 64kb latency {latency_ms:g}ms"
        run(f"tc qdisc replace dev {self.port(host)} {limit}")
        run(f"tc -n {self.name(host)} qdisc replace dev eth0 {limit}")

    def cut(self, host: int) -> None:
        """Packets from and to a host vanish."""
        run(f"ip link set {self.port(host)} nomaster")

    def mend(self, mbit: float = 1000) -> None:
        """All links as they were, all disks with room."""
        for host in range(self.number):
            run(f"ip link set {self.port(host)} master {self.bridge}")
            self.slow(host, mbit)
            for path in self.disk(host).rglob("filler"):
                path.unlink(missing_ok=True)

    def disk(self, host: int) -> pathlib.Path:
        """A host's disk, seen from here."""
        return self.folder / f"disk-{host}"


@contextlib.contextmanager
def hosts(folder: pathlib.Path, number: int = 2, cores: int = 2, spare: int = 1, mbit: float = 1000) -> Iterator[Hosts]:
    """`number` hosts with `cores` cores for one application and `spare` ones for another."""
    made = Hosts("", folder, number, cores)
    processes: list[Any] = []
    names: list[str] = []
    disks: list[pathlib.Path] = []
    try:
        run(f"ip link add {made.bridge} type bridge")
        run(f"ip addr add {made.subnet}254/24 dev {made.bridge}")
        run(f"ip link set {made.bridge} up")
        master, log = _start(
            folder, "master", "master.Master", "--host", f"{made.subnet}254", "--port", "0", "--webui-port", "0",
            more={"SPARK_LOCAL_IP": f"{made.subnet}254"},
        )  # fmt: skip
        processes.append(master)
        made.url = _wait_for(master, log, r"Starting Spark master at (spark://\S+)")
        started = []
        for host in range(number):
            name = made.name(host)
            run(f"ip netns add {name}")
            names.append(name)
            run(f"ip link add {made.port(host)} type veth peer name eth0 netns {name}")
            run(f"ip link set {made.port(host)} master {made.bridge} up")
            address = f"{made.subnet}{host + 1}"
            for line in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
                run(f"ip -n {name} {line}")
            made.slow(host, mbit)
            disk = made.disk(host)
            disk.mkdir()
            run(f"mount -t tmpfs -o size={DISK_BYTES} none {disk}")
            disks.append(disk)
            (folder / f"names-{host}").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
            begin = (
                f"mount -t tmpfs -o size=64m none /dev/shm && mount --bind {folder}/names-{host} /etc/hosts && "
                f'hostname {name} && exec "$@"'
            )
            started.append(
                _start(
                    folder, f"worker-{host}", "worker.Worker", "--host", address, "--webui-port", "0",
                    "--cores", str(cores + spare), "--memory", "8g", "--work-dir", str(disk / "work"), made.url,
                    before=("ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", begin, "sh"),
                    more={
                        "SPARK_LOCAL_IP": address, "SPARK_LOCAL_DIRS": str(disk), "FAULTS_PORT": made.port(host),
                        "FAULTS_BRIDGE": made.bridge,
                    },
                )
            )  # fmt: skip
            processes.append(started[-1][0])
        for worker, log in started:
            _wait_for(worker, log, r"(Successfully registered with master)")
        yield made
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)
        for disk in disks:
            subprocess.run(["umount", "-l", str(disk)])
        for name in names:
            subprocess.run(["ip", "netns", "del", name])
        subprocess.run(["ip", "link", "del", made.bridge])
