"""All that pip needs to know about txutp; pyproject.toml holds only the settings of tools."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

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


# Twisted starts processes on Windows with pywin32, and the command's demonstration has two.
CLI = ["click>=8.1", "dpkt>=1.9.8", "rich>=13", 'pywin32>=226; platform_system == "Windows"']
PLOT = [*CLI, "matplotlib>=3.7"]
# What else there is to compare with is left out where it is not installed.
BENCHMARKS = [*CLI, "aioquic>=1.2", "matplotlib>=3.7"]
# The site: "sphinx-build docs docs/_build".
DOCS = ["furo>=2024.8.6", "matplotlib>=3.7", "myst-parser>=4", "sphinx>=8", "sphinx-copybutton>=0.5.2"]
EXAMPLES = ["bencode2>=0.3", "Twisted[conch,tls]>=24.7"]
ON_LINUX = 'sys_platform == "linux" and platform_machine == "x86_64" and implementation_name == "cpython"'
# What has wheels for Linux; the tests skip what is missing.
FUZZ = [f"atheris>=2.3; {ON_LINUX}"]
REACTORS = [f"{name}; {ON_LINUX}" for name in ("PyQt5>=5.15", "qt-reactor>=0.6", "rloop>=0.1", "uvloop>=0.19")]
TEST = [
    "build>=1",
    "hypothesis>=6.100",
    "libtorrent>=2.0.9",
    "mypy>=1.10",
    "mypy-zope>=1.0.6",
    # Twisted's own test modules, which tests/conformance binds, import this.
    "PyHamcrest>=2",
    "pre-commit>=3.5",
    "prometheus-client>=0.19",
    "pyright>=1.1.390",
    # A terminal in memory, to see what a person would.
    "pyte>=0.8.2",
    "pytest>=8",
    "pytest-twisted>=1.14",
    "ruff>=0.6",
    "towncrier>=23.11",
    # Without OpenSSL the conformance suite could not run TLS over uTP, without conch there is no SSH example.
    "Twisted[conch,tls]>=24.7",
]

setup(
    name="txutp",
    version="0.1.0",
    description="uTP (BEP 29) for Twisted: a stream over UDP that yields to other traffic",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The txutp authors",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Internet",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    keywords=["twisted", "utp", "bep29", "ledbat", "bittorrent", "udp"],
    python_requires=">=3.10",
    # "twisted.plugins" is named by hand because find_packages() skips a directory without an
    # __init__.py, and it must never get one: that would overwrite a file of Twisted itself.
    packages=[
        "txutp",
        "txutp.cli",
        "txutp.cli.measurement",
        "txutp.core",
        "txutp.core.congestion",
        "txutp.monitoring",
        "txutp.qlog",
        "txutp.rebinding",
        "txutp.socket",
        "txutp.testing",
        "txutp.udp",
        "txutp.workers",
        "twisted.plugins",
    ],
    # The explicit root makes `pip install -e .` put this directory on sys.path, the only place
    # where Twisted looks for plugins.
    package_dir={"": "."},
    # "startup" is no package: child processes of "python -m txutp.rebinding" find it on their path.
    package_data={"txutp": ["py.typed"], "txutp.rebinding": ["startup/*.py"]},
    install_requires=["Twisted>=24.7", "zope.interface>=5"],
    extras_require={
        "benchmarks": BENCHMARKS,
        "cli": CLI,
        "docs": DOCS,
        "examples": EXAMPLES,
        "fuzz": FUZZ,
        "plot": PLOT,
        "test": sorted({*TEST, *REACTORS, *FUZZ, *BENCHMARKS, *DOCS, *EXAMPLES}, key=str.lower),
    },
    entry_points={"console_scripts": ["txutp = txutp.cli:main"]},
    zip_safe=False,
)
