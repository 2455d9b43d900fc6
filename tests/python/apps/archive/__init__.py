"""A small Django project as people have them: admin, sessions, uploads, one SQLite file.

Everything that it writes goes below the directory that `ARCHIVE` names.
"""
