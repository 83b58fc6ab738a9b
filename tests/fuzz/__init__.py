"""Fuzzing: three targets that read bytes as a story, and must hold what is promised whatever the story is."""
