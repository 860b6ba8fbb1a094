"""Memory of the machine, and quotas of control groups from folder trees like those of real systems."""

from pathlib import Path

import pytest

from mtlcli import cores
from mtlcli.cores import cpu_quota, group_usage, limited_group, physical_cores, usable_cores

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 {root} /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n"
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_uses_the_smallest_quota_of_the_path(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a.slice/b.scope\n",
        "proc/self/mountinfo": V2,
        "sys/fs/cgroup/a.slice/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000\n",
        "sys/fs/cgroup/a.slice/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
    }
    root = tree(tmp_path, files)
    assert cpu_quota(root) == 1.5
    limited = limited_group(root)
    assert limited == (root / "sys/fs/cgroup/a.slice", 1.5)
    assert group_usage(limited[0]) == 2.5
    tree(tmp_path, {"sys/fs/cgroup/a.slice/b.scope/cpu.max": "50000 100000\n"})
    assert cpu_quota(root) == 0.5


def test_version_2_in_a_container_with_its_own_namespace(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "400000 200000\n"}
    assert cpu_quota(tree(tmp_path, files)) == 2


@pytest.mark.parametrize("mounted", ["/", "/docker/abc"])
def test_version_1_in_a_container_with_the_path_of_the_host(mounted: str, tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpuset:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n",
        "proc/self/mountinfo": V1.format(root=mounted),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": "7000000000\n",
    }
    root = tree(tmp_path, files)
    assert cpu_quota(root) == 2.5
    assert group_usage(root / "sys/fs/cgroup/cpu,cpuacct") == 7


def test_version_1_on_the_host(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/jobs/one\n",
        "proc/self/mountinfo": V1.format(root="/"),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/jobs/one/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/jobs/one/cpu.cfs_period_us": "100000\n",
    }
    assert cpu_quota(tree(tmp_path, files)) == 3


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "", "proc/self/mountinfo": "nonsense\n - \n30 - cgroup2\n"},
        {"proc/self/cgroup": "0::/../..\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "max 100000\n"},
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "0 0\n"},
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": "much\n"},
    ],
)
def test_no_quota(files: dict[str, str], tmp_path: Path) -> None:
    assert cpu_quota(tree(tmp_path, files)) is None


def test_a_mount_point_with_a_space(tmp_path: Path) -> None:
    mount = V2.replace("/sys/fs/cgroup", "/my\\040groups")
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mount, "my groups/cpu.max": "100000 100000\n"}
    assert cpu_quota(tree(tmp_path, files)) == 1


@pytest.mark.parametrize(("quota", "expected"), [("max", 4), ("250000", 2), ("30000", 1), ("9900000", 4)])
def test_usable_cores(quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "affinity", lambda: {0, 1, 4, 5})
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2, "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"}
    assert usable_cores(tree(tmp_path, files)) == expected


def test_hyper_threads_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "affinity", lambda: {0, 1, 4, 5})
    files = {f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list": f"{core % 4},{core % 4 + 4}\n"
             for core in (0, 1, 4, 5)}  # fmt: skip
    assert physical_cores(tree(tmp_path, files)) == 2
    assert physical_cores(tmp_path / "nowhere") == 4
