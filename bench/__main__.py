"""``python -m bench``, which is how a launcher starts it."""

from bench.cli import main

if __name__ == "__main__":
    main()
