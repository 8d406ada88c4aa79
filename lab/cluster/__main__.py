"""`lab/pvc-lab`: drives the lab."""

from lab.cluster.cli import main

if __name__ == "__main__":
    main()
