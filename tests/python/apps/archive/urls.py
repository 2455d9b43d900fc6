from apps.archive import views
from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("add", views.add),
    path("counts", views.tell),
    # Browsers ask for it, and complain.
    path("favicon.ico", views.nothing),
    path("download/<int:pk>", views.download),
    path("endless", views.endless),
    path("meet/<int:number>", views.meet),
    path("titles", views.titles),
    path("upload", views.upload),
]
