"""`compare --on ray`, on a cluster of two nodes on this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from threading import Lock

import psutil
import pytest
import yaml

from ser_strategies.cache import build as building
from ser_strategies.cli import main
from ser_strategies.runs.cell import FAILED, FINISHED, RUNNING, status_of
from ser_strategies.runs.crew import LostWorkError
from ser_strategies.runs.executors import LocalExecutor
from tests.cache.conftest import contents, shards, stamps
from tests.cli.conftest import CPU, DEMO, ENCODER, SMALL, everything_in, only_error
from tests.cli.on_engines import TRAINED, grid_of, ledger, ledger_here, sleep, tiny, what_was_told
from tests.cli.test_compare import cells

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
from ser_strategies.runs import ray_engine  # noqa: E402
from ser_strategies.runs.ray_engine import RayExecutor  # noqa: E402

ROOT = Path(__file__).parents[2]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
# Bytes of a small disk, and what is left of it: enough to say that a run has failed, not for the run.
DISK, LEFT = 8 * 2**20, 40 * 2**10
# As on a machine that has nothing else to do: others' memory and haste are not the point.
PATIENT = {"RAY_memory_monitor_refresh_ms": "0", "RAY_worker_register_timeout_seconds": "600"}
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_worker_niceness": "0"}
# Ray's own threads, sockets and wording are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


def patient(get_node):
    """Asks for a node as long as it takes to start where the machine is busy; Ray gives it half a minute."""

    def ask(*given):
        deadline = time.monotonic() + 300
        while True:
            try:
                return get_node(*given)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    return ask


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        for name, value in {**PATIENT, **QUIET}.items():
            patch.setenv(name, value)
        services = ray._private.services
        patch.setattr(services, "get_node", patient(services.get_node))
        made = cluster_utils.Cluster(
            initialize_head=True, head_node_args={**NODE, "include_dashboard": False}
        )
        made.add_node(**NODE)
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def on_ray(cluster, monkeypatch):
    """An executor there."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    for name, value in {**PATIENT, **QUIET, "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    Path("out").mkdir()
    executor = RayExecutor()
    yield executor
    executor.shutdown(cancel_futures=True)
    assert what_was_told("twice") == []
    assert at_work() == []


def at_work():
    """Marks of runs, and leases, whose process is still there, after a moment to end."""
    deadline = time.monotonic() + 30
    while (
        left := [*Path("out").rglob("at-work"), *Path("out").rglob(".lease")]
    ) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [each for each in left if each.name == ".lease" or Path(f"/proc/{each.read_text()}").exists()]


def within(seconds, holds):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_many_cells_that_take_no_time_are_each_run_once(on_ray):
    many = [tiny("a", seed) for seed in range(200)]
    on_ray.check(Path("out"), [on_ray.needs])
    grid = grid_of(many, on_ray)
    grid.run()
    assert what_was_told("begins") == what_was_told("ends") == sorted(cell.hash for cell in many)
    assert {status_of(cell) for cell in many} == {FINISHED}
    assert not list(Path("out").glob(".seen*"))


def test_a_node_that_is_lost_takes_no_run_along(on_ray, cluster):
    runs = [tiny("slow", seed, 8.0) for seed in range(4)]
    node = cluster.add_node(**NODE)
    raylet = node.all_processes["raylet"][0].process.pid

    def kill():
        within(300, lambda: any(psutil.Process(int(each)).ppid() == raylet for each in at_work_by()))
        cluster.remove_node(node, allow_graceful=False)

    killed = threading.Thread(target=kill)
    killed.start()
    grid = grid_of(runs, on_ray)
    grid.run()
    killed.join()
    assert {status_of(cell) for cell in runs} == {FINISHED}
    assert len(what_was_told("begins")) > len(runs) == len(what_was_told("ends"))
    assert grid.watcher.where, "it is told where each is"


def test_a_run_whose_node_is_lost_more_often_than_it_is_retried_has_failed(on_ray):
    on_ray.retries = 1
    grid_of([tiny("dies"), tiny("fine")], on_ray, act=end_the_worker).run()
    said = json.loads(Path("out/cells/dies-0/cell.json").read_text())
    assert said["status"] == FAILED
    assert "Ray lost the node or the worker that it was on 2 times" in said["error"]
    assert status_of(tiny("fine")) == FINISHED


def test_a_run_that_ray_does_not_take_has_failed(on_ray):
    on_ray._join()
    not_plain = partial(sleep, Lock())
    grid_of([tiny("other")], on_ray, act=not_plain).run()
    said = json.loads(Path("out/cells/other-0/cell.json").read_text())
    assert said["status"] == FAILED
    assert said["error"].startswith("Ray did not take it (")


def end_the_worker(order, lease, place):
    return os._exit(1) if order.cell.name == "dies" else sleep(order, lease, place)


def test_a_command_that_was_killed_is_given_again(on_ray):
    names = "abcd"
    words = [sys.executable, "-m", "tests.cli.on_engines", "ray", ",".join(names), "6"]
    driver = subprocess.Popen(words)
    within(300, lambda: len(at_work_by()) > 0)
    driver.kill()
    driver.wait()
    within(300, lambda: at_work_by() == [])
    before = what_was_told("ends")
    runs = [tiny(name) for name in names]
    grid_of(runs, on_ray).run()
    assert {status_of(cell) for cell in runs} == {FINISHED}
    assert what_was_told("ends") == sorted(cell.hash for cell in runs)
    assert len(what_was_told("begins")) > len(names)
    assert set(before) <= set(what_was_told("ends"))


def at_work_by():
    """Processes that are marked as being at work."""
    found = [each.read_text() for each in Path("out").rglob("at-work")]
    return [each for each in found if each and psutil.pid_exists(int(each))]


def test_what_is_cancelled_goes_on_here_and_what_was_begun_here_goes_on_there(on_ray):
    runs = [tiny("quick"), tiny("slow", 0, 300.0), tiny("late", 0, 300.0)]
    grid = grid_of(runs, on_ray)
    work = threading.Thread(target=grid.run)
    work.start()
    within(300, lambda: status_of(runs[0]) == FINISHED and "slow-0" in what_was_told("begins"))
    on_ray.shutdown(cancel_futures=True)
    work.join(120)
    assert not work.is_alive()
    assert at_work() == []
    assert [status_of(cell) for cell in runs][:2] == [FINISHED, RUNNING]
    here = [tiny("quick"), tiny("slow"), tiny("other", 0, 300.0)]
    local = LocalExecutor(jobs=1)
    threading.Thread(target=grid_of(here[:2], local).run).start()
    within(300, lambda: status_of(here[1]) == FINISHED)
    assert what_was_told("begins").count("quick-0") == 1
    grid_of([*here[:2], tiny("other")], RayExecutor()).run()
    assert what_was_told("ends") == ["other-0", "quick-0", "slow-0"]


def test_two_grids_share_one_folder(on_ray):
    runs = [tiny("a", seed, 0.3) for seed in range(12)]
    both = [grid_of(runs, executor) for executor in (on_ray, RayExecutor())]
    threads = [threading.Thread(target=grid.run) for grid in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert what_was_told("begins") == sorted(cell.hash for cell in runs)
    assert {status_of(cell) for cell in runs} == {FINISHED}


def test_runs_that_die_hang_or_eat_have_failed_with_their_reason(on_ray, capsys):
    config = yaml.safe_load((DEMO / "vanilla.yaml").read_text())
    config["model"] = {"class_path": "VanillaFineTuning", "init_args": {"encoder": ENCODER}}
    config["trainer"] = {"accelerator": "cpu", "max_epochs": 1}
    for how in ("dies", "eats", "hangs"):
        config["data"] = {"class_path": "tests.cli.on_engines.Faulty", "init_args": {"how": how}}
        Path(f"{how}.yaml").write_text(yaml.safe_dump(config))
    words = ("--seeds=1", "--out=out", "--on=ray")
    with pytest.raises(SystemExit):
        main(["compare", "dies.yaml", "eats.yaml", *words, "--ray.memory=2.5"])
    with pytest.raises(SystemExit):
        main(["compare", "hangs.yaml", *words, "--deadline=0.3"])
    errors = {name: facts["error"] for (name, _), (_, facts) in cells().items()}
    assert "SIGSEGV" in errors["dies"]
    assert "more than the 2.5 GB that it was given, and was ended" in errors["eats"]
    assert "longer than 0.3 minutes (--deadline), and was ended" in errors["hangs"]
    trained = [
        each for each in psutil.process_iter(["cmdline"]) if "Faulty" in " ".join(each.info["cmdline"] or [])
    ]
    assert not trained


@pytest.fixture
def small_disk(on_ray):
    """`out` is a small disk of its own; gives a file that all but fills it."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "small", "out"]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk may be mounted here")
    filler = Path("out/filler")
    filler.write_bytes(bytes(DISK - LEFT))
    yield filler
    subprocess.run(["umount", "--lazy", "out"], check=True)


def test_runs_fail_where_the_folder_is_full_and_then_leave_the_ledger_of_this_machine(small_disk, capsys):
    words = (*TRAINED, "--seeds=2", "--on=ray")
    with pytest.raises(SystemExit):
        main([*words])
    assert "2 of 2 runs failed; the reasons stand in" in only_error(capsys.readouterr().err)
    errors = [facts["error"] for _, facts in cells().values()]
    assert len(errors) == 2
    assert all(re.search("No space left on device|its disk is full; see out/cells/", each) for each in errors)
    small_disk.unlink()
    main([*words, "--retry"])
    assert {facts["status"] for _, facts in cells().values()} == {FINISHED}
    assert ledger() == ledger_here("--seeds=2")


FROZEN = ("compare", "--strategies", "frozen", "--data=Synthetic", "--seeds=1", "--out=new", "--on=ray")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--ray.gpus=1",), "needs 1 GPUs on one node of the Ray cluster, and no node has any"),
        (("--ray.cores=64",), "needs 64 cores on one node of the Ray cluster, and none has more than 1"),
        (("--ray.gpus=1.5",), "gpus must be a share of one GPU such as 0.5, or a whole number"),
        (("--ray.cpus=1",), "--ray.cpus is not known"),
        (("--ray.cores=many",), "--ray.cores takes a number, got 'many'"),
        (("--ray.retries",), "--ray.retries needs a value"),
        (("--jobs=2",), "--jobs is for --on local"),
        (("--local.memory=2",), "--local.memory is for --on local, and this is --on ray"),
    ],
)
def test_what_the_cluster_cannot_do_is_one_sentence_before_anything_runs(words, expected, on_ray, capsys):
    before = everything_in(Path())
    with pytest.raises(SystemExit) as stop:
        main([*FROZEN, *words])
    assert stop.value.code not in {0, None}
    assert expected in only_error(capsys.readouterr().err)
    assert everything_in(Path()) == before


def test_a_node_that_differs_or_does_not_see_the_folder_is_named(on_ray, monkeypatch):
    monkeypatch.setattr(ray_engine, "version", lambda name: "9.9")
    with pytest.raises(ValueError, match=r"has another ser-strategies \(9.9 here, 0.1.0 there\): install"):
        on_ray.check(Path("new"), [on_ray.needs])
    monkeypatch.undo()
    elsewhere = lambda: lambda path, folder, packages: (None, True, dict.fromkeys(packages, None))  # noqa: E731
    monkeypatch.setattr(ray_engine, "_prober", elsewhere)
    monkeypatch.setattr(ray_engine, "SAME", ())
    with pytest.raises(
        ValueError, match=r"does not see .*/new: start in a folder, and write to one, on a disk"
    ):
        on_ray.check(Path("new"), [on_ray.needs])
    assert not Path("new").exists()


def test_no_cluster_at_the_address(cluster):
    code = (
        "from ser_strategies.runs.ray_engine import RayExecutor; from pathlib import Path\n"
        "e = RayExecutor(address='127.0.0.1:9')\n"
        "try: e.check(Path('out'), [e.needs])\nexcept ValueError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.stdout.startswith("no Ray cluster at 127.0.0.1:9 ("), ran.stderr
    assert ran.stdout.count("\n") == 1


# Caches -----------------------------------------------------------------------------------------------------

CACHE = ("--model=CachedFineTuning", f"--model.encoder={ENCODER}", *SMALL, *CPU)


@pytest.mark.usefixtures("on_ray")
def test_actors_build_the_shards_of_this_machine_and_only_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(building, "SHARD_BYTES", 30_000)
    main(["cache", "build", *CACHE, "--model.cache=here", "--on=local", "--jobs=1"])
    capsys.readouterr()
    main(["cache", "estimate", *CACHE, "--model.cache=there", "--on=ray"])
    assert re.search(r"about [\d.]+ minutes on [12] workers? of ray \(cpu\)", capsys.readouterr().out)
    main(["cache", "build", *CACHE, "--model.cache=there", "--on=ray"])
    (here,), (there,) = Path("here").iterdir(), Path("there").iterdir()
    assert contents(there) == contents(here)
    gone, *kept = shards(there)
    before = stamps(there)
    assert kept
    gone.unlink()
    main(["cache", "build", *CACHE, "--model.cache=there", "--on=ray"])
    assert contents(there) == contents(here)
    assert {path.name: stamps(there)[path.name] for path in kept} == {
        path.name: before[path.name] for path in kept
    }


def counted(kept, portion):
    """Ends the process at 3, once."""
    del kept
    if portion == 3 and not Path("out/dead").exists():
        Path("out/dead").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return portion


def dies(kept, portion):
    os.kill(os.getpid(), signal.SIGKILL)


def fails(kept, portion):
    raise ValueError(f"no {portion} of {kept!r}")


def test_a_portion_whose_actor_is_lost_goes_to_another(on_ray):
    on_ray.check(Path("out"), [on_ray.needs])
    on_ray.retries = 1
    with on_ray.crew(str, 2) as crew:
        with pytest.raises(ValueError, match="no 1 of ''"):
            list(crew.each(fails, [1]))
        assert sorted(crew.each(counted, range(6))) == list(range(6))
        assert Path("out/dead").exists()
        with pytest.raises(LostWorkError, match="Ray lost the worker that computed, 2 times"):
            list(crew.each(dies, [1]))
