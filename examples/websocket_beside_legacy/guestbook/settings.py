"""Settings of the guest book: no database, no admin, entries live in a file."""

import os
import secrets
from pathlib import Path

HERE = Path(__file__).parent

# Set DJANGO_SECRET_KEY where several workers run: each would make up its own, and forms of one fail
# at the other.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(48)
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
ROOT_URLCONF = "guestbook.urls"
WSGI_APPLICATION = "guestbook.wsgi.application"
USE_TZ = True

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "templates"]}
]

GUESTBOOK = Path(os.environ.get("GUESTBOOK") or HERE.parent / "guestbook.jsonl")
