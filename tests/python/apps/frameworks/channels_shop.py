"""Django through ASGI, and Channels beside it: a chat over the layer in memory."""

import asyncio
import json
from collections.abc import AsyncIterator

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
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)

from django.core.asgi import get_asgi_application  # noqa: E402 # needs the settings

site = get_asgi_application()

from channels.generic.websocket import (  # noqa: E402
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import OriginValidator  # noqa: E402
from channels.sessions import SessionMiddlewareStack  # noqa: E402
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


async def thanks(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await request.session.aget("ordered"))


async def upload(request: HttpRequest) -> HttpResponse:
    picture = request.FILES["picture"]
    return JsonResponse(shop.receipt(picture.name, picture.read(), request.POST["note"]))


def picture(request: HttpRequest) -> HttpResponseBase:
    return FileResponse(shop.PICTURE.open("rb"), content_type="image/png")


async def leaves(request: HttpRequest) -> HttpResponseBase:
    async def lines() -> AsyncIterator[bytes]:
        for line in shop.leaves():
            yield line

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def silent(request: HttpRequest) -> HttpResponseBase:
    async def drops() -> AsyncIterator[bytes]:
        yield b"drop\n"
        shop.journal("Django's tap is silent")
        try:
            await asyncio.Event().wait()
        finally:
            shop.journal("Django's tap is closed")

    return StreamingHttpResponse(drops(), content_type="text/plain")


class Tasting(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        query = dict(pair.split("=") for pair in self.scope["query_string"].decode().split("&"))
        await self.accept()
        await self.send(shop.welcome(self.scope["url_route"]["kwargs"]["tea"], query["q"]))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "bye":
            await self.close(4001, "süß ☕")
        elif text_data is not None:
            await self.send(text_data.upper())


class Chat(AsyncJsonWebsocketConsumer):
    """The chat of Channels' tutorial; whoever has ordered is known by the session."""

    async def connect(self) -> None:
        self.room = f"chat_{self.scope['url_route']['kwargs']['room']}"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()
        await self.send_json({"you": await self.scope["session"].aget("ordered", "nobody")})

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)
        await self.channel_layer.group_send(
            self.room, {"type": "chat.message", "message": f"gone with {code}"}
        )

    async def receive_json(self, content: dict[str, str]) -> None:
        await self.channel_layer.group_send(
            self.room, {"type": "chat.message", "message": content["message"]}
        )

    async def chat_message(self, event: dict[str, str]) -> None:
        await self.send(json.dumps({"message": event["message"]}))


urlpatterns = [
    path("teas/<str:name>", tea),
    path("order", order, name="order"),
    path("thanks", thanks, name="thanks"),
    path("upload", upload),
    path("picture", picture),
    path("leaves", leaves),
    path("silent", silent),
]

application = ProtocolTypeRouter(
    {
        "http": site,
        "websocket": OriginValidator(
            SessionMiddlewareStack(
                URLRouter(
                    [
                        path("tasting/<str:tea>", Tasting.as_asgi()),
                        path("chat/<str:room>", Chat.as_asgi()),
                    ]
                )
            ),
            ["https://tea.example"],
        ),
    }
)
