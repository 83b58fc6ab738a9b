"""``python -m txutp`` is the ``txutp`` command."""

from txutp.cli import main

if __name__ == "__main__":
    main()
