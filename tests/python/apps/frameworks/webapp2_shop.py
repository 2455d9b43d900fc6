"""webapp2: a handler class for each route, sessions in a signed cookie."""

import webapp2
from webapp2_extras import sessions
from webob.static import FileApp

from . import shop


class Handler(webapp2.RequestHandler):
    def dispatch(self):
        self.session_store = sessions.get_store(request=self.request)
        super().dispatch()
        self.session_store.save_sessions(self.response)

    @property
    def session(self):
        return self.session_store.get_session()


class Tea(Handler):
    def get(self, name):
        self.response.write(shop.tea(name, self.request.get("q"), self.uri_for("order")))


class Order(Handler):
    def post(self):
        self.session["ordered"] = self.request.POST["tea"]
        self.redirect_to("thanks", _code=303)


class Thanks(Handler):
    def get(self):
        self.response.write(self.session["ordered"])


class Upload(Handler):
    def post(self):
        picture = self.request.POST["picture"]
        receipt = shop.receipt(picture.filename, picture.file.read(), self.request.POST["note"])
        self.response.json = receipt
        self.response.content_type = "application/json"


class Leaves(Handler):
    def get(self):
        self.response.content_type = "text/plain"
        self.response.app_iter = shop.leaves()


class Picture(webapp2.RequestHandler):
    def get(self):
        return self.request.get_response(FileApp(str(shop.PICTURE), content_type="image/png"))


app = webapp2.WSGIApplication(
    [
        webapp2.Route("/teas/<name>", Tea, "tea"),
        webapp2.Route("/order", Order, "order"),
        webapp2.Route("/thanks", Thanks, "thanks"),
        webapp2.Route("/upload", Upload, "upload"),
        webapp2.Route("/picture", Picture, "picture"),
        webapp2.Route("/leaves", Leaves, "leaves"),
    ],
    config={"webapp2_extras.sessions": {"secret_key": "tests"}},
)
