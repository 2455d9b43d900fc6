"""What people name by mistake."""

number = 5
text = "app"


class Settings:
    """Not callable once it is made."""


settings = Settings()
aplication = len


def apps() -> None:
    """Takes nothing: neither WSGI nor ASGI."""
