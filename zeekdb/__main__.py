"""`python -m zeekdb` is the zeekdb command."""

from zeekdb.cli import main

raise SystemExit(main())
