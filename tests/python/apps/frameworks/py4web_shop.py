"""py4web: what its documentation puts before a WSGI server; the shop is in ``py4web_apps``."""

import os

from py4web.core import wsgi

application = wsgi(apps_folder=os.environ["PY4WEB_SITE"], dashboard_mode="none")
