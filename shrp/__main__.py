"""`python -m shrp`: see `shrp.cli`."""

from shrp.cli import main

if __name__ == "__main__":
    main()
