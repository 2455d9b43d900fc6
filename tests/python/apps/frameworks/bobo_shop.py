"""bobo: functions with routes in a module that the application names; WebOb underneath."""

import json

import bobo
import webob.static

from . import shop


@bobo.query("/teas/:name")
def tea(bobo_request, name, q):
    return shop.tea(name, q, bobo_request.application_url + "/order")


@bobo.post("/order")
def order(bobo_request, tea):
    response = bobo.redirect(bobo_request.application_url + "/thanks", 303)
    response.set_cookie("ordered", tea.encode().hex())
    return response


@bobo.query("/thanks")
def thanks(bobo_request):
    return bytes.fromhex(bobo_request.cookies["ordered"]).decode()


@bobo.post("/upload", content_type="application/json")
def upload(picture, note):
    return json.dumps(shop.receipt(picture.filename, picture.file.read(), note))


@bobo.query("/picture")
def picture(bobo_request):
    return webob.static.FileApp(str(shop.PICTURE), content_type="image/png")(bobo_request)


@bobo.query("/leaves")
def leaves():
    return webob.Response(app_iter=shop.leaves(), content_type="text/plain")


app = bobo.Application(bobo_resources=__name__)
