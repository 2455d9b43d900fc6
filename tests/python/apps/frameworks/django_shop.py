"""Django: a site in one module, with the middlewares that a new project has for its sessions."""

from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)

from django.core.wsgi import get_wsgi_application  # noqa: E402 # needs the settings
from django.http import (  # noqa: E402
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import redirect  # noqa: E402
from django.urls import path, reverse  # noqa: E402

from . import shop  # noqa: E402


def tea(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(shop.tea(name, request.GET["q"], reverse("order")))


def order(request: HttpRequest) -> HttpResponse:
    request.session["ordered"] = request.POST["tea"]
    return redirect("thanks")


def thanks(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.session["ordered"])


def upload(request: HttpRequest) -> HttpResponse:
    picture = request.FILES["picture"]
    return JsonResponse(shop.receipt(picture.name, picture.read(), request.POST["note"]))


def picture(request: HttpRequest) -> HttpResponseBase:
    return FileResponse(shop.PICTURE.open("rb"), content_type="image/png")


def leaves(request: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(shop.leaves(), content_type="text/plain")


urlpatterns = [
    path("teas/<str:name>", tea),
    path("order", order, name="order"),
    path("thanks", thanks, name="thanks"),
    path("upload", upload),
    path("picture", picture),
    path("leaves", leaves),
]

application = get_wsgi_application()
