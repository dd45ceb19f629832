"""Runs two ways of doing one thing in turn, A B A B …, and prints medians and their ratio.

Ratios of one call hold when the machine's speed drifts; seconds do not.
"""

import resource
import statistics
import time


def cpu_s():
    """Return the processor seconds of this process and of all its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(act):
    """Return the wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), cpu_s()
    act()
    return time.perf_counter() - wall, cpu_s() - cpu


def verdict(found, reach):
    """Return a reach and whether it is met, to stand behind what was found."""
    return f" (reach {reach:g}: {'met' if found <= reach else 'missed'})"


def compare(ours, rival, *, rounds=5, before=lambda: None, reach=None, more_s=None):
    """Print a table of both ways, given as (name, function), after a warm-up of each.

    `before` is done before each, and is not measured. `reach`: the highest ratio for `wall` and
    `CPU` that was aimed at; `more_s`: how many seconds ours was to take more.
    """
    for _, act in (ours, rival):
        before()
        act()
    found = {ours[0]: [], rival[0]: []}
    for _ in range(rounds):
        for name, act in (ours, rival):
            before()
            found[name].append(measure(act))
    print("| way | wall s (min … max) | CPU s |\n|---|---|---|")
    for name, times in found.items():
        walls = sorted(wall for wall, _ in times)
        cpu = statistics.median(cpu for _, cpu in times)
        print(
            f"| {name} | {statistics.median(walls):.3f} ({walls[0]:.3f} … {walls[-1]:.3f}) "
            f"| {cpu:.2f} |"
        )
    paired = list(zip(found[ours[0]], found[rival[0]], strict=True))
    for what, index in (("wall", 0), ("CPU", 1)):
        ratio = statistics.median(mine[index] / other[index] for mine, other in paired)
        aimed = (reach or {}).get(what)
        judged = verdict(ratio, aimed) if aimed else ""
        print(f"{ours[0]} / {rival[0]}, {what}: {ratio:.3f}{judged}")
    if more_s is not None:
        more = statistics.median(mine[0] - other[0] for mine, other in paired)
        print(f"{ours[0]} - {rival[0]}, wall: {more:.3f} s{verdict(more, more_s)}")
