"""A config drive: a real image on a loop device, found and mounted by the real tools.

Kernels without vfat and iso9660 exist; there an ext4 disk takes their place, and only the list of file
systems that a config drive may have is another one.
"""

import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from refresh_agent.collectors import config_drive
from refresh_agent.collectors.config_drive import Device, build, devices
from refresh_agent.model import Snapshot
from tests.unit.support import LIMITS

METADATA = b'{"instance-id": "i-1"}\n'

MakeDrive = Callable[..., str]


def run(*command: str | pathlib.Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def collected() -> Snapshot:
    return build({"deployment_key": ["d"]}, LIMITS).collect()


def left_behind() -> list[str]:
    with open("/proc/self/mounts") as file:
        return [line for line in file if "refresh-agent-config-2-" in line]


@pytest.fixture
def drive(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeDrive]:
    """Makes a disk with files on it; skips where there are no loop devices."""
    attached: list[str] = []

    def make(files: dict[str, bytes], label: str = "config-2") -> str:
        monkeypatch.setattr(config_drive, "TYPES", ("ext4",))
        tree = tmp_path / "tree"
        for name, content in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        image = tmp_path / "image"
        run("mkfs.ext4", "-q", "-L", label, "-d", tree, image, "4M")
        attached.append(attach(image))
        return attached[-1]

    yield make
    for device in attached:
        run("losetup", "--detach", device)


def attach(image: pathlib.Path) -> str:
    if os.getuid() != 0:
        pytest.skip("only root may attach loop devices")
    try:
        return run("losetup", "--find", "--show", image)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"there is no loop device: {error.stderr.strip()}")


def test_the_metadata_on_the_drive_is_read_and_the_drive_let_go(drive: MakeDrive) -> None:
    device = drive({"ec2/latest/meta-data.json": METADATA})
    snapshot = collected()
    assert snapshot.error == ""
    (document,) = snapshot.documents
    assert (document.name, document.raw) == ("config_drive", METADATA)
    assert document.origin == f"{device}: ec2/latest/meta-data.json"
    assert snapshot.deployment_keys == ("d",)
    assert left_behind() == []


def test_a_drive_that_is_mounted_already_stays_so(drive: MakeDrive, tmp_path: pathlib.Path) -> None:
    device = drive({"ec2/latest/meta-data.json": METADATA})
    place = tmp_path / "a place"
    place.mkdir()
    run("mount", "-o", "ro", device, place)
    try:
        (document,) = collected().documents
        assert document.raw == METADATA
        assert os.path.ismount(place)
    finally:
        run("umount", place)


def test_a_disk_with_another_label_is_none(drive: MakeDrive) -> None:
    drive({"ec2/latest/meta-data.json": METADATA}, label="data")
    snapshot = collected()
    assert (snapshot.error, snapshot.absent) == ("there is no disk with the label config-2", True)


def test_a_drive_without_the_file_is_a_fault(drive: MakeDrive) -> None:
    device = drive({"openstack/latest/meta_data.json": METADATA})
    snapshot = collected()
    assert snapshot.error == f"{device}: ec2/latest/meta-data.json: No such file or directory"
    assert not snapshot.absent
    assert left_behind() == []


def test_a_link_out_of_the_drive_is_not_followed(drive: MakeDrive, tmp_path: pathlib.Path) -> None:
    (tmp_path / "tree/ec2/latest").mkdir(parents=True)
    (tmp_path / "tree/ec2/latest/meta-data.json").symlink_to("/etc/os-release")
    device = drive({})
    assert collected().error == f"{device}: ec2/latest/meta-data.json: leads away from the disk; refused"
    assert left_behind() == []


@pytest.mark.parametrize(
    ("umount", "stays"),
    [('[ "$1" != -l ] && echo busy >&2 && exit 32; exec /bin/umount "$@"', False), ("exit 32", True)],
)
def test_a_drive_that_somebody_looks_into_is_let_go_later(
    drive: MakeDrive,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    umount: str,
    stays: bool,
) -> None:
    drive({"ec2/latest/meta-data.json": METADATA})
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("blkid", "mount"):
        real = shutil.which(tool, path=":".join(config_drive.TOOLS))
        assert real
        (tools / tool).symlink_to(real)
    (tools / "umount").write_text(f"#!/bin/sh\n{umount}\n")
    (tools / "umount").chmod(0o755)
    monkeypatch.setattr(config_drive, "TOOLS", (str(tools),))
    try:
        assert collected().documents
        assert ("the config drive stays mounted" in caplog.text) == stays
        assert bool(left_behind()) == stays
    finally:
        for line in left_behind():
            run("umount", line.split()[1])
            os.rmdir(line.split()[1])


def test_a_vfat_drive_is_found(tmp_path: pathlib.Path) -> None:
    """As Nova makes them with config_drive_format = vfat."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(2**20)
    run("mkfs.vfat", "-n", "CONFIG-2", image)
    device = attach(image)
    try:
        error = collected().error
    finally:
        run("losetup", "--detach", device)
    if "vfat" in pathlib.Path("/proc/filesystems").read_text():
        assert error == f"{device}: ec2/latest/meta-data.json: No such file or directory"
    else:
        assert error.startswith(f"/usr/bin/mount -t vfat -o ro,nosuid,nodev,noexec {device} ")
        assert "unknown filesystem type" in error
    assert left_behind() == []


def test_the_list_of_blkid_is_read() -> None:
    export = (
        "DEVNAME=/dev/vda1\nUUID=1\nTYPE=ext4\n\n"
        "DEVNAME=/dev/sr0\nLABEL=my\\ disk\\ 1\nTYPE=iso9660\n\n"
        "DEVNAME=/dev/vdb\n\n\nrubbish"
    )
    assert devices(export)[:3] == [
        Device("/dev/vda1", "ext4", ""),
        Device("/dev/sr0", "iso9660", "my disk 1"),
        Device("/dev/vdb", "", ""),
    ]


# --- tools that fail: made up, since the real ones do not on demand ----------------------------------------


@pytest.fixture
def blkid(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], pathlib.Path]:
    """A script in the place of blkid."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setattr(config_drive, "TOOLS", (str(tools),))

    def make(body: str) -> pathlib.Path:
        path = tools / "blkid"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


def test_a_tool_that_is_not_there_is_named(
    blkid: Callable[[str], pathlib.Path], tmp_path: pathlib.Path
) -> None:
    assert collected().error == f"blkid: not found in {tmp_path}/tools; it is part of util-linux"


def test_a_tool_that_fails_is_quoted(blkid: Callable[[str], pathlib.Path]) -> None:
    path = blkid("echo first: the reason >&2; echo second >&2; exit 4")
    assert collected().error == f"{path} -c /dev/null -o export: first: the reason"
    path = blkid("exit 4")
    assert collected().error == f"{path} -c /dev/null -o export: status 4"


def test_a_tool_that_finds_nothing_has_not_failed(blkid: Callable[[str], pathlib.Path]) -> None:
    blkid("exit 2")
    assert collected().absent


def test_a_tool_that_hangs_is_ended(
    blkid: Callable[[str], pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_drive, "TOOL_SECONDS", 0.2)
    path = blkid("exec /bin/sleep 60")
    began = time.monotonic()
    assert collected().error == f"{path}: ended after 0.2 s without a result"
    assert time.monotonic() - began < 5


def test_a_disk_that_is_gone_by_now_is_told(blkid: Callable[[str], pathlib.Path]) -> None:
    blkid("printf 'DEVNAME=/dev/no-such-disk\\nLABEL=config-2\\nTYPE=vfat\\n'")
    assert collected().error == "/dev/no-such-disk: No such file or directory"
