"""``python -m interp_lib.cli`` is ``interp``."""

from . import main

raise SystemExit(main())
