"""The metadata on a config drive: a small disk with the label config-2 that comes with a virtual machine.

os-collect-config: config_drive.py, which its ec2 collector asks first.
"""

import contextlib
import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from refresh_agent import files
from refresh_agent.collectors import Polled
from refresh_agent.model import Document, MetadataLimits, Snapshot

LOG = logging.getLogger("refresh_agent.collectors.config_drive")

NAME = "config_drive"

LABEL = "config-2"
TYPES = ("vfat", "iso9660")
FILE = "ec2/latest/meta-data.json"

TOOLS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where blkid, mount and umount are looked for, whatever the PATH."""

TOOL_SECONDS = 30.0
"""A disk that does not answer holds up no longer than this, per tool."""

_ALL = ("-c", "/dev/null", "-o", "export")
"""blkid's arguments. Without its cache: that can hold the label of a disk that was there before."""

_MOUNTS = "/proc/self/mountinfo"


class DriveError(Exception):
    """Text for the operator. ``absent``: there is no config drive, which is no fault."""

    def __init__(self, text: str, *, absent: bool = False) -> None:
        super().__init__(text)
        self.absent = absent


class Device(NamedTuple):
    """A disk or partition, as blkid describes it."""

    path: str
    type: str
    label: str


class ConfigDrive(Polled):
    every = 3600.0

    def __init__(self, options: Mapping[str, Any], limits: MetadataLimits) -> None:
        self._options = options
        self._limits = limits

    def collect(self) -> Snapshot:
        """One document ``config_drive``."""
        try:
            document = read(NAME, self._limits)
        except DriveError as error:
            return Snapshot(NAME, error=str(error), absent=error.absent)
        return Snapshot(NAME, (document,), deployment_keys=tuple(self._options.get("deployment_key") or ()))


def build(options: Mapping[str, Any], limits: MetadataLimits) -> ConfigDrive:
    return ConfigDrive(options, limits)


def read(name: str, limits: MetadataLimits) -> Document:
    """The config drive's metadata as the document ``name``. Raises DriveError."""
    device = next((found for found in devices(_run("blkid", *_ALL)) if _is_drive(found)), None)
    if device is None:
        raise DriveError(f"there is no disk with the label {LABEL}", absent=True)
    origin = f"{device.path}: {FILE}"
    with _mounted(device) as directory:
        path = os.path.join(directory, FILE)
        if not os.path.realpath(path).startswith(f"{os.path.realpath(directory)}/"):
            raise DriveError(f"{origin}: leads away from the disk; refused")
        try:
            return Document(name, files.read_regular(path, limits.bytes), origin=origin)
        except OSError as error:
            raise DriveError(f"{origin}: {files.reason(error)}") from None


def devices(export: str) -> list[Device]:
    """What ``blkid -o export`` lists: a paragraph per device, with NAME=value, blanks escaped."""
    found = []
    for paragraph in export.split("\n\n"):
        values = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        plain = [re.sub(r"\\(.)", r"\1", values.get(key, "")) for key in ("DEVNAME", "TYPE", "LABEL")]
        found.append(Device(*plain))
    return found


def _is_drive(device: Device) -> bool:
    return device.label.lower() == LABEL and device.type in TYPES and device.path.startswith("/")


@contextlib.contextmanager
def _mounted(device: Device) -> Iterator[str]:
    """Where the device is mounted already, or a private directory where it is for the moment."""
    existing = _mount_point(device)
    if existing:
        yield existing
        return
    directory = tempfile.mkdtemp(prefix="refresh-agent-config-2-")
    try:
        _run("mount", "-t", device.type, "-o", "ro,nosuid,nodev,noexec", device.path, directory)
        if not os.path.ismount(directory):  # whoever buries all orphans may have taken mount's status
            raise DriveError(f"{device.path}: cannot be mounted")
        try:
            yield directory
        finally:
            _unmount(directory)
    finally:
        with contextlib.suppress(OSError):  # still mounted, which has been told
            os.rmdir(directory)


def _unmount(directory: str) -> None:
    """Lazily, if somebody has just looked into it."""
    problem = ""
    for arguments in ((directory,), ("-l", directory)):
        try:
            _run("umount", *arguments)
        except DriveError as error:
            problem = str(error)
        else:
            return
    LOG.warning("the config drive stays mounted: %s", problem)


def _mount_point(device: Device) -> str:
    """Empty if the whole of it is mounted nowhere; by number, since a disk has several names."""
    try:
        number = os.stat(device.path).st_rdev
        wanted = f"{os.major(number)}:{os.minor(number)}"
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.split()
                if fields[2] == wanted and fields[3] == "/":
                    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
    except OSError as error:
        raise DriveError(f"{device.path}: {files.reason(error)}") from None
    return ""


def _run(tool: str, *arguments: str) -> str:
    """Its standard output. Raises DriveError; blkid's status 2 says that it found nothing."""
    program = next((path for path in _programs(tool) if os.access(path, os.X_OK)), None)
    if program is None:
        raise DriveError(f"{tool}: not found in {', '.join(TOOLS)}; it is part of util-linux")
    environment = {"PATH": ":".join(TOOLS), "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            (program, *arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise DriveError(f"{program}: {files.reason(error)}") from None
    try:
        output, complaint = process.communicate(timeout=TOOL_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a dead disk holds even those that are killed
            process.communicate(timeout=1)
        raise DriveError(f"{program}: ended after {TOOL_SECONDS:g} s without a result") from None
    if process.returncode and (tool, process.returncode) != ("blkid", 2):
        words = complaint.decode("utf-8", "replace").strip().splitlines() or [f"status {process.returncode}"]
        raise DriveError(f"{program} {' '.join(arguments)}: {words[0]}")
    return output.decode("utf-8", "surrogateescape")


def _programs(tool: str) -> list[str]:
    return [f"{directory}/{tool}" for directory in TOOLS]
