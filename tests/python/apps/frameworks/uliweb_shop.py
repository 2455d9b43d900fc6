"""Uliweb: what its command puts into ``wsgi_handler.py``; the shop is in ``uliweb_project``."""

from pathlib import Path

from uliweb.manage import make_simple_application

application = make_simple_application(project_dir=str(Path(__file__).parent / "uliweb_project"))
