"""What the admin does not do: downloads, streams, and counts of what became of connections."""

import gc
import threading
from collections import Counter
from collections.abc import Iterator

from apps.archive.models import Record
from django.core.signals import request_finished, request_started
from django.db import connection, transaction
from django.db.backends.signals import connection_created
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
    UnreadablePostError,
)
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt

TIMEOUT = 15.0

counts: Counter[str] = Counter()
changed = threading.Condition()
meetings: dict[int, threading.Barrier] = {}


def count(what: str) -> None:
    with changed:
        counts[what] += 1
        changed.notify_all()


def has_started(**_: object) -> None:
    count("started")


def has_finished(**_: object) -> None:
    # Django's own receiver of this signal was connected before, and has closed what is too old.
    count("finished with a connection" if connection.connection else "finished without")


def has_connected(**_: object) -> None:
    count("connected")


request_started.connect(has_started)
request_finished.connect(has_finished)
connection_created.connect(has_connected)


def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


def download(request: HttpRequest, pk: int) -> FileResponse:
    attachment = get_object_or_404(Record, pk=pk).attachment
    return FileResponse(attachment.open(), as_attachment=True)


@transaction.non_atomic_requests
def titles(request: HttpRequest) -> StreamingHttpResponse:
    """Reads from the database while it sends, as many times as it is asked to."""

    def lines() -> Iterator[str]:
        for _ in range(int(str(request.GET.get("times", 1)))):
            for title in Record.objects.order_by("pk").values_list("title").iterator(10):
                yield f"{title[0]}\t{threading.get_ident()}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def endless(request: HttpRequest) -> StreamingHttpResponse:
    def rows() -> Iterator[bytes]:
        while True:
            yield b"x" * 10_000

    return StreamingHttpResponse(rows())


@csrf_exempt
def add(request: HttpRequest) -> HttpResponse:
    """Adds a record for each title, and raises where a title is in use."""
    for title in request.POST.getlist("title") or ():
        Record.objects.create(title=title)
    return HttpResponse(status=201)


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    try:
        files = [file for name in request.FILES for file in request.FILES.getlist(name) or ()]
    except UnreadablePostError:
        count("unreadable")
        return HttpResponse(status=400)
    return JsonResponse({"sizes": [file.size for file in files], "fields": request.POST})


@transaction.non_atomic_requests
def meet(request: HttpRequest, number: int) -> HttpResponse:
    """Waits until `number` requests are here, and tells what this one has of its own."""
    Record.objects.count()
    with changed:
        meeting = meetings.setdefault(number, threading.Barrier(number))
    meeting.wait(TIMEOUT)
    return JsonResponse(
        {
            "thread": threading.get_ident(),
            "connection": id(connection.connection),
        }
    )


@transaction.non_atomic_requests
def tell(request: HttpRequest) -> HttpResponseBase:
    """The counts, once all requests but this one have finished and, if asked, there is `what`."""
    what = str(request.GET.get("what", "started"))

    def finished() -> int:
        return counts["finished with a connection"] + counts["finished without"]

    with changed:
        changed.wait_for(lambda: counts["started"] == finished() + 1 and counts[what], TIMEOUT)
        # Django leaves what it had of an upload that broke off to the garbage collector.
        gc.collect()
        return JsonResponse(counts)
