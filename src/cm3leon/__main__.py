"""`python -m cm3leon` is the same command as `cm3leon`."""

from cm3leon.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
