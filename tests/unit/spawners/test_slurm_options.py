"""What reaches sbatch's command line is plain, allowed, and complete."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.errors import InvalidSpec
from heroes.api.ids import new_ulid
from heroes_spawners.site import Job, Shape
from heroes_spawners.slurm import options

KEY = new_ulid()


def test_resources_are_all_on_the_command_line() -> None:
    """Walltime in whole minutes, rounded up; memory and GPUs per node when asked for."""
    shape = Shape(nodes=2, tasks=4, cpus_per_task=3, memory_mib=512, gpus=1, walltime_s=61)
    assert options.render(Job(KEY, "cpu", shape, ("true",), options=("--account=abc",))) == (
        "--partition=cpu", "--nodes=2", "--ntasks=4", "--cpus-per-task=3", "--time=2", "--mem=512M", "--gres=gpu:1",
        "--account=abc",
    )  # fmt: skip


@pytest.mark.parametrize(
    "option",
    ["--output=/tmp/x", "--export=ALL,X=1", "--account=a b", "--account=$(id)", "-A", "account=x", "--qos=%x",
     "--wrap=id", "--account=x\n--output=y", "--job-name=x", "--chdir=/", "--account=", "--get-user-env", "--uid=0"],
)  # fmt: skip
def test_options_outside_the_list_are_refused(option: str) -> None:
    """A queue adds only what is on the list, with plain values."""
    with pytest.raises(InvalidSpec):
        options.site_options((option,))


@pytest.mark.parametrize("queue", ["", "a b", "-x", "cpu;id", "cpu\n", "a" * 64, "é"])
def test_a_queue_has_a_plain_name(queue: str) -> None:
    """Names of queues are names."""
    with pytest.raises(InvalidSpec):
        options.render(Job(KEY, queue, Shape(), ("true",)))


@pytest.mark.parametrize(
    "shape", [Shape(nodes=0), Shape(tasks=0), Shape(cpus_per_task=0), Shape(walltime_s=0), Shape(nodes=3, tasks=2)]
)
def test_a_shape_asks_for_something(shape: Shape) -> None:
    """At least one of each, and no fewer tasks than nodes."""
    with pytest.raises(InvalidSpec):
        options.shape(shape)


@pytest.mark.parametrize("base", ["", "home", "/", "/a b", "/a%x", "/a/../b", "/a\\b", "/a$b", "/a\n", "//a", "/é"])
def test_a_base_directory_is_plain(base: str) -> None:
    """Absolute, and nothing that the shell or SLURM would read."""
    with pytest.raises(InvalidSpec):
        options.check_base(base)


def test_good_values_pass() -> None:
    """What is plain comes back unchanged."""
    assert options.check_base("/home/h-1/heroes_2.x") == "/home/h-1/heroes_2.x"
    assert options.check_path("data/acme/a b é/c/", "data", 3) == "data/acme/a b é/c"
    assert options.site_options(("--exclusive", "--constraint=a&b")) == ("--exclusive", "--constraint=a&b")


@given(path=st.text(max_size=40))
def test_no_path_leaves_the_base(path: str) -> None:
    """What is taken for a path is relative, without "..", and printable."""
    try:
        taken = options.check_path(path, "data", depth=2)
    except InvalidSpec:
        return
    assert taken.startswith("data/")
    assert ".." not in taken.split("/")
    assert taken.isprintable()


@given(key=st.text(max_size=30))
def test_a_key_is_a_ulid(key: str) -> None:
    """Nothing else is sent as one."""
    with pytest.raises(InvalidSpec):
        options.check_keys((f"{key}!",))
