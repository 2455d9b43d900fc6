from apps.archive.models import Record
from django import forms
from django.contrib import admin
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest


@admin.register(Record)
class RecordAdmin(admin.ModelAdmin):
    list_display = ("title", "attachment")
    search_fields = ("title",)

    def save_model(
        self, request: HttpRequest, obj: Record, form: forms.ModelForm, change: bool
    ) -> None:
        upload = form.cleaned_data["attachment"]
        if isinstance(upload, UploadedFile):
            # `TemporaryUploadedFile` for a large one, shown after "was added successfully".
            self.message_user(request, f"Came as {type(upload).__name__}.")
        super().save_model(request, obj, form, change)
