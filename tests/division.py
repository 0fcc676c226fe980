"""How the tests are divided among processes: by what each costs, and by what they share.

`durations.json` holds the processor seconds of every test and of every fixture that several tests
share; `pytest --measure` writes it anew. The dearest come first, so that no process is left with a
long test at the end; tests that share a dear fixture stay together, so that it is made once. A test
is slow if it costs more than SLOW_TEST itself or needs a fixture that costs more than SLOW_FIXTURE.

Processor seconds (this process's, and its children's once they have ended) are the same on a busy
machine as on a quiet one.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

DURATIONS = Path(__file__).with_name("durations.json")
SLOW_TEST, SLOW_FIXTURE = 0.6, 12.0
UNKNOWN_SECONDS = 0.3
"""What a test is taken to cost that nobody has measured yet."""
WORTH_WRITING = 0.05
_MOST_WORKERS = 8
_SHARED_BY_FILE = ("module", "class", "package")

_made = pytest.StashKey[dict]()
_measured: dict[str, dict[str, float]] = {"tests": {}, "fixtures": {}}


def processor_seconds() -> float:
    """Add up what this process and its ended children have computed, forked ones among them."""
    times, forked = os.times(), sys.modules.get("tests.forked")
    own = times.user + times.system + times.children_user + times.children_system
    return own + (sum(forked.computed) if forked else 0.0)


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def known() -> dict[str, dict[str, float]]:
    """Read what tests and shared fixtures cost when they were measured."""
    return json.loads(DURATIONS.read_text(encoding="utf-8"))


def shared_fixtures(item: pytest.Item) -> dict[str, str]:
    """Return the fixtures of a test that outlive it, by name, with their scopes."""
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009
    found = {}
    for name in item.fixturenames:
        for definition in definitions.get(name, ())[-1:]:
            if definition.scope != "function":
                found[_name_of(definition)] = definition.scope
    return found


def _name_of(definition) -> str:
    return f"{definition.baseid}::{definition.argname}"


class Division:
    """The hooks that mark, group, order and measure.

    pytest-xdist's own `--dist loadgroup` writes groups into the tests' names, which pytest 9.2 no
    longer lets it do. Here the processes that collect write the groups to a file, which the one
    that divides reads.
    """

    def __init__(self, config: pytest.Config) -> None:
        """Say where the groups are written down."""
        told = getattr(config, "workerinput", {}).get("groups")
        self._own = None if told else tempfile.mkdtemp(prefix="groups-")
        self._groups = Path(told or f"{self._own}/groups.json")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node):
        """Tell a process where to write down the groups."""
        node.workerinput["groups"] = str(self._groups)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log):
        """Give each process the next group when it has nearly done with the last."""
        if config.getvalue("dist") != "load":
            return None  # something else was asked for
        from xdist.scheduler import LoadScopeScheduling

        config.option.loadscopereorder = False
        groups = self._groups

        class ByGroup(LoadScopeScheduling):
            def _split_scope(self, nodeid: str) -> str:
                if not hasattr(self, "known"):
                    self.known = json.loads(groups.read_text(encoding="utf-8"))
                return self.known[nodeid]

        return ByGroup(config, log)

    def pytest_unconfigure(self):
        """Remove the file."""
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark what is slow, keep together what shares, put the dearest first."""
        costs = known()
        shared = {item: shared_fixtures(item) for item in items}
        groups: dict[str, list[pytest.Item]] = {}
        for item in items:
            dearest = max((costs["fixtures"].get(name, 0) for name in shared[item]), default=0)
            if costs["tests"].get(item.nodeid, 0) > SLOW_TEST or dearest > SLOW_FIXTURE:
                item.add_marker(pytest.mark.slow)
            groups.setdefault(group_of(item, shared[item]), []).append(item)
        order = in_order(groups, shared, costs)
        items[:] = [item for name in order for item in groups[name]]
        self._write_down({item.nodeid: name for name in order for item in groups[name]})

    def _write_down(self, groups: dict[str, str]) -> None:
        aside = self._groups.with_name(f"{os.getpid()}.json")  # each process writes the same
        aside.write_text(json.dumps(groups), encoding="utf-8")
        os.replace(aside, self._groups)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        """Measure what a shared fixture costs, apart from the test that needs it first."""
        began = processor_seconds()
        made = yield
        if fixturedef.scope != "function":
            costs = request.session.stash.setdefault(_made, {})
            costs[_name_of(fixturedef)] = processor_seconds() - began
        return made

    def pytest_runtest_logstart(self):
        """Begin to count."""
        self._began = processor_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        """Write down what a phase of a test has cost."""
        report = yield
        now = processor_seconds()
        made = item.session.stash.get(_made, {})
        item.session.stash[_made] = {}
        report.cost = now - self._began - sum(made.values())
        report.made = made
        self._began = now
        return report

    def pytest_runtest_logreport(self, report):
        """Gather the costs: in the process that hears of all tests."""
        tests, name = _measured["tests"], report.nodeid
        tests[name] = tests.get(name, 0.0) + getattr(report, "cost", 0.0)
        for fixture, cost in getattr(report, "made", {}).items():
            dearest = _measured["fixtures"].get(fixture, 0.0)
            _measured["fixtures"][fixture] = max(cost, dearest)

    def pytest_sessionfinish(self, session):
        """Write the costs, if asked to."""
        if session.config.getoption("measure") and not hasattr(session.config, "workerinput"):
            rounded = {
                kind: {name: round(cost, 2) for name, cost in sorted(costs.items())}
                for kind, costs in _measured.items()
            }
            rounded["fixtures"] = {
                name: cost for name, cost in rounded["fixtures"].items() if cost > WORTH_WRITING
            }
            DURATIONS.write_text(json.dumps(rounded, indent=0) + "\n", encoding="utf-8")


def group_of(item: pytest.Item, shared: dict[str, str]) -> str:
    """Name the group whose tests run in one process: the test's own, or its file's."""
    by_file = [name for name, scope in shared.items() if scope in _SHARED_BY_FILE]
    if any(not name.endswith("::one_thread") for name in by_file):
        return item.nodeid.split("::")[0]
    return item.nodeid


def in_order(
    groups: dict[str, list[pytest.Item]],
    shared: dict[pytest.Item, dict[str, str]],
    costs: dict[str, dict[str, float]],
) -> list[str]:
    """Put the dearest groups first.

    Before all others comes one that needs the default run, so that it is trained at once; those
    that need it too come last, when it is there and any process can copy it.
    """
    total, late = {}, []
    for name, members in groups.items():
        fixtures = {fixture for item in members for fixture in shared[item]}
        own = [costs["tests"].get(item.nodeid, UNKNOWN_SECONDS) for item in members]
        if any(one.endswith("::default_run") for one in fixtures):
            late.append(name)
            fixtures = set()
        total[name] = sum(own) + sum(costs["fixtures"].get(one, 0) for one in fixtures)
    first = min(late, key=lambda name: (total[name], name), default=None)
    return sorted(groups, key=lambda name: (name != first, name in late, -total[name], name))


def share_the_cores(config: pytest.Config) -> None:
    """Give each process its part of the cores, and those that it starts the same.

    To be called before torch is imported. Threads that wait do so asleep, for others compute.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if not workers and config.getoption("numprocesses", None):
        return  # this process runs no test; what it sets the others would inherit
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // max(workers, 1))))
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def number_of_workers() -> int:
    """Say how many processes `-n auto` means."""
    return min(cores(), _MOST_WORKERS)
