"""TurboGears: a root controller whose methods are the paths, in its minimal mode."""

import webob.static
from tg import (
    MinimalApplicationConfigurator,
    TGController,
    expose,
    redirect,
    request,
    response,
    url,
    use_wsgi_app,
)

from . import shop


class Root(TGController):
    @expose()
    def teas(self, name, q):
        return shop.tea(name, q, url("/order"))

    @expose()
    def order(self, tea):
        response.signed_cookie("ordered", tea, secret="tests")
        redirect("/thanks")

    @expose(content_type="text/plain")
    def thanks(self):
        return request.signed_cookie("ordered", secret="tests")

    @expose("json")
    def upload(self, picture, note):
        return shop.receipt(picture.filename, picture.file.read(), note)

    @expose()
    def picture(self):
        return use_wsgi_app(webob.static.FileApp(str(shop.PICTURE), content_type="image/png"))

    @expose(content_type="text/plain")
    def leaves(self):
        return shop.leaves()


configurator = MinimalApplicationConfigurator()
configurator.update_blueprint({"root_controller": Root(), "renderers": ["json"]})
app = configurator.make_wsgi_app()
