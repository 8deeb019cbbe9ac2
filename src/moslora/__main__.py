"""`python -m moslora`."""

from moslora.cli import main

if __name__ == "__main__":
    main()
