"""Conversations: whole programs on both ends of bad paths, drawn from a seed and checked when they have ended.

``program.py`` draws, ``speakers.py`` talks, ``playing.py`` runs it, ``checks.py`` judges.
``docs/notebook/conversations.md`` says what is promised and how many were run::

    python -m tests.conversations --seeds 100000-100499 --jobs 2
    python -m tests.conversations --seed 100000 -v
"""
