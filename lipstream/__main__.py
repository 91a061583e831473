"""`python -m lipstream` is `lipstream`."""

from lipstream.cli import main

if __name__ == "__main__":
    main()
