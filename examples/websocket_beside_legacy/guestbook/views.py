"""The guest book's pages: a list with a form, and one entry."""

import json
import os

from django import forms
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_safe


class EntryForm(forms.Form):
    name = forms.CharField(max_length=40)
    message = forms.CharField(max_length=400, widget=forms.Textarea(attrs={"rows": 3}))


@require_http_methods(["GET", "HEAD", "POST"])
def entries(request: HttpRequest) -> HttpResponse:
    form = EntryForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        write_entry(form.cleaned_data)
        return HttpResponseRedirect("/")
    page = {"form": form, "entries": list(enumerate(read_entries(), 1))[::-1]}
    return render(request, "entries.html", page, status=400 if form.is_bound else 200)


@require_safe
def entry(request: HttpRequest, number: int) -> HttpResponse:
    known = read_entries()
    if not 1 <= number <= len(known):
        raise Http404
    return render(request, "entry.html", {"number": number, "entry": known[number - 1]})


def read_entries() -> list[dict[str, str]]:
    try:
        with settings.GUESTBOOK.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except FileNotFoundError:
        return []


def write_entry(values: dict[str, str]) -> None:
    # One write to a file opened for appending: entries of several workers follow one another and
    # never mix.
    descriptor = os.open(settings.GUESTBOOK, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(values).encode() + b"\n")
    finally:
        os.close(descriptor)
