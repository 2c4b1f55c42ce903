"""``python -m mmxx.lab.testing sham [NAME ...]``."""

from mmxx.lab.testing.contract import main

raise SystemExit(main())
