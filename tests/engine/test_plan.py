"""What runs, in which order and why; GNU make is the second opinion."""

import os
import shutil
import subprocess
from graphlib import TopologicalSorter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iotstack_invoke.backups.names import WILDCARDS
from iotstack_invoke.core.errors import RuleError
from iotstack_invoke.engine.plan import (
    Graph,
    Plan,
    Reason,
    Why,
    bind,
    decide,
    parameters_of,
    resolve,
)
from iotstack_invoke.engine.rules import Job, Rule, RuleBook
from iotstack_invoke.engine.steps import File, Record
from iotstack_invoke.hosts.base import FileFact

ROOTS = {"pi": "/stack"}


class Touch:
    """A step that would make a file."""

    def __init__(self, *words):
        self.words = words

    def commands(self):
        return (" ".join(("touch", *self.words)),)

    def do(self, context):
        raise AssertionError("a plan does nothing")


def plain(name, outputs=None, inputs=(), ancient=(), words=()):
    """Return a rule of one name whose body yields one Touch."""

    def body(job):
        yield Touch(*words)

    outputs = (f"pi:{name}",) if outputs is None else outputs
    return Rule(name, tuple(outputs), body, inputs=tuple(inputs), ancient=tuple(ancient))


def pi(name):
    return File("pi", name, "/stack")


def at(**times):
    """Return files of ten bytes, dated by the second given."""
    return {pi(name): FileFact(10, float(second)) for name, second in times.items()}


def planned(rules, targets, files, records=None, force=()):
    graph = resolve(
        RuleBook(*rules, wildcards=WILDCARDS), [f"pi:{each}" for each in targets], ROOTS
    )
    return decide(graph, files, records, force=force)


def running(plan):
    return [each.job.rule.name for each in plan.to_run]


def reasons(plan):
    return {each.job.rule.name: [str(r) for r in each.reasons] for each in plan.to_run}


CHAIN = (plain("b", inputs=["pi:a"]), plain("c", inputs=["pi:b"]), plain("d", inputs=["pi:c"]))


# --- random worlds: rules f0, f1, … each made from earlier ones, over the leaves s0, s1, s2


@st.composite
def worlds(draw):
    """Return ({file: its inputs}, targets, {file that exists: its date}); every leaf exists."""
    leaves = ["s0", "s1", "s2"]
    made = [f"f{number}" for number in range(draw(st.integers(1, 12)))]
    inputs = {
        name: draw(st.lists(st.sampled_from(leaves + made[:number]), unique=True, max_size=4))
        for number, name in enumerate(made)
    }
    targets = draw(st.lists(st.sampled_from(made), unique=True, min_size=1, max_size=3))
    second = st.integers(1_000_000_000, 1_000_000_006)
    files = {name: draw(second) for name in leaves}
    files |= {name: draw(second) for name in made if draw(st.integers(0, 3))}
    return inputs, targets, files


def rules_of(inputs):
    return [plain(name, inputs=[f"pi:{i}" for i in needed]) for name, needed in inputs.items()]


def ancestors(inputs, targets):
    found, waiting = set(), list(targets)
    while waiting:
        name = waiting.pop()
        if name in inputs and name not in found:
            found.add(name)
            waiting += inputs[name]
    return found


def after(plan, files, start=2_000_000_000):
    """Return the files after a plan was run, one job each second."""
    files = dict(files)
    for second, each in enumerate(plan.to_run, start):
        files |= {output: FileFact(10, float(second)) for output in each.job.outputs}
    return files


def makes_opinion(folder, inputs, targets, files, line=""):
    """Return what `make -n` would run, or skip the test where there is no GNU make."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("the oracle is GNU make, and there is no `make` here")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lines = ["MAKEFLAGS += --no-builtin-rules", line, f"goal: {' '.join(targets)}"]
    for name, needed in inputs.items():
        lines += [f"{name}: {' '.join(needed)}", f"\t@echo run {name}"]
    (folder / "Makefile").write_text("\n".join(lines) + "\n")
    for name, second in files.items():
        (folder / name).touch()
        os.utime(folder / name, (second, second))
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
    told = subprocess.run(
        [make, "-n", "goal"],
        cwd=folder, capture_output=True, text=True, check=True, timeout=20, env=clean,
    )  # fmt: skip
    return {line.removeprefix("echo run ") for line in told.stdout.splitlines() if "run " in line}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(worlds())
def test_we_run_what_gnu_make_would_run(tmp_path, world):
    """We run all that `make -n` wants if intermediates may be missing, none it never wants.

    With .SECONDARY a missing intermediate is no reason by itself, as with us; but make does not
    see a stale file behind it, and we do. Without, make remakes whatever is missing. Where
    nothing is missing both are the same, and so are we.
    """
    inputs, targets, files = world
    least = makes_opinion(tmp_path / "least", inputs, targets, files, ".SECONDARY:")
    most = makes_opinion(tmp_path / "most", inputs, targets, files)
    ours = set(running(planned(rules_of(inputs), targets, at(**files))))
    assert least <= ours <= most
    if ancestors(inputs, targets) <= set(files):
        assert least == ours == most


@given(worlds())
def test_after_a_run_there_is_nothing_to_do(world):
    """One run is enough: what it made is newer than what it was made from."""
    inputs, targets, files = world
    rules = rules_of(inputs)
    plan = planned(rules, targets, at(**files))
    done = after(plan, at(**files))
    assert planned(rules, targets, done).to_run == ()
    assert all(pi(name) in done for name in targets)


@given(worlds(), st.data())
def test_a_run_that_died_is_finished_by_the_next(world, data):
    """After any first part of a run, a second run settles everything."""
    inputs, targets, files = world
    rules = rules_of(inputs)
    plan = planned(rules, targets, at(**files))
    done = data.draw(st.integers(0, len(plan.to_run)))
    half = after(Plan(plan.to_run[:done]), at(**files))
    second = planned(rules, targets, half)
    assert planned(rules, targets, after(second, half, start=2_000_001_000)).to_run == ()


@given(worlds())
def test_a_plan_is_in_order_and_goes_no_further_than_its_targets(world):
    """Each job comes after all it waits for, and only what targets are made from is planned."""
    inputs, targets, files = world
    plan = planned(rules_of(inputs), targets, at(**files))
    order = [each.job.rule.name for each in plan.planned]
    assert set(order) == ancestors(inputs, targets)
    assert len(order) == len(set(order))
    for each in plan.planned:
        needs = {job.rule.name for job in each.needs}
        assert needs == set(inputs[each.job.rule.name]) & set(inputs)
        assert needs <= set(order[: order.index(each.job.rule.name)])


@given(worlds())
def test_when_a_job_runs_all_that_it_needs_is_there(world):
    """Run in order, no job meets an input that is missing."""
    inputs, targets, files = world
    there = set(files)
    for each in planned(rules_of(inputs), targets, at(**files)).to_run:
        assert set(inputs[each.job.rule.name]) <= there
        there.add(each.job.rule.name)


@given(worlds())
def test_every_reason_is_true_and_none_is_left_out(world):
    """A job runs for exactly the reasons that can be read off its files and its neighbours."""
    inputs, targets, files = world
    plan = planned(rules_of(inputs), targets, at(**files))
    runs = set(running(plan))
    date = {}
    for name in TopologicalSorter(inputs).static_order():
        # a missing intermediate is as old as the newest of what it is made from
        date[name] = files.get(name) or max((date[i] for i in inputs[name]), default=0)
    for each in plan.planned:
        name = each.job.rule.name
        true = {Reason(Why.UPSTREAM, f"pi:{i}") for i in inputs[name] if i in runs}
        used = any(name in inputs[user] for user in runs)
        if name not in files and (name in targets or used):
            true.add(Reason(Why.MISSING, f"pi:{name}"))
        if name in files:
            newer = [i for i in inputs[name] if date[i] > files[name]]
            true |= {Reason(Why.NEWER, f"pi:{i}") for i in newer}
        assert set(each.reasons) == true
        assert len(each.reasons) == len(true)


@given(worlds(), st.data())
def test_a_forced_rule_takes_along_what_depends_on_it(world, data):
    """When all is up to date, `force` runs the rule, all that depends on it and no other.

    What is forced needs its inputs: those that were missing are made too.
    """
    inputs, targets, files = world
    rules = rules_of(inputs)
    done = after(planned(rules, targets, at(**files)), at(**files))
    known = sorted(ancestors(inputs, targets))
    # whatever is still missing was never needed; let it be there
    done |= {pi(name): FileFact(10, 1.0) for name in known if pi(name) not in done}
    done = after(planned(rules, targets, done), done)
    forced = data.draw(st.sampled_from(known))
    plan = planned(rules, targets, done, force=[forced])
    assert set(running(plan)) == {n for n in known if forced in ancestors(inputs, [n])}
    assert "forced" in reasons(plan)[forced]
    assert set(running(planned(rules, targets, done, force=["all"]))) == set(known)


@given(worlds(), st.randoms())
def test_the_order_of_the_rules_means_nothing(world, random):
    """A rulebook, its targets and the inputs of a rule can be written in any order."""
    inputs, targets, files = world
    before = planned(rules_of(inputs), targets, at(**files))
    names, targets = list(inputs), list(targets)
    random.shuffle(names)
    random.shuffle(targets)
    shuffled = {name: random.sample(inputs[name], len(inputs[name])) for name in names}
    changed = planned(rules_of(shuffled), targets, at(**files))
    assert {n: set(r) for n, r in reasons(changed).items()} == {
        n: set(r) for n, r in reasons(before).items()
    }


# --- single cases


def test_a_plan_lists_what_is_up_to_date_as_well():
    """A job that need not run is planned without a reason."""
    plan = planned(CHAIN, ["d"], at(a=1, b=2, c=3, d=4))
    assert [(each.job.rule.name, each.runs) for each in plan.planned] == [
        ("b", False),
        ("c", False),
        ("d", False),
    ]
    assert plan.to_run == ()


def test_a_missing_intermediate_costs_no_work():
    """What was pruned is not made again only because it is missing."""
    assert running(planned(CHAIN, ["d"], at(a=1, d=4))) == []


def test_a_missing_intermediate_is_made_for_whoever_needs_it():
    """A newer leaf is seen through missing intermediates, and they are made again."""
    assert reasons(planned(CHAIN, ["d"], at(a=5, d=4))) == {
        "b": ["missing: pi:b"],
        "c": ["missing: pi:c", "upstream runs: pi:b"],
        "d": ["input newer: pi:c", "upstream runs: pi:c"],
    }


def test_a_missing_target_is_made():
    """A target that is missing runs its job, whatever the dates."""
    assert reasons(planned(CHAIN, ["c"], at(a=1, b=2))) == {"c": ["missing: pi:c"]}


def test_dates_are_compared_in_whole_seconds():
    """A part of a second makes nothing newer: a vault may keep none."""
    files = {pi("a"): FileFact(1, 7.9), pi("b"): FileFact(1, 7.1)}
    assert running(planned(CHAIN, ["b"], files)) == []
    assert running(planned(CHAIN, ["b"], files | {pi("a"): FileFact(1, 8.0)})) == ["b"]


def test_an_ancient_input_may_be_newer():
    """An ancient input only has to exist."""
    book = [plain("b", ancient=["pi:a"])]
    assert running(planned(book, ["b"], at(a=9, b=1))) == []
    with pytest.raises(RuleError, match=r"pi:a \(/stack/a\)"):
        planned(book, ["b"], at(b=1))


def test_an_ancient_input_is_made_when_it_is_missing_and_needed():
    """A job never starts without a file it needs, be it ancient; its remaking wakes nobody."""
    book = [plain("b", inputs=["pi:a"]), plain("c", ancient=["pi:b"])]
    assert running(planned(book, ["c"], at(a=1))) == ["b", "c"]
    assert running(planned(book, ["c"], at(a=1, c=1))) == []
    assert running(planned(book, ["b", "c"], at(a=9, b=2, c=1))) == ["b"]


def test_one_job_makes_all_its_outputs():
    """A rule of several outputs is one job, however many of them are asked for."""
    book = [plain("pair", outputs=["pi:x", "pi:y"], inputs=["pi:a"])]
    plan = planned(book, ["x", "y"], at(a=1, x=2))
    assert reasons(plan) == {"pair": ["missing: pi:y"]}
    assert len(plan.planned) == 1
    assert plan.planned[0].job.outputs == (pi("x"), pi("y"))


def test_rules_of_one_name_are_told_apart():
    """Rules made in a loop share a name; each makes its own file, and force means them all."""
    book = [
        Rule("copy", (f"{vault}:{{part}}",), lambda job: iter(()), inputs=("pi:{part}",))
        for vault in ("nas", "usb")
    ]
    roots = {"pi": "/stack", "nas": "/n", "usb": "/u"}
    name = "x.influx-backup.tar"
    graph = resolve(RuleBook(*book, wildcards=WILDCARDS), [f"nas:{name}", f"usb:{name}"], roots)
    files = {pi(name): FileFact(1, 1.0)}
    made = {str(o) for each in decide(graph, files).to_run for o in each.job.outputs}
    assert made == {f"nas:{name}", f"usb:{name}"}
    files |= dict.fromkeys(graph.targets, FileFact(1, 1.0))
    assert decide(graph, files).to_run == ()
    assert len(decide(graph, files, force=["copy"]).to_run) == 2


def test_all_reasons_are_told():
    """A job says every reason that it has, not the first one."""
    book = [plain("b", inputs=["pi:a", "pi:c"]), plain("c", inputs=["pi:a"])]
    record = Record("pi:b", size_bytes=99)
    plan = planned(book, ["b"], at(a=5, b=4, c=3), {"pi:b": record}, force=["b"])
    assert reasons(plan)["b"] == [
        "unfinished: pi:b",
        "input newer: pi:a",
        "forced",
        "upstream runs: pi:c",
    ]


def test_a_transaction_runs_because_it_is_asked_for():
    """A job without outputs makes no file that could say that it is done."""
    job = Job(plain("reload", outputs=[]), {}, (), (pi("a"),))
    graph = Graph((job,), {}, (), RuleBook(job.rule))
    assert reasons(decide(graph, at(a=1))) == {"reload": ["requested"]}
    with pytest.raises(RuleError, match=r"pi:a \(/stack/a\): 'reload' needs it\."):
        decide(graph, {})


def test_a_file_of_another_size_than_its_record_is_unfinished():
    """A record is believed only while the file has the size that was recorded."""
    record = {"pi:b": Record("pi:b", size_bytes=11)}
    assert reasons(planned(CHAIN, ["b"], at(a=1, b=2), record)) == {"b": ["unfinished: pi:b"]}
    record = {"pi:b": Record("pi:b", size_bytes=10)}
    assert reasons(planned(CHAIN, ["b"], at(a=1, b=2), record)) == {}


def test_a_changed_parameter_makes_the_file_again():
    """A record made by other commands is a reason; one that tells none is not."""
    old, new = ([plain("b", inputs=["pi:a"], words=[word])] for word in ("gzip -6", "gzip -9"))
    (made,) = planned(old, ["b"], at(a=1, b=2)).planned
    record = Record("pi:b", size_bytes=10, parameters=parameters_of(made.job))
    assert reasons(planned(old, ["b"], at(a=1, b=2), {"pi:b": record})) == {}
    assert reasons(planned(new, ["b"], at(a=1, b=2), {"pi:b": record})) == {
        "b": ["parameters changed: pi:b"]
    }
    silent = {"pi:b": Record("pi:b", size_bytes=10)}
    assert reasons(planned(new, ["b"], at(a=1, b=2), silent)) == {}


def test_parameters_may_hold_a_name_that_is_no_utf8():
    """A raw file name in a command has a digest like any other."""
    (made,) = planned([plain("b", words=["caf\udce9"])], ["b"], {}).planned
    assert len(parameters_of(made.job)) == 16


def test_two_rules_for_a_needed_file_are_one_error():
    """A file deep in the graph that two rules make is refused with both rules."""
    book = [*CHAIN, plain("b2", outputs=["pi:b"])]
    with pytest.raises(RuleError, match=r"Two rules make pi:b: 'b' \(pi:b\) and 'b2' \(pi:b\)"):
        planned(book, ["d"], at(a=1))


def test_two_needed_jobs_must_not_make_one_file():
    """Two jobs that both run never write one file, even if nobody asked for that file."""
    book = [plain("x", ["pi:x", "pi:side"]), plain("y", ["pi:y", "pi:side"])]
    with pytest.raises(RuleError) as refusal:
        planned(book, ["x", "y"], {})
    assert "pi:side" in str(refusal.value)
    assert "'x'" in str(refusal.value)
    assert "'y'" in str(refusal.value)
    assert running(planned(book, ["x"], {})) == ["x"]


def test_a_cycle_is_one_error_that_names_its_rules():
    """A circle is told in the order in which its rules need each other."""
    book = [
        plain("a", inputs=["pi:c"]),
        plain("b", inputs=["pi:a"]),
        plain("c", inputs=["pi:b"]),
        plain("end", inputs=["pi:a"]),
    ]
    with pytest.raises(RuleError) as refusal:
        planned(book, ["end"], {})
    circle = str(refusal.value).split("circle: ")[1].split(". ")[0].split(" needs ")
    assert sorted(circle[:-1]) == ["'a'", "'b'", "'c'"]
    needs = {"'a'": "'c'", "'b'": "'a'", "'c'": "'b'"}
    assert [needs[each] for each in circle[:-1]] == circle[1:]


@pytest.mark.parametrize("by", [{"inputs": ["pi:a"]}, {"ancient": ["pi:a"]}])
def test_a_rule_that_needs_its_own_output_is_a_cycle(by):
    """The smallest circle is found too, be the input an ancient one."""
    with pytest.raises(RuleError, match="circle: 'a' needs 'a'"):
        planned([plain("a", **by)], ["a"], {})


def test_a_pattern_that_feeds_itself_comes_to_an_end():
    """A rule whose inputs grow for ever ends at the longest runtag, with an error."""
    grow = Rule("grow", ("pi:{runtag}",), lambda job: iter(()), inputs=("pi:{runtag}x",))
    with pytest.raises(RuleError, match="Missing, and no rule makes it"):
        decide(resolve(RuleBook(grow, wildcards=WILDCARDS), ["pi:a"], ROOTS), {})


def test_all_missing_inputs_are_one_error():
    """Each missing file is named with who needs it; the nearest rule is offered."""
    book = [
        plain("b", inputs=["pi:a", "pi:other"]),
        Rule("tar", ("pi:{runtag}.tar",), lambda job: iter(())),
    ]
    with pytest.raises(RuleError) as refusal:
        planned(book, ["b", "-x.tar"], {})
    assert str(refusal.value) == (
        "Missing, and no rule makes it:\n"
        "  pi:-x.tar (/stack/-x.tar): it was requested.\n"
        "  pi:a (/stack/a): 'b' needs it.\n"
        "  pi:other (/stack/other): 'b' needs it.\n"
        "Rule 'tar' makes pi:{runtag}.tar, but what stands for {runtag} is not a valid runtag."
    )


def test_a_target_that_is_there_and_that_no_rule_makes_is_no_work():
    """What exists and belongs to no rule is taken as it is."""
    assert planned(CHAIN, ["a"], at(a=1)).planned == ()


@pytest.mark.parametrize("name", ["nas:x", "x", "", "PI:x"])
def test_a_role_that_nobody_bound_is_refused(name):
    """A name without a known role is answered by the roles there are."""
    with pytest.raises(RuleError, match="use one of pi:, usb: before the path"):
        bind(name, {"usb": "/media", "pi": "/stack"})


def test_a_role_is_bound_to_its_root():
    """A path is all that stands behind the first colon."""
    assert bind("pi:a:b/c", ROOTS).absolute == "/stack/a:b/c"


def test_everything_to_look_at_is_told_before_the_look():
    """A graph lists the outputs, the inputs, the ancient inputs and the targets."""
    book = RuleBook(plain("b", inputs=["pi:a"], ancient=["pi:old"]))
    graph = resolve(book, ["pi:b", "pi:leaf"], ROOTS)
    assert graph.files == {pi("a"), pi("b"), pi("old"), pi("leaf")}


@pytest.mark.parametrize("shape", ["chain", "fan"])
def test_a_thousand_rules_are_planned(shape):
    """Neither a long chain nor a wide fan meets the end of Python's stack."""
    before = [f"pi:r{n - 1}" if shape == "chain" and n else "pi:a" for n in range(1000)]
    book = [plain(f"r{n}", inputs=[needed]) for n, needed in enumerate(before)]
    targets = ["r999"] if shape == "chain" else [f"r{n}" for n in range(1000)]
    plan = planned(book, targets, at(a=1))
    assert len(plan.to_run) == 1000
    assert planned(book, targets, after(plan, at(a=1))).to_run == ()
