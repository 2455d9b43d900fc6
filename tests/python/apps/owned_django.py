"""A Django site in one module, with every kind of URL pattern; every answer is signed."""

from collections.abc import Callable

from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[f"{__name__}.sign", "django.middleware.common.CommonMiddleware"],
)

from django.core.wsgi import get_wsgi_application  # noqa: E402 # needs the settings
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import include, path, re_path  # noqa: E402
from django.views.decorators.http import require_POST  # noqa: E402


def sign(proceed: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def signed(request: HttpRequest) -> HttpResponse:
        response = proceed(request)
        response.headers["x-answered-by"] = "django"
        return response

    return signed


def answer(request: HttpRequest, **values: object) -> HttpResponse:
    return HttpResponse(f"{request.method} {request.path} {values}".encode())


urlpatterns = [
    path("items/", answer),
    path("items/<int:item_id>/", answer),
    path("slug/<slug:value>", answer),
    path("uuid/<uuid:value>", answer),
    path("path/<path:value>", answer),
    re_path(r"^years/(?P<year>[0-9]{4})$", answer),
    path("shop/", include([path("cart/<str:cart_id>", require_POST(answer))])),
]

application = get_wsgi_application()
