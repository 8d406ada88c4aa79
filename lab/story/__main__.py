"""`make lab-demo`."""

from __future__ import annotations

import os
import sys

from lab.cluster import founding, life
from lab.cluster.site import Lab, LabError
from lab.demo.screen import Screen
from lab.story.story import Story


def main() -> int:
    """Runs the demo on the lab, which is started if it is not there; the exit status."""
    if os.geteuid() != 0:
        words = ["sudo", "--preserve-env=PVC_LAB", sys.executable, "-m", "lab.story"]
        os.execvp(words[0], words)
    screen = Screen()
    try:
        lab = Lab.chosen()
        life.switch_on(lab)
        founding.found(lab, lambda text: screen.say("lab", text))
        Story(lab, screen).tell()
    except (LabError, TimeoutError) as error:
        print(f"lab-demo: {error}", file=sys.stderr)
        return 1
    print("\nThe lab keeps running: lab/pvc-lab status; make lab-stop ends it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
