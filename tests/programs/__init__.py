"""Programs of others over uTP, each installed from PyPI into a virtual environment of its own."""
