"""``python -m overnight`` is the command ``overnight``."""

from overnight.cli import main

if __name__ == "__main__":
    main()
