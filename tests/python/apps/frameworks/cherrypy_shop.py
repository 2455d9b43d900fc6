"""CherryPy: a tree of objects, whose `script_name` is what the server says."""

import cherrypy
from cherrypy.lib.static import serve_file

from . import shop


class Shop:
    @cherrypy.expose
    def teas(self, name, q):
        return shop.tea(name, q, cherrypy.url("/order", relative="server"))

    @cherrypy.expose
    @cherrypy.tools.allow(methods=["POST"])
    def order(self, tea):
        cherrypy.session["ordered"] = tea
        raise cherrypy.HTTPRedirect(cherrypy.url("/thanks"), 303)

    @cherrypy.expose
    def thanks(self):
        return cherrypy.session["ordered"]

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def upload(self, picture, note):
        return shop.receipt(picture.filename, picture.file.read(), note)

    @cherrypy.expose
    def picture(self):
        return serve_file(str(shop.PICTURE), "image/png")

    @cherrypy.expose
    @cherrypy.config(**{"response.stream": True})
    def leaves(self):
        cherrypy.response.headers["Content-Type"] = "text/plain"
        return shop.leaves()


app = cherrypy.Application(Shop(), script_name=None, config={"/": {"tools.sessions.on": True}})
