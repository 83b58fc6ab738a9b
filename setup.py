"""What pyproject.toml cannot say about the package: how an index shows the README, and which files are installed."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = HERE / "README.md"

# Where the repository's files are shown, ending in "/", as soon as that is a public address.
REPOSITORY = ""


def long_description() -> str:
    """The README as a package index shows it: links into the repository are absolute.

    While ``REPOSITORY`` has no address, their words stay and pictures are left out: relative links lead nowhere there.
    """
    if not README.exists():
        return ""
    text = README.read_text(encoding="utf-8")
    relative = r"(?!https?:|#)([^)]*)"
    if REPOSITORY:
        return re.sub(rf"\]\({relative}\)", rf"]({REPOSITORY}\1)", text)
    text = re.sub(rf"!\[[^\]]*\]\({relative}\)\n\n?", "", text)
    return re.sub(rf"\[([^\]]+)\]\({relative}\)", r"\1", text)


setup(
    # Not "readme" in pyproject.toml, which takes a file as it is.
    long_description=long_description(),
    long_description_content_type="text/markdown",
    # "twisted.plugins" is named by hand because find_packages() skips a directory without an
    # __init__.py, and it must never get one: that would overwrite a file of Twisted itself.
    packages=[*find_packages(include=["txutp", "txutp.*"]), "twisted.plugins"],
    # The explicit root makes `pip install -e .` put this directory on sys.path, the only place
    # where Twisted looks for plugins.
    package_dir={"": "."},
    # "startup" is no package: child processes of "python -m txutp.rebinding" find it on their path.
    package_data={"txutp": ["py.typed"], "txutp.rebinding": ["startup/*.py"]},
    zip_safe=False,
)
