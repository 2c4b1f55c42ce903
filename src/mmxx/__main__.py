"""``python -m mmxx``: the command line."""

from mmxx.lab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
