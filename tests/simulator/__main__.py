"""The simulator's command: runs seeds, replays one, runs or accepts scenarios."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.simulator.faults import script_of, world_of
from tests.simulator.run import run
from tests.simulator.scenario import all_scenarios, keep
from tests.simulator.seeds import Finding, Tally, kind_of, run_seed, run_seeds, smallest
from tests.simulator.world import spelled, spelled_script

FOUND_MAX = 50
"""What breaks so often breaks at once: more seeds would say nothing new."""
KEPT = Path("/tmp/pvc-simulator")
"""Where failing stories go unless --keep says otherwise."""


def main() -> int:
    arguments = _arguments()
    if arguments.show is not None:
        return _show(arguments.show)
    if arguments.accept is not None:
        return _accept(arguments.accept)
    return _search(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--show", type=int, metavar="SEED", help="tell one seed's whole story")
    parser.add_argument("--accept", nargs="*", metavar="SCENARIO", help="keep logs as they are now")
    parser.add_argument("--keep", type=Path, default=KEPT, help=f"folder for failures ({KEPT})")
    parser.add_argument("--no-shrink", action="store_true", help="only say which seeds fail")
    return parser.parse_args()


def _show(seed: int) -> int:
    print(spelled(world_of(seed)) + "\n" + spelled_script(script_of(seed)))
    result = run_seed(seed, stop_early=False)
    print("\n".join(result.log))
    return bool(result.found)


def _accept(names: list[str]) -> int:
    broken = 0
    for scenario in all_scenarios():
        if not names or scenario.name in names:
            result = scenario.accept()
            broken += bool(result.found)
            print(f"{scenario.name}: {'; '.join(result.found) or 'kept'}")
    return bool(broken)


def _search(arguments: argparse.Namespace) -> int:
    tally, told_of = Tally(), 0
    for tally in run_seeds(arguments.first, arguments.seeds, arguments.jobs):
        for finding in tally.findings[told_of:]:
            print(f"seed {finding.seed}: {finding.sentence}", flush=True)
        told_of = len(tally.findings)
        if told_of >= FOUND_MAX:
            break
    print(
        f"{tally.seeds} seeds in {tally.took_s:.1f} s: {tally.seeds / tally.took_s:.1f} seeds/s, "
        f"{tally.simulated_s / 3600 / tally.took_s:.2f} simulated hours/s, "
        f"{tally.events / tally.took_s:,.0f} events/s, {len(tally.findings)} found"
    )
    if tally.findings and not arguments.no_shrink:
        _keep_smallest(tally.findings, arguments.keep)
    return bool(tally.findings)


def _keep_smallest(findings: tuple[Finding, ...], folder: Path) -> None:
    """One of each kind."""
    kinds = Counter(kind_of(finding.sentence) for finding in findings)
    for kind, times in kinds.most_common(5):
        finding = next(one for one in findings if kind_of(one.sentence) == kind)
        world, script = smallest(finding.seed, kind)
        result = run(world, script, stop_early=False)
        place = folder / f"seed-{finding.seed}"
        why = f"# Seed {finding.seed}\n\n{finding.sentence}\n"
        keep(place, why, world, script, result)
        print(f"{times} × {kind}: {len(script)} deeds are enough: {place}")


if __name__ == "__main__":
    sys.exit(main())
